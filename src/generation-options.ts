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

const isIds = (value: unknown) => value instanceof Uint32Array || (Array.isArray(value) && value.every((id) => !TOKEN_ID(id)));

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
  stop: checks.oneOrMore(checks.string),
  stopTokenIds: (value) => (Array.isArray(value) ? checks.oneOrMore(TOKEN_ID)(value) : "must be an array of token ids"),
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
  const { signal: _, logitBias, stop, stopTokenIds, earlyStopping, continueFrom, speculation, ...rest } = options;
  return {
    ...rest,
    logitBiasIds: logitBias && Object.keys(logitBias).map(Number),
    logitBiasValues: logitBias && Object.values(logitBias),
    stop: typeof stop === "string" ? [stop] : stop?.slice(),
    stopTokenIds: stopTokenIds?.slice(),
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
