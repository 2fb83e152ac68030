/** Short conversations in English and Chinese: chatterbot-corpus, and the polite small talk that it lacks. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import type { Recipe } from "../lib/data.js";
import { pypi } from "../lib/packages.js";
import { split } from "../lib/split.js";

interface Conversation {
  language: "en" | "zh";
  messages: { role: "user" | "assistant"; content: string }[];
}

function conversation(language: "en" | "zh", turns: unknown): Conversation | undefined {
  if (!Array.isArray(turns) || turns.length < 2) return undefined;
  const texts = turns.map((turn) => String(turn).replace(/\s+/g, " ").trim());
  if (texts.some((text) => text === "" || text.length > 400)) return undefined;
  // What is asked last has no answer to learn.
  const whole = texts.slice(0, texts.length - (texts.length % 2));
  return { language, messages: whole.map((content, i) => ({ role: i % 2 ? "assistant" : "user", content })) };
}

export const recipe: Recipe = {
  sources: [
    { package: "PyPI chatterbot-corpus 1.3.3", what: "its English and (simplified) Chinese conversations", license: "BSD-3-Clause" },
    { package: "this repository", what: "recipes/dialogue/own.jsonl, written for it", license: "MIT OR Apache-2.0" },
  ],
  async read() {
    const folder = join(await pypi("chatterbot-corpus", "1.3.3"), "chatterbot_corpus/data");
    const rows: Conversation[] = [];
    for (const [language, name] of [["en", "english"], ["zh", "chinese"]] as const) {
      for (const file of (await readdir(join(folder, name))).sort().filter((file) => file.endsWith(".yml"))) {
        const { conversations } = parse(await readFile(join(folder, name, file), "utf8")) as { conversations?: unknown[] };
        for (const turns of conversations ?? []) {
          const row = conversation(language, turns);
          if (row) rows.push(row);
        }
      }
    }
    const own = await readFile(join(__dirname, "own.jsonl"), "utf8");
    rows.push(...own.split("\n").filter(Boolean).map((line) => JSON.parse(line) as Conversation));
    // A question with several answers is on one side, and so is what is said in several conversations.
    const texts = ({ messages }: Conversation) => messages.map(({ content }) => content);
    return split(rows, { group: (row) => texts(row)[0]!, texts }, { heldout: 10, validation: 20 });
  },
};
