/** Many at once: prompts that arrive while others decode, beginnings in common, tokens that are guessed. */
import type { Child } from "../child.js";
import { type Context, measure, type Measurement } from "../measure.js";
import { modelFiles, mustExist, root } from "../paths.js";
import { shapeOf } from "../shape.js";
import { randomIds, ratesOf } from "../stats.js";
import type { ContenderName, Dtype } from "../types.js";
import { join } from "node:path";

const gpt2 = (dtype: Dtype) => (contender: ContenderName) => ({ kind: "gpt2", path: mustExist(modelFiles.gpt2(contender, dtype)), dtype });
const shipped = (dtype: Dtype) => () => ({ kind: "gpt2", path: join(root, "models", "default"), dtype });
const own: ContenderName[] = ["candlewick"];

interface Mixed {
  /** Until all streams and prompts were done. */
  ms: number;
  /** The longest pause between two tokens of a stream. */
  gap: number;
}

/** Tokens after a prompt of text, with guesses or without. */
interface Guessed {
  times: number[];
  ids: number[];
}

export async function serving(context: Context): Promise<void> {
  const shape = shapeOf(mustExist(modelFiles.gpt2("candlewick", "f32")));
  const positions = Math.min(1024, shape.positions);
  const rounds = context.quick ? 1 : 4;
  const long = Math.min(512, positions / 2);
  const [streams, tokens, arriving] = [8, context.quick ? 9 : 48, context.quick ? 1 : 3];
  for (const dtype of (["f32", "q8_0"] as const).filter((dtype) => context.dtypes.includes(dtype))) {
    const ask = (child: Child, turn: number) =>
      child.ask<Mixed>("mixed", {
        decoding: Array.from({ length: streams }, (_, i) => randomIds(32, shape.vocabulary, 1000 * turn + i)),
        arriving: Array.from({ length: arriving }, (_, i) => randomIds(long, shape.vocabulary, 1000 * turn + 500 + i)),
        tokens,
      });
    const both: Measurement[] = [
      {
        case: `serving, ${arriving} prompts of ${long} arrive while ${streams} decode`,
        dtype,
        unit: "tok/s",
        contenders: own,
        open: gpt2(dtype),
        turn: async (child, _, turn) => ({ values: [(1000 * (streams * tokens + arriving * long)) / (await ask(child, turn)).ms] }),
        rounds,
      },
      {
        case: `serving, longest pause of ${streams} streams while prompts of ${long} arrive`,
        dtype,
        unit: "ms",
        contenders: own,
        open: gpt2(dtype),
        turn: async (child, _, turn) => ({ values: [(await ask(child, turn + 100)).gap] }),
        rounds,
      },
      ...(["cold", "warm"] as const).map(
        (state): Measurement => ({
          case: `serving, first token after a beginning of ${long}, ${state}`,
          dtype,
          unit: "ms",
          contenders: own,
          open: gpt2(dtype),
          async turn(child, _, turn) {
            const beginning = randomIds(long, shape.vocabulary, 7000 + turn);
            const end = (k: number) => [...beginning, ...randomIds(8, shape.vocabulary, 9000 + 10 * turn + k)];
            const first = async (k: number) => (await child.ask<{ times: number[] }>("generate", { ids: end(k), tokens: 1 })).times[0]!;
            const cold = await first(0);
            return { values: [state === "cold" ? cold : await first(1)] };
          },
          rounds,
        }),
      ),
    ];
    await measure(context, both);
    // A model with random weights repeats itself when it is greedy: what a text is like that is copied or filled in.
    for (const [what, model, temperature] of [["repetitive text", gpt2(dtype), 0], ["greedy text of the shipped model", shipped(dtype), 0], ["free text of the shipped model", shipped(dtype), 1]] as const) {
      const guesses = ([false, "lookup"] as const).map(
        (speculation): Measurement => ({
          case: `serving, ${what}, ${speculation ? "guesses" : "no guesses"}`,
          dtype,
          unit: "tok/s",
          contenders: own,
          open: model,
          async turn(child, contender, turn) {
            if (contender.name === "before") return { values: [] };
            const text = what === "repetitive text" ? undefined : ["Once upon a time", "The", "今天", "In the morning", "She"][turn % 5];
            const ids = randomIds(32, shape.vocabulary, turn + 1);
            const { times } = await child.ask<Guessed>("guessed", { ids, text, temperature, speculation, tokens: context.quick ? 33 : 200, seed: turn });
            return { values: ratesOf(times, 16) };
          },
          rounds,
        }),
      );
      await measure(context, guesses);
    }
    // The same weights in four bits guess for the model. Random weights draw from nearly flat distributions, of which
    // no draft guesses anything: the sampled text shows what trying costs.
    for (const [what, temperature] of dtype === "f32" ? ([["greedy", 0], ["sampled", 1]] as const) : []) {
      const drafted = ([false, "draft"] as const).map(
        (speculation): Measurement => ({
          case: `serving, ${what} text, ${speculation ? "guesses of a q4_0 draft" : "no guesses, beside it"}`,
          dtype,
          unit: "tok/s",
          contenders: own,
          open: (contender) => ({ ...gpt2(dtype)(contender), draft: "q4_0" }),
          async turn(child, contender, turn) {
            if (contender.name === "before") return { values: [] };
            const ids = randomIds(32, shape.vocabulary, turn + 1);
            const { times } = await child.ask<Guessed>("guessed", { ids, temperature, speculation, tokens: context.quick ? 33 : 200, seed: turn });
            return { values: ratesOf(times, 16) };
          },
          rounds,
        }),
      );
      await measure(context, drafted);
    }
  }
}
