// `node --import tsx benchmark/learning/generator.ts STEP…`: the shipped generator's recipe in PyTorch as far as the
// last of those steps, beside the checkpoints of `npm run recipe -- generation --train`, which are at every 400th: bits
// per byte on the held-out documents, in docs/benchmarks/generator.json.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { evaluate } from "../../index.js";
import { readTrainingLog } from "../../src/evaluate/training-log.js";
import { dataFile } from "../../recipes/lib/data.js";
import { groups, heldout } from "../../recipes/lib/measure.js";
import { trainedFolder } from "../../recipes/lib/train.js";
import { trained } from "../../recipes/generation/train.js";

const cache = process.env["CANDLEWICK_CACHE"] ?? join(homedir(), ".cache", "candlewick");
const folder = join(cache, "learning", "generator");
const python = process.env["PYTHON"] ?? join(cache, "venv", "bin", "python");
const tokenizer = trainedFolder("generation", "tokenizer");

async function bits(model: string): Promise<Record<string, number>> {
  const result: Record<string, number> = {};
  for (const [group, rows] of groups(trained, (await heldout("generation")).rows)) {
    const { bitsPerByte } = await evaluate({ model, task: "text-generation", data: rows, samples: 0, dtype: "f32" });
    result[group] = bitsPerByte;
  }
  return result;
}

async function main(): Promise<void> {
  const saves = process.argv.slice(2).map(Number);
  const { training } = trained;
  const shape = training.config as Record<"n_layer" | "n_head" | "n_embd" | "n_positions", number>;
  const rows = await readTrainingLog(join(trainedFolder("generation"), "training-log.jsonl"));
  const steps = Number(process.env["STEPS"] ?? rows.at(-1)!.step);
  const recipe = {
    layers: shape.n_layer, heads: shape.n_head, width: shape.n_embd, block: shape.n_positions, batch: training.batchSize!, steps,
    warmup: Math.ceil(training.warmupRatio! * steps), learningRate: training.learningRate!, beta1: 0.9, beta2: training.adamBeta2!, epsilon: 1e-8,
    weightDecay: training.weightDecay!, clip: 1, threads: 2, saves, optimizer: training.optimizer,
  };
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  symlinkSync(tokenizer, join(folder, "tokenizer"));
  for (const split of ["train", "validation"] as const) symlinkSync(dataFile("generation", split), join(folder, `${split}.jsonl`));
  execFileSync(python, [join(__dirname, "pytorch.py"), folder, "1", JSON.stringify(recipe)], { stdio: ["ignore", "ignore", "inherit"] });
  const points: object[] = [];
  for (const step of saves) {
    const other = join(folder, `pytorch-${step}`);
    for (const file of readdirSync(tokenizer)) copyFileSync(join(tokenizer, file), join(other, file));
    points.push({ step, candlewick: await bits(trainedFolder("generation", `model/checkpoint-${step}`)), pytorch: await bits(other) });
  }
  const result = { recipe, bitsPerByte: points };
  writeFileSync(join(__dirname, "../../docs/benchmarks/generator.json"), `${JSON.stringify(result, undefined, 1)}\n`);
  console.log(JSON.stringify(result, undefined, 1));
}

void main();
