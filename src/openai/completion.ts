/** The events of `/v1/completions`: `text_completion` chunks. */
import type { FinishReason, GenerationResult, Token, Usage } from "../types.js";
import { eventsOfPieces, type TokenSource } from "./chunks.js";
import { event } from "./events.js";
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

export interface EventOptions {
  readonly head: AnswerHead;
  /** Whether counts of tokens are sent: `null` in each chunk, and at the end a chunk without choices that has them. */
  readonly usage: boolean;
  /** Makes a choice's log-probabilities of tokens that have some. Default: there are none. */
  readonly report?: (sequence: number, tokens: readonly Token[]) => CompletionLogprobs | Promise<CompletionLogprobs>;
}

/**
 * The events of a stream, `[DONE]` not among them, and what it came to. What all chunks have is made into JSON once:
 * there is one for each token.
 */
export async function* completionEvents(
  stream: TokenSource,
  { head, usage, report }: EventOptions,
): AsyncGenerator<string, GenerationResult> {
  const begin = `data: ${JSON.stringify(usage ? { ...head, usage: null } : head).slice(0, -1)},"choices":[{"index":`;
  const chunk = (index: number, text: string, logprobs: CompletionLogprobs | null, finish: FinishReason | null): string =>
    `${begin}${index},"text":${JSON.stringify(text)},"logprobs":${JSON.stringify(logprobs)},"finish_reason":${JSON.stringify(finish)}}]}\n\n`;
  const result = yield* eventsOfPieces(stream, async ({ sequence, text, tokens }) =>
    chunk(sequence, text, report && tokens.length > 0 ? await report(sequence, tokens) : null, null),
  );
  for (const [index, { finishReason }] of result.sequences.entries()) yield chunk(index, "", null, finishReason);
  if (usage) yield event({ ...head, choices: [], usage: apiUsage(result.usage) });
  return result;
}
