/** Errors in the form of OpenAI's API. */
import type { CandlewickError, ErrorCode } from "../errors.js";

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    /** The field that is wrong. */
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** The codes that OpenAI's API has a name of its own for. */
const CODES: Partial<Record<ErrorCode, string>> = {
  CONTEXT_OVERFLOW: "context_length_exceeded",
  QUEUE_FULL: "rate_limit_exceeded",
  CHAT_TEMPLATE_MISSING: "chat_template_missing",
};

/** Of errors that the caller can mend, those whose messages name the model's files. */
const MESSAGES: Partial<Record<ErrorCode, string>> = {
  TASK_UNSUPPORTED: "This model was not made for this task.",
  CHAT_TEMPLATE_MISSING: "This model has no chat template, and was not trained on conversations.",
  TOKENIZER_MISSING: "This model has no tokenizer: give token ids.",
};

/**
 * The message says what the caller did wrong; of what went wrong on this side, which may name files, the code alone is
 * sent.
 */
export function errorBody({ code, message, httpStatus }: CandlewickError): ErrorBody {
  const type = httpStatus === 429 ? "rate_limit_error" : httpStatus < 500 ? "invalid_request_error" : "server_error";
  const said = MESSAGES[code] ?? (httpStatus === 400 || httpStatus === 429 ? message : code);
  return { error: { message: said, type, param: null, code: CODES[code] ?? code } };
}

/** Seconds that OpenAI's clients are asked to wait: they ignore a wait of a minute or more. */
const SHORTEST_S = 1;
const LONGEST_S = 59;

/** `retry-after`, in whole seconds, and `retry-after-ms`, which OpenAI's clients read first. */
export function retryHeaders(milliseconds: number): Record<string, string> {
  const wait = Math.ceil(Math.min(Math.max(milliseconds, SHORTEST_S * 1_000), LONGEST_S * 1_000));
  return { "retry-after": String(Math.ceil(wait / 1_000)), "retry-after-ms": String(wait) };
}
