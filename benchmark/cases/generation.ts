/** GPT-2 124M: decode, prefill, batch, context. Times are those of whole tokens at the JavaScript iterator. */
import type { Child } from "../child.js";
import { type Context, measure, type Measurement, type Turn } from "../measure.js";
import { modelFiles, mustExist } from "../paths.js";
import { cacheGB, gigaflops, shapeOf, weightGB } from "../shape.js";
import { randomIds, ratesOf } from "../stats.js";
import type { ContenderName, Dtype } from "../types.js";

/** Peers that run GPT-2 in this dtype. */
const peersOf: Record<Dtype, ContenderName[]> = {
  f32: ["candlewick", "pytorch", "candle"],
  f16: ["candlewick", "node-llama-cpp"],
  bf16: ["candlewick", "pytorch"],
  int8: ["candlewick", "ctranslate2"],
  q8_0: ["candlewick", "node-llama-cpp"],
  q4_0: ["candlewick", "node-llama-cpp"],
  binary: [],
};

/** Tokens over which one speed is taken. */
const SPAN = 8;

interface Generated {
  times: number[];
  ids: number[];
  cached?: number;
}

const open = (dtype: Dtype) => (contender: ContenderName) => ({
  kind: "gpt2",
  path: mustExist(modelFiles.gpt2(contender, dtype)),
  dtype,
});

const gpt2 = () => shapeOf(mustExist(modelFiles.gpt2("candlewick", "f32")));
const chosen = (context: Context, dtypes: readonly Dtype[]) => dtypes.filter((dtype) => context.dtypes.includes(dtype));

/** `tokens` tokens after a prompt of `context`, one sequence. */
async function decodeTurn(child: Child, prompt: number[], tokens: number): Promise<Turn> {
  const { times, ids } = await child.ask<Generated>("generate", { ids: prompt, tokens });
  return { values: ratesOf(times, SPAN), computed: ids.slice(0, 8) };
}

export async function decode(context: Context): Promise<void> {
  const shape = gpt2();
  const length = Math.min(128, Math.floor(shape.positions / 2));
  const tokens = context.quick ? 9 : Math.min(65, shape.positions - length);
  for (const dtype of chosen(context, ["f32", "f16", "bf16", "int8", "q8_0", "q4_0"])) {
    const decoding: Measurement = {
      case: `decode, context ${length}`,
      dtype,
      unit: "tok/s",
      contenders: peersOf[dtype],
      open: open(dtype),
      turn: (child, _, turn) => decodeTurn(child, randomIds(length, shape.vocabulary, turn + 1), tokens),
      best: ({ bandwidthGBs }) => bandwidthGBs / weightGB(shape, dtype),
      rounds: context.quick ? 1 : 6,
    };
    await measure(context, [decoding]);
  }
}

export async function prefill(context: Context): Promise<void> {
  const shape = gpt2();
  const lengths = [...new Set([128, 512].map((length) => Math.min(length, Math.floor(shape.positions / 2))))];
  for (const dtype of chosen(context, ["f32", "bf16", "int8", "q8_0"])) {
    const measurements = lengths.map((length): Measurement => ({
      case: `prefill ${length}`,
      dtype,
      unit: "tok/s",
      contenders: peersOf[dtype],
      open: open(dtype),
      async turn(child, _, turn) {
        // Other ids in every turn: nothing is to come from a cache of prefixes.
        const ids = randomIds(length, shape.vocabulary, 1000 * length + turn);
        const { times, cached } = await child.ask<Generated>("generate", { ids, tokens: 1 });
        if (cached) throw new Error(`${cached} tokens came from a cache`);
        return { values: [(1000 * length) / times[0]!] };
      },
      best: ({ fmaGflops, bf16Gflops, int8Gops }) =>
        (length * (dtype === "bf16" ? bf16Gflops : dtype === "int8" ? int8Gops : fmaGflops)) / gigaflops(shape, length, 1),
      rounds: context.quick ? 1 : 6,
    }));
    await measure(context, measurements);
  }
}

export async function batch(context: Context): Promise<void> {
  const shape = gpt2();
  const length = Math.min(64, Math.floor(shape.positions / 2));
  for (const dtype of chosen(context, ["f32", "q8_0"])) {
    const contenders = peersOf[dtype].filter((name) => name !== "candle");
    const measurements = [1, 8, 32].map((streams): Measurement => ({
      case: `batch, ${streams} ${streams === 1 ? "stream" : "streams"}`,
      dtype,
      unit: "tok/s",
      contenders,
      open: open(dtype),
      async turn(child, _, turn) {
        const prompts = Array.from({ length: streams }, (_, i) => randomIds(length, shape.vocabulary, 100 * turn + i + 1));
        // The first to decode must not have ended when the last has read its prompt.
        const tokens = Math.min(context.quick ? 9 : 33 + 3 * streams, shape.positions - length);
        const { times } = await child.ask<{ times: number[][] }>("streams", { prompts, tokens });
        return { values: ratesOf(together(times), SPAN * streams) };
      },
      best: ({ bandwidthGBs, fmaGflops }) =>
        streams / Math.max(weightGB(shape, dtype) / bandwidthGBs, gigaflops(shape, streams, streams) / fmaGflops),
      rounds: context.quick ? 1 : 4,
    }));
    await measure(context, measurements);
  }
}

/** The times of all streams' tokens while all of them decode: from the last first token to the first last one. */
function together(times: number[][]): number[] {
  const begin = Math.max(...times.map((stream) => stream[0]!));
  const end = Math.min(...times.map((stream) => stream.at(-1)!));
  const inside = times.flat().filter((time) => time >= begin && time <= end);
  return inside.sort((a, b) => a - b);
}

export async function context(context: Context): Promise<void> {
  const shape = gpt2();
  const tokens = context.quick ? 9 : 41;
  // As near to 1,000 as leaves room for the tokens.
  const long = Math.min(1000 - Math.floor(tokens / 2), shape.positions - tokens);
  for (const dtype of chosen(context, ["f32", "f16", "q8_0"])) {
    const measurements = [32, long].map((length): Measurement => {
      const middle = length === long ? Math.min(1000, shape.positions) : length;
      return {
        case: `context ${middle}`,
        dtype,
        unit: "tok/s",
        contenders: peersOf[dtype].filter((name) => name === "candlewick" || name === "node-llama-cpp"),
        open: open(dtype),
        turn: (child, _, turn) => decodeTurn(child, randomIds(Math.min(length, shape.positions - tokens), shape.vocabulary, turn + 1), tokens),
        best: ({ bandwidthGBs }) => bandwidthGBs / (weightGB(shape, dtype) + cacheGB(shape, middle)),
        rounds: context.quick ? 1 : 4,
      };
    });
    await measure(context, measurements);
  }
}
