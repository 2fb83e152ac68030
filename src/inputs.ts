/** From texts and ids as users give them to the columns that the addon takes, and back. */
import { types } from "node:util";
import type { IdsInput, TextInput, TextPair } from "./bert.js";
import { CandlewickError } from "./errors.js";
import type { NativePrompts, NativeTexts } from "./native.js";
import { invalid, TOKEN_ID } from "./options.js";
import type { Prompt, TokenIds } from "./types.js";

/** Throws `PROMPT_EMPTY` for no prompt or an empty one, `OPTION_INVALID` for what is none. */
export function nativePrompts(where: string, prompt: Prompt): NativePrompts {
  const several = Array.isArray(prompt) && typeof prompt[0] !== "number";
  const prompts = (several ? prompt : [prompt]) as readonly (string | TokenIds)[];
  if (prompts.length === 0 || prompts.some((one) => one?.length === 0)) {
    throw new CandlewickError("PROMPT_EMPTY", `${where}: the prompt is empty`);
  }
  if (prompts.every((one) => typeof one === "string")) return { texts: prompts as string[] };
  return { ids: prompts.map((ids) => nativeIds(where, "the prompt", ids)) };
}

/** Throws `OPTION_INVALID` for what is no list of token ids. */
export function nativeIds(where: string, name: string, ids: unknown): Uint32Array {
  if (types.isUint32Array(ids)) return ids;
  if (!Array.isArray(ids)) throw invalid(where, name, "must be text or token ids", ids);
  for (const id of ids) {
    const problem = TOKEN_ID(id);
    if (problem) throw invalid(where, `a token id in ${name}`, problem, id);
  }
  return Uint32Array.from(ids as number[]);
}

/** Throws `OPTION_INVALID` for what is neither a string nor an array of strings. */
export function nativeTexts(where: string, text: unknown): string[] {
  const texts: unknown = typeof text === "string" ? [text] : text;
  if (!Array.isArray(texts)) throw invalid(where, "the text", "must be a string or an array of strings", text);
  const wrong = texts.findIndex((one) => typeof one !== "string");
  if (wrong !== -1) throw invalid(where, `text ${wrong}`, "must be a string", texts[wrong]);
  return texts as string[];
}

/** Throws `OPTION_INVALID` for what is no text, pair or ids, and for a mixture of them. */
export function checkInputs(where: string, input: TextInput | readonly TextInput[]): readonly TextInput[] {
  const inputs = (Array.isArray(input) ? input : [input]) as readonly TextInput[];
  if (inputs.every(isText) || inputs.every(isPair) || inputs.every(isIds)) return inputs;
  throw invalid(where, "the input", "must be strings, or {text, textPair}, or {ids, typeIds?}, all of one kind", input);
}

/** The columns of inputs that were checked. */
export function nativeInputs(where: string, inputs: readonly TextInput[]): NativeTexts {
  if (inputs.every(isText)) return { texts: inputs.slice() };
  if (inputs.every(isPair)) return { texts: inputs.map(({ text }) => text), pairs: inputs.map(({ textPair }) => textPair) };
  const lists = inputs as readonly IdsInput[];
  return {
    ids: lists.map(({ ids }) => nativeIds(where, "ids", ids)),
    typeIds: lists.map(({ typeIds }) => nativeIds(where, "typeIds", typeIds ?? [])),
  };
}

const isText = (input: unknown): input is string => typeof input === "string";
const isPair = (input: unknown): input is TextPair => {
  const pair = input as TextPair | null | undefined;
  return typeof pair?.text === "string" && typeof pair.textPair === "string";
};
const isIds = (input: unknown): input is IdsInput => typeof (input as IdsInput | null | undefined)?.ids === "object";

interface Packed<A> {
  readonly data: A;
  readonly lengths: Uint32Array;
}

/** The lists that were packed into one array, as views of it. */
export function unpack<A extends Uint32Array | Float32Array>({ data, lengths }: Packed<A>): A[] {
  const views: A[] = Array.from({ length: lengths.length });
  let offset = 0;
  for (let i = 0; i < lengths.length; i++) views[i] = data.subarray(offset, (offset += lengths[i]!)) as A;
  return views;
}
