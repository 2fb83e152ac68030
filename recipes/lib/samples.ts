/** What a model says, as it comes, for its card: nothing is chosen or changed. */
import { evaluate, pipeline } from "../../index.js";
import { packageFolder } from "./ship.js";
import type { Trained } from "./train.js";

const SEEDS = [1, 2];
/** So many of the held-out rows that went wrong, evenly spaced. */
const FAILURES = 8;

const quoted = (text: string): string => text.replace(/\s+/g, " ").replace(/[|<>*_`]/g, (c) => `\\${c}`).trim();
const table = (head: string, rows: readonly (readonly string[])[]): string =>
  [head, head.replace(/[^|]+/g, "---"), ...rows.map((row) => `| ${row.join(" | ")} |`)].join("\n");

export async function samples({ ships, training, examples = [], ...trained }: Trained, rows: readonly Record<string, unknown>[], signal: AbortSignal): Promise<string> {
  const folder = packageFolder(ships);
  switch (training.task) {
    case "text-generation": {
      await using generate = await pipeline("text-generation", folder, { returnFullText: false });
      const said: string[][] = [];
      for (const prompt of examples) {
        for (const seed of SEEDS) {
          const [{ generatedText }] = (await generate(prompt, { temperature: 0.8, topK: 50, topP: 0.95, maxNewTokens: 70, seed, signal })) as [{ generatedText: string }];
          said.push([quoted(prompt), String(seed), quoted(generatedText) || "(ends at once)"]);
        }
      }
      return `\`temperature\` 0.8, \`topK\` 50, \`topP\` 0.95, at most 70 new tokens; line breaks are spaces here.\n\n${table("| prompt | seed | goes on |", said)}`;
    }
    case "translation": {
      await using translate = await pipeline("translation", folder);
      const said = await translate(examples, { signal });
      return table("| English | Chinese |", said.map(({ translationText }, i) => [quoted(examples[i]!), quoted(translationText)]));
    }
    case "dialogue": {
      await using chat = await pipeline("dialogue", folder);
      const said: string[][] = [];
      for (const text of examples) {
        for (const seed of SEEDS) said.push([quoted(text), String(seed), quoted((await chat(text, { seed, signal })).content) || "(ends at once)"]);
      }
      return table("| said | seed | answer |", said);
    }
    default: {
      const { samples: wrong } = await evaluate({ ...trained.evaluation, model: folder, task: training.task, data: rows, samples: rows.length, signal });
      // Reviews have telephone numbers in them, and names beside those.
      const fit = wrong.filter(({ input }) => !/\d{5}/.test(text(input)));
      const some = Array.from({ length: Math.min(FAILURES, fit.length) }, (_, i) => fit[Math.floor((i * fit.length) / FAILURES)]!);
      const shown = some.map(({ input, expected, predicted }) => [quoted(text(input)).slice(0, 240), text(expected), text(predicted)]);
      return `${some.length} of the ${wrong.length} held-out rows that went wrong, evenly spaced.\n\n${table("| text | is | was said |", shown)}`;
    }
  }
}

/** Of a sample's parts, which are texts or objects with one. */
function text(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  const { text, label, score } = value as { text?: unknown; label?: unknown; score?: number };
  if (label !== undefined) return score === undefined ? String(label) : `${String(label)} (${score.toFixed(2)})`;
  return text === undefined ? JSON.stringify(value) : String(text);
}
