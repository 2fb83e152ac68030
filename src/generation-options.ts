/** From a user's generation options to the engine's. Types, and the ranges that need no model, are checked here. */
import { Model } from "./model.js";
import type { NativeGenerateOptions } from "./native.js";
import { type Check, checks, isPlainObject, type OptionTable, show, TOKEN_ID } from "./options.js";
import type { GenerateOptions, TokenIds } from "./types.js";

const count = checks.integer(0, 0xffff_ffff);
const positive = checks.integer(1, 0xffff_ffff);
const upTo64 = checks.integer(1, 64);
const finite = checks.number("that is finite", () => true);
const share = checks.number("from 0 to 1", (value) => value >= 0 && value <= 1);

const logitBias: Check = (value) => {
  if (!isPlainObject(value)) return "must be a plain object of numbers by token id";
  const wrong = Object.entries(value).find(
    ([id, bias]) =>
      // Only the usual spelling: "5" and "5.0" would be two biases for one token.
      TOKEN_ID(Number(id)) || String(Number(id)) !== id || typeof bias !== "number" || Number.isNaN(bias) || bias === Infinity,
  );
  return wrong && `must have token ids as keys and numbers or -Infinity as values (not ${wrong[0]}: ${show(wrong[1])})`;
};

/** Stop strings and ids, at the limits that `GenerateOptions.stop` states. */
const MOST_STOPS = 64;
const MOST_STOP_IDS = 1_024;
const MOST_BAD_WORDS = 10_000;
/** Of a stop string or a bad word, in characters; of a bad word's ids. */
const LONGEST_WORD = 1_024;
const MOST_SUPPRESSED = 100_000;

/** A string of 1 to 1,024 characters without half a surrogate pair, which no text has. */
const word: Check = (value) =>
  typeof value === "string" && value.length > 0 && value.length <= LONGEST_WORD && !/\p{Surrogate}/u.test(value)
    ? undefined
    : `must be a string of 1 to ${LONGEST_WORD} characters, all of them whole`;

const stop: Check = (value) => {
  const all: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (all.filter((one) => typeof one === "string").length > MOST_STOPS) return `must have at most ${MOST_STOPS} strings`;
  if (all.length > MOST_STOPS + MOST_STOP_IDS) return `must have at most ${MOST_STOP_IDS} token ids`;
  const problem = all.map((one) => (typeof one === "number" ? TOKEN_ID(one) : word(one))).find(Boolean);
  return problem && `${problem}, or a token id, or an array of such`;
};

const badWords: Check = (value) => {
  if (typeof value === "string") return word(value);
  if (!Array.isArray(value)) return "must be a word, or an array of words and of token ids";
  if (value.length > MOST_BAD_WORDS) return `must be at most ${MOST_BAD_WORDS} words`;
  const fits = (one: unknown) => (isIds(one) ? one.length > 0 && one.length <= LONGEST_WORD : word(one) === undefined);
  const wrong = value.findIndex((one) => !fits(one));
  return wrong === -1 ? undefined : `must be words of 1 to ${LONGEST_WORD} characters or token ids; number ${wrong} (${show(value[wrong])}) is none`;
};

const suppressed: Check = (value) =>
  isIds(value) && value.length <= MOST_SUPPRESSED ? undefined : `must be at most ${MOST_SUPPRESSED} token ids`;

/** A list within a list keeps its holes, which are no ids. */
const isIds = (value: unknown): value is TokenIds =>
  value instanceof Uint32Array || (Array.isArray(value) && Array.from(value).every((id) => !TOKEN_ID(id)));

const continueFrom: Check = (value) =>
  isIds(value) || (Array.isArray(value) && value.every(isIds)) ? undefined : "must be token ids, or an array of token ids for each sequence";

/** GPT2 itself uses this file. */
const isGPT2 = (value: unknown) => value instanceof Model && "generate" in value;

export const generateOptions: OptionTable<GenerateOptions> = {
  maxNewTokens: positive,
  minNewTokens: count,
  temperature: checks.number("of at least 0", (value) => value >= 0),
  topK: count,
  topP: share,
  minP: share,
  repetitionPenalty: checks.number("above 0", (value) => value > 0),
  presencePenalty: finite,
  frequencyPenalty: finite,
  noRepeatNgramSize: count,
  logitBias,
  badWords,
  suppressTokens: suppressed,
  beginSuppressTokens: suppressed,
  stop,
  stopTokenIds: (value) =>
    Array.isArray(value) && value.length <= MOST_STOP_IDS ? checks.oneOrMore(TOKEN_ID)(value) : `must be an array of at most ${MOST_STOP_IDS} token ids`,
  ignoreEos: checks.boolean,
  seed: checks.integer(0),
  logprobs: checks.integer(0, 20),
  n: upTo64,
  numBeams: upTo64,
  numReturnSequences: upTo64,
  lengthPenalty: finite,
  earlyStopping: checks.oneOf(true, false, "never"),
  truncate: checks.oneOf("left"),
  adapter: checks.string,
  client: checks.string,
  priority: checks.oneOf("interactive", "batch"),
  deadline: checks.number("above 0, up to a day of milliseconds", (value) => value > 0 && value <= 86_400_000),
  scope: checks.string,
  continueFrom,
  speculation: (value) =>
    value === "lookup" || value === false || (isPlainObject(value) && Object.keys(value).join() === "draft" && isGPT2(value["draft"]))
      ? undefined
      : 'must be "lookup", false or { draft: a loaded GPT2 }',
  signal: checks.signal,
};

/** Options as they go to the engine, where a wished length gives way to the positions and a `maxNewTokens` does not. */
export type ResolvedOptions = GenerateOptions & { wishedNewTokens?: number; wishedLength?: number };

/** Of options that were checked. */
export function nativeOptions(options: ResolvedOptions): NativeGenerateOptions {
  const { signal: _, logitBias, badWords, suppressTokens, beginSuppressTokens, stop, stopTokenIds, earlyStopping, continueFrom, speculation, ...rest } = options;
  const stops = [stop ?? []].flat();
  const words = [badWords ?? []].flat() as readonly (string | TokenIds)[];
  return {
    ...rest,
    logitBiasIds: logitBias && Object.keys(logitBias).map(Number),
    logitBiasValues: logitBias && Object.values(logitBias),
    badWords: words.filter((one) => typeof one === "string"),
    badWordIds: words.filter((one) => typeof one !== "string").map((ids) => Uint32Array.from(ids)),
    suppressTokens: suppressTokens && Array.from(suppressTokens),
    beginSuppressTokens: beginSuppressTokens && Array.from(beginSuppressTokens),
    stop: stops.filter((one) => typeof one === "string"),
    stopTokenIds: [...stops.filter((one) => typeof one === "number"), ...(stopTokenIds ?? [])],
    continueFrom: continueFrom && sequencesOf(continueFrom),
    speculation: speculation === false ? "off" : undefined,
    earlyStopping: earlyStopping === undefined ? undefined : (String(earlyStopping) as "true" | "false" | "never"),
  };
}

/** The ids of one sequence, or of each of several. Empty ids are those of one sequence that has none. */
function sequencesOf(ids: NonNullable<GenerateOptions["continueFrom"]>): Uint32Array[] {
  const several = Array.isArray(ids) && ids.length > 0 && typeof ids[0] !== "number";
  return (several ? (ids as readonly TokenIds[]) : [ids as TokenIds]).map((one) => Uint32Array.from(one));
}
