/** From texts and ids as users give them to the columns that the addon takes, and back. */
import { types } from "node:util";
import type { TextInput, TextPair } from "./bert.js";
import { CandlewickError } from "./errors.js";
import type { NativePrompts, NativeTexts } from "./native.js";
import { invalid, isPlainObject, TOKEN_ID, unknown } from "./options.js";
import type { Prompt, TokenIds } from "./types.js";

/** Whether it is a list of prompts, and not the ids of one. */
export const isSeveral = (prompt: Prompt): prompt is readonly string[] | readonly TokenIds[] =>
  Array.isArray(prompt) && typeof prompt[0] !== "number";

/** Throws `PROMPT_EMPTY` for no prompt or an empty one, `OPTION_INVALID` for what is none. */
export function nativePrompts(where: string, prompt: Prompt): NativePrompts {
  const prompts = (isSeveral(prompt) ? Array.from(prompt as readonly unknown[]) : [prompt]) as (string | TokenIds)[];
  const empty = prompts.findIndex((one) => one?.length === 0);
  if (prompts.length === 0 || empty !== -1) {
    throw new CandlewickError("PROMPT_EMPTY", `${where}: the prompt is empty`).at(prompts.length > 1 ? empty : undefined);
  }
  if (prompts.every((one) => typeof one === "string")) return { texts: prompts };
  return { ids: prompts.map((ids) => nativeIds(where, "the prompt", ids)) };
}

/** Throws `OPTION_INVALID` for what is no list of token ids. */
export function nativeIds(where: string, name: string, ids: unknown): Uint32Array {
  if (types.isUint32Array(ids)) return ids;
  if (!Array.isArray(ids)) throw invalid(where, name, "must be text or token ids", ids);
  const native = new Uint32Array(ids.length);
  let index = 0;
  for (const id of ids) {
    const problem = TOKEN_ID(id);
    if (problem) throw invalid(where, `a token id in ${name}`, problem, id);
    native[index++] = id;
  }
  return native;
}

/** Throws `OPTION_INVALID` for what is neither a string nor an array of strings. */
export function nativeTexts(where: string, text: unknown): string[] {
  if (typeof text === "string") return [text];
  if (!Array.isArray(text)) throw invalid(where, "the text", "must be a string or an array of strings", text);
  const texts: unknown[] = Array.from(text);
  const wrong = texts.findIndex((one) => typeof one !== "string");
  if (wrong !== -1) throw invalid(where, `text ${wrong}`, "must be a string", texts[wrong]);
  return texts as string[];
}

interface NativeIdPair {
  readonly ids: Uint32Array;
  readonly pairIds: Uint32Array;
}

interface NativeIds {
  readonly ids: Uint32Array;
  /** None: all are 0. */
  readonly typeIds: Uint32Array;
}

/** What was checked, copied from what the user gave. */
export type CheckedInput = string | TextPair | NativeIds | NativeIdPair;

const FORMS = "must be strings, or {text, textPair}, or {ids, pairIds}, or {ids, typeIds?}, all of one kind";
const KEYS = ["text", "textPair", "ids", "pairIds", "typeIds"];

/**
 * Throws `OPTION_INVALID` for what is no text, pair or ids and for several kinds in one call, `OPTION_UNKNOWN` for a
 * key that none has, `INPUT_INVALID` for an object that is a pair and ids at once, that has types beside a pair of ids,
 * or not as many types as ids.
 */
export function checkInputs(where: string, input: TextInput | readonly TextInput[]): CheckedInput[] {
  const inputs: readonly unknown[] = Array.isArray(input) ? input : [input];
  const checked = Array.from(inputs, (one) => checkInput(where, one));
  if (checked.every(isText) || checked.every(isPair) || checked.every(isIdPair) || checked.every(isIds)) return checked;
  throw invalid(where, "the input", FORMS, input);
}

function checkInput(where: string, input: unknown): CheckedInput {
  if (typeof input === "string") return input;
  if (!isPlainObject(input)) throw invalid(where, "the input", FORMS, input);
  const given = { ...input };
  for (const name in given) if (!KEYS.includes(name)) throw unknown(where, "key of an input", name, KEYS);
  const names = KEYS.filter((name) => given[name] !== undefined);
  const ofPair = names.some((name) => name.startsWith("text"));
  if (ofPair && names.some((name) => !name.startsWith("text"))) {
    throw new CandlewickError("INPUT_INVALID", `${where}: the input is either {text, textPair} or {ids, typeIds?}, not both`);
  }
  const { text, textPair, ids, pairIds, typeIds } = given;
  if (typeof text === "string" && typeof textPair === "string") return { text, textPair };
  if (ofPair || typeof ids !== "object") throw invalid(where, "the input", FORMS, input);
  if (pairIds === undefined) return checkIds(where, ids, typeIds);
  if (typeIds !== undefined) throw new CandlewickError("INPUT_INVALID", `${where}: the types of a pair of ids follow from it; leave typeIds out`);
  return { ids: nativeIds(where, "ids", ids), pairIds: nativeIds(where, "pairIds", pairIds) };
}

function checkIds(where: string, ids: unknown, typeIds: unknown): NativeIds {
  const checked = { ids: nativeIds(where, "ids", ids), typeIds: nativeIds(where, "typeIds", typeIds ?? []) };
  if (typeIds !== undefined && checked.typeIds.length !== checked.ids.length) {
    const counts = `${checked.typeIds.length} typeIds for ${checked.ids.length} ids`;
    throw new CandlewickError("INPUT_INVALID", `${where}: there are ${counts}; leave typeIds out if all are 0`);
  }
  return checked;
}

/** The columns of inputs that were checked. */
export function nativeInputs(inputs: readonly CheckedInput[]): NativeTexts {
  if (inputs.every(isText)) return { texts: inputs.slice() };
  if (inputs.every(isPair)) return { texts: inputs.map(({ text }) => text), pairs: inputs.map(({ textPair }) => textPair) };
  if (inputs.every(isIdPair)) return { ids: inputs.map(({ ids }) => ids), pairIds: inputs.map(({ pairIds }) => pairIds) };
  const lists = inputs.filter(isIds);
  return { ids: lists.map(({ ids }) => ids), typeIds: lists.map(({ typeIds }) => typeIds) };
}

const isText = (input: CheckedInput): input is string => typeof input === "string";
const isPair = (input: CheckedInput): input is TextPair => typeof input === "object" && "text" in input;
const isIds = (input: CheckedInput): input is NativeIds => typeof input === "object" && "typeIds" in input;
const isIdPair = (input: CheckedInput): input is NativeIdPair => typeof input === "object" && "pairIds" in input;

interface Packed<A> {
  readonly data: A;
  readonly lengths: Uint32Array;
}

/** The lists that were packed into one array, as views of it. */
export function unpack<A extends Uint8Array | Uint32Array | Float32Array>({ data, lengths }: Packed<A>): A[] {
  const views: A[] = Array.from({ length: lengths.length });
  let offset = 0;
  for (let i = 0; i < lengths.length; i++) views[i] = data.subarray(offset, (offset += lengths[i]!)) as A;
  return views;
}
