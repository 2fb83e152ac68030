/**
 * BERT encoders to hidden states: MiniLM and BERT-base on batches of one length in f32, bf16 and int8, MiniLM on real
 * texts of mixed length. What int8 and bf16 cost stands beside their speed, as cosines of the texts' mean states.
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
  /** Of each text the mean of its states, if it was asked for. */
  vectors?: number[][];
}

const DTYPES = ["f32", "bf16", "int8"] as const;
type EncoderDtype = (typeof DTYPES)[number];

export async function encode(context: Context): Promise<void> {
  const dtypes = DTYPES.filter((dtype) => context.dtypes.includes(dtype));
  for (const dtype of dtypes) await batches(context, dtype);
  if (!context.quick) await mixed(context, dtypes);
}

const CONTENDERS = {
  f32: ["candlewick", "openvino", "onnxruntime-node", "pytorch", "candle"],
  bf16: ["candlewick", "openvino", "pytorch"],
  int8: ["candlewick", "openvino"],
} as const;

async function batches(context: Context, dtype: EncoderDtype): Promise<void> {
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
        let first: Encoded | undefined;
        for (let call = 0; call < calls; call++) {
          const ids = Array.from({ length: texts }, (_, i) => randomIds(length, shape.vocabulary, 1000 * turn + 32 * call + i + 1));
          const answer = await child.ask<Encoded>("encode", { ids, vectors: turn === 0 });
          values.push((1000 * texts * length) / answer.ms);
          first ??= answer;
        }
        return { values, computed: first!.sample, ...(first!.vectors && { vectors: first!.vectors }) };
      },
      best: (limits) => (texts * length * peak(dtype, limits)) / gigaflops(shape, texts * length),
      rounds: context.quick ? 1 : texts * length > 2000 && model === "bert-base" ? 3 : 5,
    }));
    await measure(context, measurements);
  }
}

const open = (model: "minilm" | "bert-base", dtype: Dtype) => (contender: ContenderName) => ({
  kind: "bert",
  path: mustExist(modelFiles[model](contender, dtype)),
  dtype,
});

/** What multiply-adds of `dtype` are at most. */
const peak = (dtype: EncoderDtype, { fmaGflops, bf16Gflops, int8Gops }: Limits) => ({ f32: fmaGflops, bf16: bf16Gflops, int8: int8Gops })[dtype];

/** Tokenising is in the time on both sides. */
async function mixed(context: Context, dtypes: readonly EncoderDtype[]): Promise<void> {
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
    async turn(child, { name }, turn) {
      const vectors = turn === 0 && name === "candlewick";
      const answer = await child.ask<Encoded & { tokens: number }>("texts", { texts, batch: PADDED_BATCH, vectors });
      if (name === "candlewick") tokens = answer.tokens;
      return { values: [(1000 * texts.length) / answer.ms], computed: answer.sample, ...(answer.vectors && { vectors: answer.vectors }) };
    },
    best: (limits) => (texts.length * peak(dtype, limits)) / gigaflops(shape, tokens || NaN),
    rounds: 3,
  }));
  for (const measurement of measurements) await measure(context, [measurement]);
}
