/** The events of `/v1/completions`: `text_completion` chunks. */
import type { FinishReason, GenerationResult, Token, Usage } from "../types.js";
import { piecesOf, type TokenSource } from "./chunks.js";
import type { CompletionLogprobs } from "./logprobs.js";

/** Counts of tokens, under OpenAI's names. */
export interface ApiUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
}

export function apiUsage({ promptTokens, completionTokens, totalTokens, cachedTokens }: Usage): ApiUsage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: totalTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** What every chunk of an answer has. */
export interface AnswerHead {
  readonly id: string;
  readonly object: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint?: string;
}

export interface ChunkOptions {
  readonly head: AnswerHead;
  /** Whether counts of tokens are sent: `null` in each chunk, and at the end a chunk without choices that has them. */
  readonly usage: boolean;
  /** Makes a choice's log-probabilities of tokens that have some. Default: there are none. */
  readonly report?: (sequence: number, tokens: readonly Token[]) => CompletionLogprobs | Promise<CompletionLogprobs>;
}

/** The chunks of a stream, and what it came to. */
export async function* completionChunks(
  stream: TokenSource,
  { head, usage, report }: ChunkOptions,
): AsyncGenerator<object, GenerationResult> {
  const withUsage = usage ? { ...head, usage: null } : head;
  const chunk = (index: number, text: string, logprobs: CompletionLogprobs | null, finish: FinishReason | null) => ({
    ...withUsage,
    choices: [{ index, text, logprobs, finish_reason: finish }],
  });
  const pieces = piecesOf(stream);
  for (;;) {
    const { value, done } = await pieces.next();
    if (!done) {
      const { sequence, text, tokens } = value;
      const logprobs = report && tokens.length > 0 ? await report(sequence, tokens) : null;
      yield chunk(sequence, text, logprobs, null);
      continue;
    }
    for (const [index, { finishReason }] of value.sequences.entries()) yield chunk(index, "", null, finishReason);
    if (usage) yield { ...head, choices: [], usage: apiUsage(value.usage) };
    return value;
  }
}
