/**
 * What BERT is used for: vectors of real texts beside the packages that people take for it, many of them, and search
 * among vectors.
 */
import { readFileSync } from "node:fs";
import { type Context, measure, type Measurement } from "../measure.js";
import { bench, modelFiles, models, mustExist } from "../paths.js";
import type { ContenderName } from "../types.js";
import { LagRows } from "./lag.js";

/** Texts per padded batch of the peers, as in the encode bench. */
const PADDED_BATCH = 32;
/** Texts beside the peers, of which one pads each to 512 tokens. */
const BESIDE = 64;
/** Rows of the large run: half a minute on two cores. */
const MANY = 2560;

interface Embedded {
  ms: number;
  sample?: number[];
  memory?: number;
}

export async function pipelines(context: Context): Promise<void> {
  const texts = JSON.parse(readFileSync(mustExist(bench("texts.json")), "utf8")) as string[];
  await measure(context, [embed(texts.slice(0, context.quick ? 16 : BESIDE), ["candlewick", "transformers.js", "fastembed"], context.quick ? 1 : 3)]);
  if (!context.quick) {
    const many = Array.from({ length: MANY }, (_, i) => texts[(7 * i) % texts.length]!);
    await measure(context, [embed(many, ["candlewick"], 1)]);
  }
  await measure(context, [search(context.quick ? 2000 : 100_000)]);
  const lag = new LagRows(context, context.quick ? 1 : 3, context.quick ? 0.2 : 2);
  const some = { texts: texts.slice(0, 64), batch: PADDED_BATCH };
  await lag.of("candlewick", "bert", modelFiles.minilm("candlewick"), ["embed"], some);
  await lag.of("transformers.js", "bert", modelFiles.minilm("transformers.js"), ["embed"], some);
}

const open = (contender: ContenderName) => ({
  kind: "bert",
  path: mustExist(contender === "fastembed" ? models("minilm") : modelFiles.minilm(contender)),
  onnx: modelFiles.minilm("onnxruntime-node"),
  dtype: "f32",
});

/** Tokenising is in the time on all sides. */
function embed(texts: string[], contenders: ContenderName[], rounds: number): Measurement {
  return {
    case: `pipelines embed minilm, ${texts.length} mixed texts`,
    dtype: "f32",
    unit: "texts/s",
    contenders,
    open,
    async turn(child) {
      const { ms, sample } = await child.ask<Embedded>("embed", { texts, batch: PADDED_BATCH });
      return { values: [(1000 * texts.length) / ms], ...(sample && { computed: sample }) };
    },
    rounds,
  };
}

function search(vectors: number): Measurement {
  const dimensions = 384;
  return {
    case: `pipelines search ${vectors} vectors of ${dimensions}`,
    dtype: "f32",
    unit: "ms",
    contenders: ["candlewick"],
    open: () => ({ kind: "bert", path: mustExist(modelFiles.minilm("candlewick")), dtype: "f32" }),
    async turn(child) {
      const { times } = await child.ask<{ times: number[] }>("search", { vectors, dimensions, queries: 10, threads: 1 });
      return { values: times };
    },
    // Each vector is read once.
    best: ({ bandwidthGBs }) => (vectors * dimensions * 4) / (bandwidthGBs * 1e6),
    rounds: 1,
  };
}
