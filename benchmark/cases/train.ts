/** Optimiser steps, in fresh processes: tokens a second, and the most memory that the process had. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { measureLimits, type Context } from "../measure.js";
import { bench, models, mustExist, root } from "../paths.js";
import { median, spread } from "../stats.js";
import type { ContenderName, Limits, Row, Unit } from "../types.js";

interface Size {
  case: string;
  task: "text-generation" | "text-classification";
  config: Record<string, unknown>;
  tokenizer: string;
  batch: number;
  length: number;
}

const gpt2 = { model_type: "gpt2", vocab_size: 50257, activation_function: "gelu_new" };

const SIZES: Size[] = [
  {
    case: "train gpt2 124M 4x128",
    task: "text-generation",
    config: { ...gpt2, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12 },
    tokenizer: "gpt2-tokenizer",
    batch: 4,
    length: 128,
  },
  {
    // nanoGPT's size for characters, over the shipped model's vocabulary.
    case: "train gpt2 10M 8x256",
    task: "text-generation",
    config: { ...gpt2, vocab_size: 8192, n_positions: 256, n_embd: 384, n_layer: 6, n_head: 6 },
    tokenizer: join(root, "models", "default"),
    batch: 8,
    length: 256,
  },
  {
    case: "train bert-base classifier 32x64",
    task: "text-classification",
    config: {
      model_type: "bert",
      vocab_size: 30522,
      hidden_size: 768,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      intermediate_size: 3072,
      max_position_embeddings: 512,
    },
    tokenizer: "minilm",
    batch: 32,
    length: 64,
  },
];

interface Trained {
  /** Of each step after the first. */
  ms: number[];
  peak: number;
}

const CONTENDERS = ["candlewick", "pytorch"] as const;

export async function train(context: Context): Promise<void> {
  const precisions = (["f32", "bf16"] as const).filter((dtype) => context.dtypes.includes(dtype));
  const texts = JSON.parse(readFileSync(mustExist(bench("texts.json")), "utf8")) as string[];
  for (const size of SIZES.filter((size) => size.case.includes(context.part))) {
    const folder = mkdtempSync(join(tmpdir(), "candlewick-bench-"));
    try {
      for (const dtype of precisions) await one(context, size, dtype, folder, texts);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
}

/** `dtype`: of the products' inputs; ours by `precision`, PyTorch's by autocast. */
async function one(context: Context, size: Size, dtype: "f32" | "bf16", folder: string, texts: readonly string[]): Promise<void> {
  const model = join(folder, "model");
  cpSync(mustExist(resolve(models(), size.tokenizer)), model, { recursive: true, filter: (path) => !/safetensors|config\.json$/.test(path) || path.endsWith("tokenizer_config.json") });
  writeFileSync(join(model, "config.json"), JSON.stringify(size.config));
  const rows = join(folder, "rows.jsonl");
  // Every row is as long as the model is let read.
  const text = (i: number) => texts.slice(i).concat(texts.slice(0, i)).join(" ").slice(0, 12 * size.length);
  writeFileSync(rows, texts.map((_, i) => JSON.stringify({ text: text(i), label: i % 2 ? "a" : "b" })).join("\n"));
  const { task, config, batch, length } = size;
  const [rounds, steps] = context.quick ? [1, 2] : [2, 4];
  const results = new Map<ContenderName, { version: string; values: Trained[] }>();
  const limits: Limits[] = [];
  for (let round = 1; round <= rounds; round++) {
    const now = await measureLimits(context);
    if (now) limits.push(now);
    for (const name of CONTENDERS) {
      context.progress(`${size.case} ${dtype}: ${name}, ${round} of ${rounds}`);
      try {
        const contender = await context.contenders.fresh(name);
        if (!contender) continue;
        const output = join(folder, "output");
        const request = { model, task, rows, output, config, batch, length, steps, threads: context.threads, dtype };
        const value = await contender.child.ask<Trained>("train", request);
        contender.child.kill();
        const result = results.get(name) ?? { version: contender.version, values: [] };
        result.values.push(value);
        results.set(name, result);
      } catch (error) {
        context.skip(`${size.case} ${dtype}, ${name}`, (error as Error).message);
      }
    }
  }
  for (const [contender, { version, values }] of results) {
    const push = (label: string, unit: Unit, all: number[], shareOfLimit: number | null) => {
      const figures = spread(all);
      const round = (value: number) => Number(value.toPrecision(5));
      const { median, p10, p90 } = figures;
      const row: Row = { case: label, contender, version, dtype, median: round(median), p10: round(p10), p90: round(p90), unit, shareOfLimit };
      context.rows.push(row);
    };
    const speeds = values.flatMap(({ ms }) => ms.map((ms) => (1000 * batch * length) / ms));
    const possible = limits.length > 0 ? (batch * length * median(limits.map(({ fmaGflops, bf16Gflops }) => (dtype === "f32" ? fmaGflops : bf16Gflops)))) / gigaflops(size) : NaN;
    const share = median(speeds) / possible;
    push(size.case, "tok/s", speeds, Number.isFinite(share) ? Number(share.toFixed(4)) : null);
    push(`${size.case}, peak memory`, "MB", values.map(({ peak }) => peak / 1e6), null);
  }
}

/** Billions of operations of the matrix products of a step: forward, and twice as many backward. */
function gigaflops({ config, batch, length }: Size): number {
  const number = (name: string) => (config[name] as number | undefined) ?? 0;
  const layers = number("n_layer") || number("num_hidden_layers");
  const width = number("n_embd") || number("hidden_size");
  const head = config["model_type"] === "gpt2" ? number("vocab_size") * width : 0;
  return (6 * batch * length * (layers * 12 * width * width + head)) / 1e9;
}
