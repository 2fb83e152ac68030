// `node --import tsx benchmark/learning/frozen.ts`: the baseline of recipes/sentiment-en: MiniLM as it is, its
// normalised embeddings, and scikit-learn's logistic regression on the whole training set.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "../../index.js";
import { dataFile } from "../../recipes/lib/data.js";
import { fetched } from "../../recipes/lib/train.js";

const PYTHON = process.env["PYTHON"] ?? join(homedir(), ".cache", "candlewick", "venv", "bin", "python");
const FIT = `
import json, sys
import numpy as np
from sklearn.linear_model import LogisticRegression
def read(split):
    rows = [json.loads(line) for line in open(f"{sys.argv[1]}/{split}.jsonl")]
    return np.array([row["x"] for row in rows]), [row["y"] for row in rows]
model = LogisticRegression(max_iter=2000).fit(*read("train"))
print(f"held-out accuracy {model.score(*read('heldout')):.4f}")
`;

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "candlewick-frozen-"));
  const embed = await pipeline("feature-extraction", fetched("minilm"));
  try {
    for (const split of ["train", "heldout"] as const) {
      const lines = readFileSync(dataFile("sentiment-en", split), "utf8").split("\n").filter(Boolean);
      const rows = lines.map((line) => JSON.parse(line) as { text: string; label: string });
      const vectors = await embed(rows.map(({ text }) => text));
      const text = vectors.map((x, i) => `${JSON.stringify({ x: Array.from(x), y: rows[i]!.label })}\n`).join("");
      writeFileSync(join(folder, `${split}.jsonl`), text);
    }
    process.stdout.write(execFileSync(PYTHON, ["-c", FIT, folder], { encoding: "utf8" }));
  } finally {
    await embed.close();
    rmSync(folder, { recursive: true });
  }
}

void main();
