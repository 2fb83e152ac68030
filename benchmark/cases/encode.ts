/**
 * BERT encoders to hidden states: MiniLM and BERT-base on batches of one length in f32 and bf16, MiniLM on real texts
 * of mixed length.
 */
import { readFileSync } from "node:fs";
import { type Context, measure, type Measurement } from "../measure.js";
import { bench, modelFiles, mustExist } from "../paths.js";
import { gigaflops, shapeOf } from "../shape.js";
import { randomIds } from "../stats.js";
import type { ContenderName, Dtype, Limits } from "../types.js";

const SIZES = [
  [1, 16],
  [1, 128],
  [32, 16],
  [32, 128],
] as const;

/** Texts per padded batch of transformers.js: what its users commonly take, and kinder to it than all at once. */
const PADDED_BATCH = 32;

interface Encoded {
  ms: number;
  sample: number[];
}

export async function encode(context: Context): Promise<void> {
  const dtypes = (["f32", "bf16"] as const).filter((dtype) => context.dtypes.includes(dtype));
  for (const dtype of dtypes) await batches(context, dtype);
  if (!context.quick) await mixed(context, dtypes);
}

const CONTENDERS = {
  f32: ["candlewick", "openvino", "onnxruntime-node", "pytorch", "candle"],
  bf16: ["candlewick", "openvino", "pytorch"],
} as const;

async function batches(context: Context, dtype: "f32" | "bf16"): Promise<void> {
  for (const model of ["minilm", "bert-base"] as const) {
    const shape = shapeOf(mustExist(modelFiles[model]("candlewick")));
    const sizes = context.quick ? SIZES.slice(0, 1) : SIZES;
    const measurements = sizes.map(([texts, length]): Measurement => ({
      case: `encode ${model} ${texts}x${length}`,
      dtype,
      unit: "tok/s",
      contenders: CONTENDERS[dtype],
      open: open(model, dtype),
      async turn(child, _, turn) {
        // A turn of a small batch is several calls.
        const calls = texts === 1 && !context.quick ? 20 : 1;
        const values: number[] = [];
        let computed: number[] = [];
        for (let call = 0; call < calls; call++) {
          const ids = Array.from({ length: texts }, (_, i) => randomIds(length, shape.vocabulary, 1000 * turn + 32 * call + i + 1));
          const { ms, sample } = await child.ask<Encoded>("encode", { ids });
          values.push((1000 * texts * length) / ms);
          if (call === 0) computed = sample;
        }
        return { values, computed };
      },
      best: (limits) => (texts * length * peak(dtype, limits)) / gigaflops(shape, texts * length),
      rounds: context.quick ? 1 : texts * length > 2000 && model === "bert-base" ? 3 : 5,
    }));
    await measure(context, measurements);
  }
}

const open = (model: "minilm" | "bert-base", dtype: Dtype) => (contender: ContenderName) => ({
  kind: "bert",
  path: mustExist(modelFiles[model](contender)),
  dtype,
});

/** What multiply-adds of `dtype` are at most. */
const peak = (dtype: "f32" | "bf16", { fmaGflops, bf16Gflops }: Limits) => (dtype === "bf16" ? bf16Gflops : fmaGflops);

/** Tokenising is in the time on both sides. */
async function mixed(context: Context, dtypes: readonly ("f32" | "bf16")[]): Promise<void> {
  const shape = shapeOf(mustExist(modelFiles.minilm("candlewick")));
  const texts = JSON.parse(readFileSync(mustExist(bench("texts.json")), "utf8")) as string[];
  // The real number of tokens, which the first to be asked, without padding, tells.
  let tokens = 0;
  const measurements = dtypes.map((dtype): Measurement => ({
    case: `encode minilm, ${texts.length} mixed texts`,
    dtype,
    unit: "texts/s",
    contenders: dtype === "f32" ? ["candlewick", "transformers.js"] : ["candlewick"],
    open: open("minilm", dtype),
    async turn(child, { name }) {
      const answer = await child.ask<Encoded & { tokens: number }>("texts", { texts, batch: PADDED_BATCH });
      if (name === "candlewick") tokens = answer.tokens;
      return { values: [(1000 * texts.length) / answer.ms], computed: answer.sample };
    },
    best: (limits) => (texts.length * peak(dtype, limits)) / gigaflops(shape, tokens || NaN),
    rounds: 3,
  }));
  for (const measurement of measurements) await measure(context, [measurement]);
}
