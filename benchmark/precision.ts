/**
 * `npx tsx benchmark/precision.ts`: what bf16, int8 and q8_0 cost beside f32. Cosines of MiniLM's vectors over the
 * benchmark's texts and the tokenizer fixture's hard ones, labels of the classifiers that ship over their recipes'
 * held-out texts, the perplexity of the GPT-2 that ships. It takes `npm run bench -- prepare`, and for the labels
 * `npm run recipe -- sentiment-en sentiment-zh topics --data`.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Dtype, evaluate, pipeline, similarity } from "../index.js";
import { bench, cache, modelFiles, root } from "./paths.js";

const DTYPES: readonly Dtype[] = ["f32", "bf16", "int8", "q8_0"];

const read = (...path: string[]) => readFileSync(join(...path), "utf8");
const rows = <T>(...path: string[]) => read(...path).trim().split("\n").map((line) => JSON.parse(line) as T);
const percent = (share: number) => `${(100 * share).toFixed(2)}%`;

async function inEach<T>(compute: (dtype: Dtype) => Promise<T>, show: (found: T, exact: T) => string): Promise<void> {
  const exact = await compute("f32");
  for (const dtype of DTYPES) console.log(`  ${dtype.padEnd(5)} ${show(dtype === "f32" ? exact : await compute(dtype), exact)}`);
}

async function vectors(): Promise<void> {
  const hard = rows<string>(root, "__test__", "fixtures", "tokenizer", "lines.jsonl");
  const texts = [...(JSON.parse(read(bench("texts.json"))) as string[]), ...hard];
  console.log(`cosines of MiniLM's vectors, ${texts.length} texts`);
  await inEach(
    async (dtype) => {
      await using embed = await pipeline("feature-extraction", modelFiles.minilm("candlewick"), { dtype });
      return await embed(texts);
    },
    (found, exact) => {
      const cosines = found.map((vector, i) => similarity(vector, exact[i]!));
      return `least ${Math.min(...cosines).toFixed(5)}, mean ${(cosines.reduce((a, b) => a + b) / cosines.length).toFixed(5)}`;
    },
  );
}

async function labels(name: string): Promise<void> {
  const folder = join(cache, "recipes", "data", name);
  if (!existsSync(folder)) return console.log(`labels of ${name}: no data in ${name}; npm run recipe -- ${name} --data`);
  const held = rows<{ text: string; label: string }>(folder, "heldout.jsonl");
  console.log(`labels of ${name}, ${held.length} held-out texts`);
  await inEach(
    async (dtype) => {
      await using classify = await pipeline("text-classification", join(root, "models", name), { dtype });
      return (await classify(held.map(({ text }) => text))).map(({ label }) => label);
    },
    (found, exact) => {
      const share = (of: (i: number) => boolean) => percent(found.filter((_, i) => of(i)).length / found.length);
      return `${share((i) => found[i] === exact[i])} stay, ${share((i) => found[i] === String(held[i]!.label))} right`;
    },
  );
}

async function perplexity(): Promise<void> {
  const pages = ["README.md", "docs/parity.md", "docs/deploy.md", "docs/errors.md"];
  const data = [{ text: pages.map((page) => read(root, page)).join("\n") }];
  console.log(`perplexity of the GPT-2 that ships, on ${pages.join(", ")}`);
  await inEach(
    async (dtype) => (await evaluate({ model: join(root, "models", "default"), task: "text-generation", data, dtype })).perplexity!,
    (found, exact) => `${found.toFixed(2)}, ${percent(found / exact - 1)}`,
  );
}

async function main(): Promise<void> {
  await vectors();
  for (const name of ["sentiment-en", "sentiment-zh", "topics"]) await labels(name);
  await perplexity();
}

void main();
