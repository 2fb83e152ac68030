/** The model's own log-probabilities of tokens that exist: the options of `score()`, and its results. */
import { randomUUID } from "node:crypto";
import { generateOptions } from "./generation-options.js";
import { unpack } from "./inputs.js";
import type { NativeGenerator, NativePrompts, PackedScores } from "./native.js";
import type { OptionTable } from "./options.js";
import { abortable, mailbox } from "./runtime.js";
import { inSlices } from "./slices.js";
import type { TokenLogprob } from "./types.js";
import type { Vocabulary } from "./vocabulary.js";

/** An option that is not listed throws `OPTION_UNKNOWN`, a value outside its range `OPTION_INVALID`. */
export interface ScoreOptions {
  /** Reports beside each token the so many likeliest ones at its place: 0 to 20. Default: no report. */
  topLogprobs?: number;
  /** One of the adapters that the model was loaded with, by name. Default: none, the model as it is. */
  adapter?: string;
  /** Whose turns these are, as in {@link GenerateOptions}. Default: each call is a client of its own. */
  client?: string;
  /** Prompts to come share what was computed of these texts, within a scope, as in {@link GenerateOptions}. */
  scope?: string;
  /** `"batch"`: gets what interactive requests leave of each step. Default `"interactive"`. */
  priority?: "interactive" | "batch";
  /** Aborting it ends the compute by the next layer; the promise is rejected with code `ABORTED`. */
  signal?: AbortSignal;
}

/** A token of a text that was scored. */
export interface ScoredToken {
  readonly id: number;
  /** The token by itself: special tokens by name, a torn character as U+FFFD. Empty if the model has no tokenizer. */
  readonly text: string;
  /**
   * Natural logarithm of the token's probability after those before it: the number that `generate()` reports of the
   * same token there, to the bit. Absent for the first token, which nothing precedes.
   */
  readonly logprob?: number;
  /** With `topLogprobs`, and where there is a `logprob`: the likeliest tokens at this place, best first. */
  readonly topLogprobs?: readonly TokenLogprob[];
}

/** What the model thinks of a text. */
export interface TextScore {
  /** All tokens of the text, as the model reads them. */
  readonly tokens: readonly ScoredToken[];
  /** The sum of its tokens' `logprob`: 0 for a text of one token. */
  readonly logprob: number;
}

const { logprobs, adapter, client, scope, priority, signal } = generateOptions;
export const scoreOptions: OptionTable<ScoreOptions> = { topLogprobs: logprobs, adapter, client, scope, priority, signal };

/** Objects that are made between two turns of the event loop: about a millisecond. */
const OBJECTS = 4096;

/** @internal Scores prompts that were checked, with options that were. Without a vocabulary tokens have no text. */
export async function scorePrompts(
  native: NativeGenerator,
  prompts: NativePrompts,
  { signal, topLogprobs, client, ...rest }: ScoreOptions,
  vocabulary: Promise<Vocabulary> | undefined,
): Promise<TextScore[]> {
  // It is awaited after the scores, and may be rejected before.
  vocabulary?.catch(() => {});
  const { texts, ids } = prompts;
  const items: readonly (string | Uint32Array)[] = texts ?? ids ?? [];
  // The slices of a long list are one client.
  const options = { ...rest, topLogprobs, client: client ?? (items.length > 1 ? randomUUID() : undefined) };
  const score = async (slice: readonly (string | Uint32Array)[]): Promise<TextScore[]> => {
    const given = texts ? { texts: slice as string[] } : { ids: slice as Uint32Array[] };
    const packed = await abortable<PackedScores>(signal, (id, cancel) => native.score(mailbox, id, given, options, cancel));
    return unpackScores(packed, await vocabulary, topLogprobs !== undefined);
  };
  return inSlices(items, score, { weigh: (item) => item.length });
}

/** @internal The columns of a native call as objects; the event loop turns between some thousands of them. */
export async function unpackScores(packed: PackedScores, vocabulary: Vocabulary | undefined, reports: boolean): Promise<TextScore[]> {
  const { logprobs, topIds, topLogprobs } = packed;
  const text = (id: number) => vocabulary?.text(id) ?? "";
  /** How many of the likeliest there are for each token. */
  const width = logprobs.length === 0 ? 0 : topIds.length / logprobs.length;
  const likeliest = (place: number): TokenLogprob[] =>
    Array.from({ length: width }, (_, rank) => {
      const id = topIds[place * width + rank]!;
      return { id, text: text(id), logprob: topLogprobs[place * width + rank]! };
    });
  const scores: TextScore[] = [];
  let place = 0;
  let made = 0;
  for (const ids of unpack(packed.ids)) {
    const tokens: ScoredToken[] = [];
    let sum = 0;
    for (const id of ids) {
      if (tokens.length === 0) {
        tokens.push({ id, text: text(id) });
        continue;
      }
      const logprob = logprobs[place]!;
      tokens.push({ id, text: text(id), logprob, ...(reports && { topLogprobs: likeliest(place) }) });
      sum += logprob;
      place++;
      made += 1 + width;
      if (made >= OBJECTS) {
        made = 0;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    scores.push({ tokens, logprob: sum });
  }
  return scores;
}
