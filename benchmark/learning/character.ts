// `node --import tsx benchmark/learning/character.ts`: a character-level GPT-2 of nanoGPT's CPU size on English prose,
// trained by `finetune()` and by PyTorch with the same recipe, three seeds each; results in
// docs/benchmarks/learning.json. Needs `npm run recipe -- generation --data` and a Python with torch and transformers
// (PYTHON=…).
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { finetune, trainTokenizer } from "../../index.js";
import { dataFile } from "../../recipes/lib/data.js";

const SEEDS = (process.env["SEEDS"] ?? "1,2,3").split(",").map(Number);
/** nanoGPT's `config/train_shakespeare_char.py` as its README has it for a CPU, but for a cosine that ends at 0. */
const RECIPE = {
  layers: 4, heads: 4, width: 128, block: 64, batch: 12, steps: 2000, warmup: 100,
  learningRate: 1e-3, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, clip: 1, threads: 2,
};

const cache = process.env["CANDLEWICK_CACHE"] ?? join(homedir(), ".cache", "candlewick");
const folder = join(cache, "learning");
const python = process.env["PYTHON"] ?? join(cache, "venv", "bin", "python");

/** English documents of a split, up to so many characters. */
function prose(split: "train" | "validation", characters: number): { text: string }[] {
  let left = characters;
  const lines = readFileSync(dataFile("generation", split), "utf8").split("\n").filter(Boolean);
  const rows = lines.map((line) => ({ text: (JSON.parse(line) as { text: string }).text }));
  return rows.filter(({ text }) => /^[\x20-\x7e\n]+$/.test(text) && (left -= text.length) > 0);
}

async function ours(seed: number, files: Record<"train" | "validation", string>): Promise<object> {
  const output = join(folder, `ours-${seed}`);
  rmSync(output, { recursive: true, force: true });
  const run = finetune({
    model: join(folder, "tokenizer"),
    task: "text-generation",
    fromScratch: true,
    config: {
      model_type: "gpt2", n_layer: RECIPE.layers, n_head: RECIPE.heads, n_embd: RECIPE.width, n_positions: RECIPE.block,
    },
    ...files,
    output,
    maxLength: RECIPE.block,
    batchSize: RECIPE.batch,
    maxSteps: RECIPE.steps,
    warmupSteps: RECIPE.warmup,
    lrSchedulerType: "cosine",
    learningRate: RECIPE.learningRate,
    adamBeta1: RECIPE.beta1,
    adamBeta2: RECIPE.beta2,
    weightDecay: RECIPE.weightDecay,
    maxGradNorm: RECIPE.clip,
    dropout: 0,
    evalSteps: 250,
    saveSteps: RECIPE.steps,
    loadBestModelAtEnd: false,
    seed,
    threads: RECIPE.threads,
  });
  const curve: [number, number][] = [];
  let seconds = 0;
  for await (const event of run) {
    if (event.type === "step") seconds += event.seconds;
    if (event.type === "evaluation") curve.push([event.step, event.loss]);
  }
  return { contender: "candlewick", seed, seconds, validation: curve };
}

async function main(): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const files = { train: join(folder, "train.jsonl"), validation: join(folder, "validation.jsonl") };
  for (const [split, size] of [["train", 1_000_000], ["validation", 100_000]] as const) {
    writeFileSync(files[split], prose(split, size).map((row) => `${JSON.stringify(row)}\n`).join(""));
  }
  await trainTokenizer({ type: "byte-level-bpe", files: files.train, output: join(folder, "tokenizer"), vocabularySize: 257 });
  const runs: object[] = [];
  for (const seed of SEEDS) {
    runs.push(await ours(seed, files));
    const text = execFileSync(python, [join(__dirname, "pytorch.py"), folder, String(seed), JSON.stringify(RECIPE)], { encoding: "utf8" });
    runs.push(JSON.parse(text) as object);
    console.log(JSON.stringify(runs.slice(-2)));
  }
  writeFileSync(join(__dirname, "../../docs/benchmarks/learning.json"), `${JSON.stringify({ recipe: RECIPE, runs }, undefined, 1)}\n`);
}

void main();
