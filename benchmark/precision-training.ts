/**
 * `npx tsx benchmark/precision-training.ts [SEEDS]`: what `precision: "bf16"` costs beside f32 in training. 500 steps
 * of a GPT-2 from scratch over the generation recipe's data, and 500 steps of MiniLM as a classifier over
 * sentiment-en's: the curves of the losses, by the mean of each 50 steps, and what the validation and held-out rows say
 * at the end. The classifier with SEEDS seeds, 3 by default. It takes
 * `npm run recipe -- generation sentiment-en --data`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { evaluate, finetune, type FinetuneOptions } from "../index.js";
import { cache, modelFiles, mustExist, root } from "./paths.js";

const STEPS = 500;
const PART = 50;

const data = (recipe: string, part: string) => mustExist(join(cache, "recipes", "data", recipe, `${part}.jsonl`));

const generation: Omit<FinetuneOptions, "output"> = {
  model: join(root, "models", "default"),
  task: "text-generation",
  train: data("generation", "train"),
  fromScratch: true,
  config: { model_type: "gpt2", n_layer: 4, n_head: 4, n_embd: 256, n_positions: 512, bos_token_id: 0 },
  maxSteps: STEPS,
  batchSize: 8,
  maxLength: 128,
  dropout: 0,
  learningRate: 1e-3,
  lrSchedulerType: "cosine",
  warmupRatio: 0.02,
  seed: 1,
};

const sentiment: Omit<FinetuneOptions, "output"> = {
  model: modelFiles.minilm("candlewick"),
  task: "sentiment-analysis",
  train: data("sentiment-en", "train"),
  maxSteps: STEPS,
  batchSize: 16,
  learningRate: 5e-5,
};

/** The mean loss of each part of the steps, and a metric at the end. */
async function trained(options: Omit<FinetuneOptions, "output">, metric: (model: string) => Promise<number>) {
  const output = mkdtempSync(join(tmpdir(), "candlewick-precision-"));
  try {
    const losses: number[] = [];
    for await (const event of finetune({ ...options, output, saveSteps: STEPS })) {
      if (event.type === "step") losses.push(event.loss);
    }
    const parts = Array.from({ length: STEPS / PART }, (_, i) => losses.slice(i * PART, (i + 1) * PART));
    return { curve: parts.map((part) => part.reduce((a, b) => a + b) / part.length), metric: await metric(output) };
  } finally {
    rmSync(output, { recursive: true, force: true });
  }
}

async function compare(what: string, options: Omit<FinetuneOptions, "output">, metric: (model: string) => Promise<number>, show: (metric: number) => string): Promise<void> {
  const exact = await trained({ ...options, precision: "f32" }, metric);
  const rounded = await trained({ ...options, precision: "bf16" }, metric);
  const differences = exact.curve.map((loss, i) => Math.abs(rounded.curve[i]! - loss) / loss);
  const shown = (curve: readonly number[]) => curve.map((loss) => loss.toFixed(4)).join(" ");
  console.log(`${what}\n  f32   ${shown(exact.curve)}  ${show(exact.metric)}\n  bf16  ${shown(rounded.curve)}  ${show(rounded.metric)}`);
  console.log(`  the curves differ by ${(100 * Math.max(...differences)).toFixed(2)}% at most, ${((100 * differences.reduce((a, b) => a + b)) / differences.length).toFixed(2)}% on average`);
}

async function main(): Promise<void> {
  const perplexity = async (model: string) => (await evaluate({ model, task: "text-generation", data: data("generation", "validation"), maxLength: 128 })).perplexity;
  await compare("GPT-2 from scratch", generation, perplexity, (value) => `perplexity ${value.toFixed(2)}`);
  const accuracy = async (model: string) => (await evaluate({ model, task: "sentiment-analysis", data: data("sentiment-en", "heldout") })).accuracy;
  for (let seed = 1; seed <= Number(process.argv[2] ?? 3); seed++) {
    await compare(`MiniLM as a classifier, seed ${seed}`, { ...sentiment, seed }, accuracy, (value) => `accuracy ${(100 * value).toFixed(2)}%`);
  }
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
