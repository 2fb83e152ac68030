/** Candlewick's errors as the AI SDK reads them. */
import { APICallError } from "@ai-sdk/provider-v3";
import { CandlewickError } from "candlewick";

/**
 * An `APICallError`, which is what the AI SDK decides by whether to try again: after `retryAfterMs`, and only where it
 * may help. `data.code` is the {@link CandlewickError}'s code, `cause` the error itself. What is no error of
 * Candlewick's stays as it is.
 *
 * An abort is no failed call: it stays what the AI SDK, and any reader of `fetch`'s errors, tells by its name: the
 * `TimeoutError` that the signal's reason is, else a {@link CandlewickError} named `AbortError`.
 */
export function asCallError(error: unknown, modelId: string): unknown {
  if (!(error instanceof CandlewickError)) return error;
  const { code, message, httpStatus, retryAfterMs, cause } = error;
  if (code === "ABORTED") return (cause as Error | undefined)?.name === "TimeoutError" ? cause : error;
  return new APICallError({
    message,
    // Nothing was called over a network; the class asks for an address.
    url: `candlewick:${modelId}`,
    // The prompt is left out: errors are logged.
    requestBodyValues: {},
    statusCode: httpStatus,
    responseHeaders: retryAfterMs === undefined ? undefined : { "retry-after-ms": String(retryAfterMs) },
    isRetryable: code === "QUEUE_FULL",
    data: { code },
    cause: error,
  });
}

export const isAbort = (error: unknown): boolean => error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError");

/** `work`'s result; what it throws, as {@link asCallError} has it. */
export async function callErrors<T>(modelId: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asCallError(error, modelId);
  }
}
