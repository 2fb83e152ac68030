/** English sayings by topic, from Debian's fortunes. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Recipe } from "../lib/data.js";
import { debian } from "../lib/packages.js";
import { split } from "../lib/split.js";

/** Topics that are one each, and have a few hundred sayings. */
const TOPICS = ["computers", "science", "politics", "law", "education", "food", "sports", "love"] as const;

interface Saying {
  text: string;
  label: (typeof TOPICS)[number];
}

/**
 * Backspaces overstrike; a dash before a name begins the line that says who said it, which would tell the topic by
 * itself.
 */
const clean = (text: string): string =>
  text.replace(/.[\b]/g, "").replace(/\n\s*--\s[^]*$/, "").replace(/\s+/g, " ").trim();

export const recipe: Recipe = {
  sources: [{ package: "Debian 12 fortunes", what: `the files ${TOPICS.join(", ")}`, license: "BSD (the collection; see its copyright file for what it says of the sayings)" }],
  async read() {
    const folder = join((await debian("fortunes"))[0]!, "usr/share/games/fortunes");
    const rows: Saying[] = [];
    for (const label of TOPICS) {
      const sayings = (await readFile(join(folder, label), "utf8")).split(/\n%\n/);
      for (const saying of sayings) {
        const text = clean(saying);
        if (text.length >= 20 && text.length <= 1200) rows.push({ text, label });
      }
    }
    return split(rows, { group: ({ text }) => text, texts: ({ text }) => [text] }, { heldout: 5, validation: 10 });
  },
};
