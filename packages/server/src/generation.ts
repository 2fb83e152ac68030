/** From the fields of a request to the options of `generate()` and `chat()`. */
import type { GenerateOptions } from "candlewick";
import type { ApiMessage } from "./schemas.js";
import { invalid, unsupported } from "./errors.js";

/** The fields that the generating routes have in common. */
export interface SamplingFields {
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly n?: number;
  readonly stop?: string | readonly string[];
  readonly seed?: number;
  readonly presence_penalty?: number;
  readonly frequency_penalty?: number;
  readonly repetition_penalty?: number;
  readonly no_repeat_ngram_size?: number;
  readonly min_tokens?: number;
  readonly ignore_eos?: boolean;
  readonly bad_words?: readonly string[];
  readonly stop_token_ids?: readonly number[];
  readonly logit_bias?: Readonly<Record<string, number>>;
  readonly priority?: "interactive" | "batch";
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean | null };
}

/** What `generate()` and `chat()` both take. */
export type CommonOptions = Omit<GenerateOptions, "truncate">;

/** Where a field is absent the model's own default holds. */
export function samplingOptions(fields: SamplingFields): CommonOptions {
  const { stop, seed } = fields;
  // What cuts the distribution has no effect on the likeliest token.
  const greedy = fields.temperature === 0;
  return defined({
    temperature: fields.temperature,
    topP: greedy ? undefined : fields.top_p,
    topK: greedy ? undefined : fields.top_k,
    minP: greedy ? undefined : fields.min_p,
    n: fields.n,
    // An empty list, or an empty string, which some clients send: none.
    stop: stop === undefined || stop.length === 0 ? undefined : stop,
    // OpenAI's seeds may be negative.
    seed: seed === undefined || seed >= 0 ? seed : seed + Number.MAX_SAFE_INTEGER + 1,
    presencePenalty: fields.presence_penalty,
    frequencyPenalty: fields.frequency_penalty,
    repetitionPenalty: fields.repetition_penalty,
    noRepeatNgramSize: fields.no_repeat_ngram_size,
    minNewTokens: fields.min_tokens,
    ignoreEos: fields.ignore_eos,
    badWords: fields.bad_words,
    stopTokenIds: fields.stop_token_ids,
    logitBias: fields.logit_bias,
    priority: fields.priority,
  });
}

/** Without the names whose value is `undefined`. */
export function defined<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}

/** Whether counts are asked for at the end of a stream. */
export function streamUsage({ stream, stream_options }: SamplingFields): boolean {
  if (stream_options !== undefined && stream !== true) {
    throw invalid('"stream_options" is for streams: set "stream" to true.', "stream_options");
  }
  return stream_options?.include_usage === true;
}

/** Fields of a message that would change what a model reads, and that no model here has a form for. */
const REFUSED = ["name", "tool_calls", "tool_call_id", "function_call", "audio"];
const TEXT_PARTS: readonly unknown[] = ["text", "input_text", "output_text"];

export interface PlainMessage {
  readonly role: "system" | "developer" | "user" | "assistant";
  readonly content: string;
}

/** `field`: what the request calls the list. */
export function plainMessages(messages: readonly ApiMessage[], field: string): PlainMessage[] {
  return messages.map((message, index) => {
    const refused = REFUSED.find((name) => message[name] !== undefined && message[name] !== null);
    if (refused) throw unsupported(`${field}[${index}].${refused}`);
    const { role, content } = message;
    if (typeof content === "string") return { role, content };
    const texts = content.map(({ type, text }, at) => {
      if (TEXT_PARTS.includes(type) && typeof text === "string") return text;
      throw unsupported(`${field}[${index}].content[${at}]`, "is no text part, and no other is supported");
    });
    return { role, content: texts.join("") };
  });
}
