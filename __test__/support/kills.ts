/**
 * Training runs that are killed (SIGKILL) at random moments and resumed, until they are done: the weights and the optimiser's state must be
 * the same bits as those of a run that was left alone.
 *
 *   npm run test:kills -- [kills for each mode, 20 by default]
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { trainTokenizer, type FinetuneOptions } from "../../index.js";
import { newFolder } from "./models.js";

export type Mode = "full" | "lora" | "accumulation";

const words = ["sea", "wind", "salt", "boat", "rope", "star", "night", "cold", "hand", "song"];
const line = (i: number) => Array.from({ length: 12 }, (_, j) => words[(i * 7 + j * j + (i % 3) * j) % words.length]).join(" ");

/** A small GPT-2 to be trained from scratch: some forty steps, a checkpoint at every third. */
export async function trainingOptions(mode: Mode): Promise<FinetuneOptions> {
  const model = newFolder("tokenizer");
  const texts = Array.from({ length: 160 }, (_, i) => line(i));
  await trainTokenizer({ type: "byte-level-bpe", texts, output: model, vocabularySize: 300 });
  return {
    model,
    task: "text-generation",
    train: texts.map((text) => ({ text })),
    output: newFolder("killed"),
    fromScratch: true,
    config: { model_type: "gpt2", n_positions: 32, n_embd: 96, n_layer: 3, n_head: 4 },
    batchSize: 2,
    epochs: 2,
    learningRate: 1e-3,
    warmupRatio: 0.1,
    saveSteps: 3,
    resume: true,
    ...(mode === "lora" ? { lora: { rank: 4, dropout: 0.1, targetModules: ["c_attn", "c_proj", "c_fc"] } } : {}),
    ...(mode === "accumulation" ? { gradientAccumulationSteps: 3, gradientCheckpointing: true, saveSteps: 1 } : {}),
  };
}

/** Runs to the end, or to the kill: after so many lines and a wait, in milliseconds. */
function train(options: FinetuneOptions, kill?: { lines: number; wait: number }): Promise<{ killed: boolean; lines: string[] }> {
  const child = spawn(process.execPath, ["--import", "tsx", join(__dirname, "trainee.ts"), JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines: string[] = [];
  child.stdout.setEncoding("utf8");
  child.stdout.on("data", (text: string) => {
    lines.push(...text.trimEnd().split("\n"));
    if (kill && lines.length >= kill.lines) setTimeout(() => child.kill("SIGKILL"), kill.wait);
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0 || signal === "SIGKILL") resolve({ killed: signal === "SIGKILL", lines });
      else reject(new Error(`the trainee ended with ${code ?? signal}`));
    });
  });
}

/** Of the last checkpoint's tensors, and of the model. */
function bits(output: string): string {
  const last = Math.max(...readdirSync(output).flatMap((name) => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? []).map(Number));
  const hash = createHash("sha256");
  for (const folder of [join(output, `checkpoint-${last}`), output]) {
    for (const name of readdirSync(folder).filter((name) => name.endsWith(".safetensors")).sort()) {
      hash.update(name).update(readFileSync(join(folder, name)));
    }
  }
  return hash.digest("hex");
}

/** How many runs were killed before one came to the end, and whether the bits are the same. */
export async function killAndResume(mode: Mode, kills: number, random: () => number): Promise<{ kills: number; same: boolean }> {
  const options = await trainingOptions(mode);
  const whole = { ...options, output: newFolder("whole") };
  await train(whole);
  let killed = 0;
  while (killed < kills) {
    // At the start, in a step, while a checkpoint is written: whatever the moment brings.
    const attempt = await train(options, { lines: Math.floor(random() * 6), wait: random() * 12 });
    if (!attempt.killed) {
      if (bits(whole.output) !== bits(options.output)) return { kills: killed, same: false };
      options.output = newFolder("killed");
    } else killed++;
  }
  await train(options);
  return { kills: killed, same: bits(whole.output) === bits(options.output) };
}

export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

async function main(kills: number) {
  for (const mode of ["full", "lora", "accumulation"] as const) {
    const started = performance.now();
    const result = await killAndResume(mode, kills, generator(kills));
    console.log(`${mode}: ${result.kills} kills, ${result.same ? "the same bits" : "OTHER BITS"}, ${((performance.now() - started) / 1000).toFixed(0)} s`);
    if (!result.same) process.exitCode = 1;
  }
}

if (require.main === module) void main(Number(process.argv[2] ?? 20));
