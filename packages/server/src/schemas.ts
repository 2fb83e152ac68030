/**
 * What requests may say, field by field, in valibot: types and ranges that need no model. Fields that are `null` are
 * absent. What changes no text is accepted and has no effect; what would change it and is not supported is refused by
 * name (`unsupported_parameter`), and so is what nobody knows (`unknown_parameter`).
 */
import * as v from "valibot";
import { invalid, unsupported } from "./errors.js";
import type { Json } from "./json.js";

const id = v.pipe(v.number("must be a token id"), v.integer("must be a token id"), v.minValue(0, "must be a token id"), v.maxValue(0xffff_ffff, "must be a token id"));
const between = (least: number, most: number) => {
  const message = `must be a number from ${least} to ${most}`;
  return v.pipe(v.number(message), v.finite(message), v.minValue(least, message), v.maxValue(most, message));
};
const integer = (least: number, most: number) => {
  const message = `must be an integer from ${least} to ${most}`;
  return v.pipe(v.number(message), v.integer(message), v.minValue(least, message), v.maxValue(most, message));
};
const text = v.string("must be a string");
const flag = v.boolean("must be true or false");
/** Of an object that is none, and of a key that it must have. */
const object = ({ received }: v.BaseIssue<unknown>): string => (received === "undefined" ? "is missing" : "must be an object");
const TOKENS = 0xffff_ffff;

/** Strings of one list: what a request may hold at most. */
export const MOST_INPUTS = 2_048;
const MOST = `must be a list of 1 to ${MOST_INPUTS}`;
const list = <Item extends v.GenericSchema>(item: Item) =>
  v.pipe(v.array(item, MOST), v.minLength(1, MOST), v.maxLength(MOST_INPUTS, MOST));
const ids = v.pipe(v.array(id, "must be token ids"), v.minLength(1, "must not be empty"));

const model = v.pipe(text, v.minLength(1, "must not be empty"));

/** How tokens are drawn, and what has no effect on the text. */
const sampling = {
  temperature: v.optional(between(0, 2)),
  top_p: v.optional(between(0, 1)),
  stop: v.optional(v.union([text, v.pipe(v.array(v.pipe(text, v.minLength(1, "must not be empty")), "must be a string or strings"), v.maxLength(64, "must be at most 64 strings"))], "must be a string or at most 64 strings")),
  seed: v.optional(integer(-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)),
  presence_penalty: v.optional(between(-2, 2)),
  frequency_penalty: v.optional(between(-2, 2)),
  logit_bias: v.optional(v.record(v.pipe(v.string(), v.regex(/^(0|[1-9]\d{0,9})$/, "must have token ids as keys")), between(-100, 100), object)),
  stream: v.optional(flag),
  stream_options: v.optional(v.object({ include_usage: v.optional(v.nullable(flag)), include_obfuscation: v.optional(v.nullable(flag)) }, object)),
  n: v.optional(integer(1, 64)),
} as const;

/** Not OpenAI's. */
const extensions = {
  top_k: v.optional(integer(0, TOKENS)),
  min_p: v.optional(between(0, 1)),
  repetition_penalty: v.optional(between(0.01, 10)),
  no_repeat_ngram_size: v.optional(integer(0, TOKENS)),
  min_tokens: v.optional(integer(0, TOKENS)),
  ignore_eos: v.optional(flag),
  bad_words: v.optional(v.pipe(v.array(v.pipe(text, v.minLength(1, "must not be empty"), v.maxLength(1_024, "must be at most 1024 characters")), "must be a list of words"), v.maxLength(1_024, "must be at most 1024 words"))),
  stop_token_ids: v.optional(v.pipe(v.array(id, "must be token ids"), v.maxLength(1_024, "must be at most 1024 token ids"))),
  priority: v.optional(v.picklist(["interactive", "batch"], 'must be "interactive" or "batch"')),
} as const;

/** A prompt, prompts, token ids of a prompt, or of several. */
export const promptSchema = v.union(
  [text, list(text), ids, list(ids)],
  `must be a string, token ids, or a list of 1 to ${MOST_INPUTS} of either`,
);

export const completionSchema = v.strictObject({
  model,
  prompt: promptSchema,
  max_tokens: v.optional(integer(0, TOKENS)),
  best_of: v.optional(integer(1, 64)),
  echo: v.optional(flag),
  logprobs: v.optional(integer(0, 20)),
  ...sampling,
  ...extensions,
});
export type CompletionRequest = v.InferOutput<typeof completionSchema>;

/** Parts that are no text are refused by name: `plainMessages`. */
const part = v.looseObject({ type: text }, object);
const content = v.union([text, v.pipe(v.array(part), v.minLength(1, "must not be empty"))], "must be a string or a list of parts");
export const messageSchema = v.looseObject({
  role: v.picklist(["system", "developer", "user", "assistant"], 'must be "system", "developer", "user" or "assistant"'),
  content,
}, object);
export const messagesSchema = v.pipe(v.array(messageSchema, "must be a list of messages"), v.minLength(1, "must not be empty"), v.maxLength(MOST_INPUTS, `must be at most ${MOST_INPUTS} messages`));
export type ApiMessage = v.InferOutput<typeof messageSchema>;

export const chatSchema = v.strictObject({
  model,
  messages: messagesSchema,
  max_tokens: v.optional(integer(1, TOKENS)),
  max_completion_tokens: v.optional(integer(1, TOKENS)),
  logprobs: v.optional(flag),
  top_logprobs: v.optional(integer(0, 20)),
  ...sampling,
  ...extensions,
});
export type ChatRequest = v.InferOutput<typeof chatSchema>;

/** OpenAI's bounds. */
const metadata = v.pipe(
  v.record(v.pipe(v.string(), v.maxLength(64, "must have keys of at most 64 characters")), v.pipe(v.string("must have strings for values"), v.maxLength(512, "must have values of at most 512 characters")), object),
  v.maxEntries(16, "must have at most 16 entries"),
);

const { n: _n, stop: _stop, presence_penalty: _presence, frequency_penalty: _frequency, logit_bias: _bias, seed: _seed, ...responseSampling } = sampling;
export const responseSchema = v.strictObject({
  model,
  input: v.union([text, v.pipe(v.array(v.looseObject({ type: v.optional(v.literal("message")), ...messageSchema.entries }, object)), v.minLength(1, "must not be empty"), v.maxLength(MOST_INPUTS, `must have at most ${MOST_INPUTS}`))], "must be a string or messages"),
  instructions: v.optional(text),
  max_output_tokens: v.optional(integer(1, TOKENS)),
  top_logprobs: v.optional(integer(0, 20)),
  include: v.optional(v.array(v.picklist(["message.output_text.logprobs"], 'may have "message.output_text.logprobs" alone'), "must be a list")),
  truncation: v.optional(v.picklist(["auto", "disabled"], 'must be "auto" or "disabled"')),
  metadata: v.optional(metadata),
  ...responseSampling,
  seed: sampling.seed,
  ...extensions,
});
export type ResponseRequest = v.InferOutput<typeof responseSchema>;

export const embeddingSchema = v.strictObject({
  model,
  input: v.union([text, list(text), ids, list(ids)], `must be a string or a list of 1 to ${MOST_INPUTS} strings`),
  encoding_format: v.optional(v.picklist(["float", "base64"], 'must be "float" or "base64"')),
  dimensions: v.optional(integer(1, TOKENS)),
  truncate: v.optional(flag),
});
export type EmbeddingRequest = v.InferOutput<typeof embeddingSchema>;

const document = v.union([text, v.object({ text })], 'must be a string or {"text": …}');
export const rerankSchema = v.strictObject({
  model,
  query: text,
  documents: list(document),
  top_n: v.optional(integer(1, TOKENS)),
  return_documents: v.optional(flag),
  truncate: v.optional(flag),
});
export type RerankRequest = v.InferOutput<typeof rerankSchema>;

export const classifySchema = v.strictObject({
  model,
  input: v.union([text, list(text)], `must be a string or a list of 1 to ${MOST_INPUTS} strings`),
  truncate: v.optional(flag),
});
export type ClassifyRequest = v.InferOutput<typeof classifySchema>;

export const tokenizeSchema = v.strictObject({
  model,
  prompt: v.optional(text),
  messages: v.optional(messagesSchema),
  return_token_strs: v.optional(flag),
});
export type TokenizeRequest = v.InferOutput<typeof tokenizeSchema>;

export const detokenizeSchema = v.strictObject({ model, tokens: v.array(id, "must be token ids") });
export type DetokenizeRequest = v.InferOutput<typeof detokenizeSchema>;

/** Accepted everywhere, and without effect on the answer. */
export const IGNORED = [
  "user",
  "metadata",
  "store",
  "service_tier",
  "prompt_cache_key",
  "prompt_cache_retention",
  "verbosity",
  "safety_identifier",
  "prediction",
];

const nothing = (value: unknown) => Array.isArray(value) && value.length === 0;
const isText = (value: unknown) => (value as { type?: unknown })?.type === "text";
const never = () => false;

/** Fields that would change the answer, with the values that do not. */
export const UNSUPPORTED: Readonly<Record<string, (value: unknown) => boolean>> = {
  tools: nothing,
  functions: nothing,
  tool_choice: (value) => value === "none" || value === "auto",
  function_call: (value) => value === "none" || value === "auto",
  parallel_tool_calls: (value) => typeof value === "boolean",
  max_tool_calls: never,
  response_format: isText,
  text: (value) => {
    const { format, ...rest } = (value ?? {}) as { format?: unknown; verbosity?: unknown };
    return (format === undefined || isText(format)) && Object.keys(rest).every((name) => name === "verbosity");
  },
  modalities: (value) => Array.isArray(value) && value.every((one) => one === "text"),
  audio: never,
  suffix: (value) => value === "",
  reasoning: never,
  reasoning_effort: (value) => value === "none",
  web_search_options: never,
  previous_response_id: never,
  conversation: never,
  prompt: never,
  background: (value) => value === false,
  context_management: never,
  guided_json: never,
  guided_regex: never,
  guided_choice: never,
  guided_grammar: never,
};

/**
 * The fields of a request that have an effect, checked.
 *
 * @throws {ApiError} 400, which names the field.
 */
export function parseRequest<Schema extends v.GenericSchema & { readonly entries: object }>(schema: Schema, json: Json): v.InferOutput<Schema> {
  const given: Json = {};
  for (const [name, value] of Object.entries(json)) {
    if (value === null) continue;
    if (Object.hasOwn(schema.entries, name)) given[name] = value;
    else if (Object.hasOwn(UNSUPPORTED, name)) {
      if (!UNSUPPORTED[name]!(value)) throw unsupported(name);
    } else if (!IGNORED.includes(name)) {
      const short = name.slice(0, 64);
      throw invalid(`Unknown field: ${JSON.stringify(short)}.`, short, "unknown_parameter");
    }
  }
  const result = v.safeParse(schema, given, { abortEarly: true, abortPipeEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = pathOf(issue);
  if (path.length === 1 && given[path[0]!] === undefined) {
    throw invalid(`The field "${path[0]}" is missing.`, String(path[0]), "missing_required_parameter");
  }
  throw invalid(`"${placeOf(path)}" ${issue.message}.`, placeOf([...path, ...oddOne(issue)]));
}

const pathOf = ({ path }: v.BaseIssue<unknown>): (string | number)[] => path?.map(({ key }) => key as string | number) ?? [];

/** `messages[0].content`. */
const placeOf = (path: readonly (string | number)[]): string =>
  path.map((key, at) => (typeof key === "number" ? `[${key}]` : at === 0 ? key : `.${key}`)).join("");

/**
 * Of a list that has none of the forms that a field may have: the place of the item at fault, by the form that fits
 * the most items before it. A list of texts with a number in it fails as texts at the number, as ids at its first text.
 */
function oddOne({ issues }: v.BaseIssue<unknown>): number[] {
  const places = issues?.map((issue) => pathOf(issue)[0]).filter((key) => typeof key === "number") ?? [];
  return places.length === 0 ? [] : [Math.max(...places)];
}
