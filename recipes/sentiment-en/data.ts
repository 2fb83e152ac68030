/** English sentiment: snippets of film reviews, scored by twenty people each. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { join } from "node:path";
import type { Recipe } from "../lib/data.js";
import { pypi } from "../lib/packages.js";
import { split } from "../lib/split.js";

const exec = promisify(execFile);
const FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt";

interface Snippet {
  text: string;
  label: "negative" | "positive";
  /** The mean of the ratings, -4 to 4. */
  score: number;
}

function snippet(line: string): Snippet | undefined {
  const [, rating, ...words] = line.split("\t");
  const [score, text] = [Number(rating), words.join(" ").replace(/\s+/g, " ").trim()];
  // Nobody can say which of the two a mean of 0 is.
  if (!Number.isFinite(score) || score === 0 || text === "") return undefined;
  return { text, label: score > 0 ? "positive" : "negative", score };
}

export const recipe: Recipe = {
  sources: [{ package: "PyPI vadersentiment 3.3.2 (source)", what: "10,605 film snippets with ratings (Hutto, Gilbert 2014)", license: "MIT" }],
  async read() {
    const archive = join(await pypi("vadersentiment", "3.3.2", { source: true }), "additional_resources/hutto_ICWSM_2014.tar.gz");
    const { stdout } = await exec("tar", ["xzOf", archive, FILE], { encoding: "latin1", maxBuffer: 1 << 26 });
    const rows = Buffer.from(stdout, "latin1").toString("utf8").split(/\r?\n/).map(snippet).filter((row) => row !== undefined);
    const text = (row: Snippet) => row.text;
    return split(rows, { group: text, texts: (row) => [row.text] }, { heldout: 7, validation: 14 });
  },
};
