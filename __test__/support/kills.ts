/**
 * Training runs that are killed (SIGKILL) at random moments and resumed, until they are done: the weights and the
 * optimiser's state must be the same bits as those of a run that was left alone.
 *
 *   npm run test:kills -- [kills for each model and mode, 10 by default] [gpt2, bert or mpnet, all by default]
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, watch } from "node:fs";
import { join } from "node:path";
import { trainTokenizer, type FinetuneOptions } from "../../index.js";
import { newFolder } from "./models.js";

export const MODES = ["full", "lora", "accumulation", "muon", "bf16"] as const;
export type Mode = (typeof MODES)[number];
export type Kind = "gpt2" | "bert" | "mpnet";

const words = ["sea", "wind", "salt", "boat", "rope", "star", "night", "cold", "hand", "song"];
const line = (i: number) => Array.from({ length: 12 }, (_, j) => words[(i * 7 + j * j + (i % 3) * j) % words.length]).join(" ");
const texts = Array.from({ length: 160 }, (_, i) => line(i));
const rows = texts.map((text) => ({ text, label: text.startsWith("sea") ? "sea" : "other" }));

const bert = { model_type: "bert", hidden_size: 96, num_hidden_layers: 3, num_attention_heads: 4, intermediate_size: 256, max_position_embeddings: 50 };
// Evaluates, and keeps the best: what else has to go on as it was.
const classifier: Partial<FinetuneOptions> & Pick<FinetuneOptions, "task" | "train"> = {
  task: "text-classification",
  train: rows,
  validation: rows.filter((_, i) => i % 8 === 0),
  evalSteps: 4,
};

const kinds: Record<Kind, Partial<FinetuneOptions> & Pick<FinetuneOptions, "task" | "train">> = {
  gpt2: {
    task: "text-generation",
    train: texts.map((text) => ({ text })),
    config: { model_type: "gpt2", n_positions: 32, n_embd: 96, n_layer: 3, n_head: 4 },
  },
  bert: { ...classifier, config: bert },
  // With a bias that all its layers share.
  mpnet: { ...classifier, config: { ...bert, model_type: "mpnet" } },
};
const targetModules: Record<Kind, string[]> = { gpt2: ["c_attn", "c_proj", "c_fc"], bert: ["query", "value", "dense"], mpnet: ["q", "v", "dense"] };

/** A small model to be trained from scratch: some forty to eighty steps, a checkpoint at every third. */
export async function trainingOptions(mode: Mode, kind: Kind = "gpt2"): Promise<FinetuneOptions> {
  const model = newFolder("tokenizer");
  await trainTokenizer({ type: kind === "gpt2" ? "byte-level-bpe" : "wordpiece", texts, output: model, vocabularySize: 300 });
  return {
    ...kinds[kind],
    model,
    output: newFolder("killed"),
    fromScratch: true,
    batchSize: kind === "gpt2" ? 2 : 6,
    epochs: 2,
    learningRate: 1e-3,
    warmupRatio: 0.1,
    saveSteps: 3,
    resume: true,
    ...(mode === "lora" ? { lora: { rank: 4, dropout: 0.1, targetModules: targetModules[kind] } } : {}),
    ...(mode === "accumulation" ? { gradientAccumulationSteps: 3, gradientCheckpointing: true, saveSteps: 1 } : {}),
    ...(mode === "muon" ? { optimizer: "muon" } : {}),
    ...(mode === "bf16" ? { precision: "bf16" } : {}),
  };
}

/**
 * What ends a run before its end: a kill so many milliseconds after so many lines, or after a checkpoint is begun; or a
 * disk that takes no file of more bytes (the process's limit: a write over it fails, as it does on a full disk).
 */
export type Trouble = { lines: number; wait: number } | { checkpoint: true; wait: number } | { fileSize: number };

export interface Ending {
  killed: boolean;
  /** Of the error that it ended with. */
  code?: string;
}

/** A run in a process of its own, to its end or its trouble. */
export function train(options: FinetuneOptions, trouble?: Trouble): Promise<Ending> {
  const command = [process.execPath, "--import", "tsx", join(__dirname, "trainee.ts"), JSON.stringify(options)];
  // In blocks of 512 bytes, as POSIX has it. Node itself ignores the signal.
  const limit = trouble && "fileSize" in trouble ? `ulimit -f ${Math.floor(trouble.fileSize / 512)}; ` : "";
  const child = spawn("sh", ["-c", `${limit}exec "$@"`, "sh", ...command], { stdio: ["ignore", "pipe", "inherit"] });
  const kill = (wait: number) => setTimeout(() => child.kill("SIGKILL"), wait);
  const watcher =
    trouble && "checkpoint" in trouble ? watch(options.output, (_, name) => void (name?.startsWith(".checkpoint-") && kill(trouble.wait))) : undefined;
  const lines: string[] = [];
  child.stdout.setEncoding("utf8");
  child.stdout.on("data", (text: string) => {
    lines.push(...text.trimEnd().split("\n"));
    if (trouble && "lines" in trouble && lines.length >= trouble.lines) kill(trouble.wait);
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      watcher?.close();
      const error = /^error (\w+)$/.exec(lines.at(-1) ?? "")?.[1];
      if (code === 0 || error !== undefined || signal === "SIGKILL") resolve({ killed: signal === "SIGKILL", code: error });
      else reject(new Error(`the trainee ended with ${code ?? signal}`));
    });
  });
}

/** Of the last checkpoint's tensors, and of the model. */
export function bits(output: string): string {
  const last = Math.max(...readdirSync(output).flatMap((name) => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? []).map(Number));
  const hash = createHash("sha256");
  for (const folder of [join(output, `checkpoint-${last}`), output]) {
    for (const name of readdirSync(folder).filter((name) => name.endsWith(".safetensors")).sort()) {
      hash.update(name).update(readFileSync(join(folder, name)));
    }
  }
  return hash.digest("hex");
}

export interface Kills {
  kills: number;
  /** Of them, in the middle of a checkpoint. */
  inCheckpoints: number;
  same: boolean;
}

/** How many runs were killed before one came to the end, and whether the bits are the same. */
export async function killAndResume(mode: Mode, kind: Kind, kills: number, random: () => number): Promise<Kills> {
  const options = await trainingOptions(mode, kind);
  const whole = { ...options, output: newFolder("whole") };
  await train(whole);
  const result = { kills: 0, inCheckpoints: 0, same: true };
  while (result.kills < kills) {
    // Every other one while a checkpoint is written; else at the start, in a step, in an evaluation: whatever the
    // moment brings.
    const trouble: Trouble =
      result.kills % 2 === 1 ? { checkpoint: true, wait: random() * 4 } : { lines: Math.floor(random() * 6), wait: random() * 12 };
    if ((await train(options, trouble)).killed) {
      result.kills++;
      if (readdirSync(options.output).some((name) => name.startsWith(".checkpoint-"))) result.inCheckpoints++;
      continue;
    }
    if (bits(whole.output) !== bits(options.output)) return { ...result, same: false };
    options.output = newFolder("killed");
  }
  await train(options);
  return { ...result, same: bits(whole.output) === bits(options.output) };
}

export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

async function main(kills: number, only?: string) {
  for (const kind of (["gpt2", "bert", "mpnet"] as const).filter((kind) => kind === (only ?? kind))) {
    for (const mode of MODES) {
      const started = performance.now();
      const { kills: killed, inCheckpoints, same } = await killAndResume(mode, kind, kills, generator(kills));
      const seconds = ((performance.now() - started) / 1000).toFixed(0);
      console.log(`${kind}, ${mode}: ${killed} kills, ${inCheckpoints} in a checkpoint, ${same ? "the same bits" : "OTHER BITS"}, ${seconds} s`);
      if (!same) process.exitCode = 1;
    }
  }
}

if (require.main === module) void main(Number(process.argv[2] ?? 10), process.argv[3]);
