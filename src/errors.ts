/**
 * The stable codes of {@link CandlewickError}; `docs/errors.md` says what each one means and what to do about it.
 * A program tests codes, never messages.
 */
export type ErrorCode =
  // The call.
  | "OPTION_UNKNOWN"
  | "OPTION_INVALID"
  | "PROMPT_EMPTY"
  | "CONTEXT_OVERFLOW"
  | "INPUT_INVALID"
  | "ABORTED"
  | "DEADLINE_EXCEEDED"
  | "QUEUE_FULL"
  | "OUT_OF_MEMORY"
  | "DEVICE_LOST"
  | "NOT_FINITE"
  | "MODEL_CLOSED"
  | "STREAM_USED"
  | "TASK_UNSUPPORTED"
  // The model's files.
  | "MODEL_NOT_FOUND"
  | "PATH_ESCAPE"
  | "IO"
  | "CONFIG_INVALID"
  | "WEIGHTS_CORRUPT"
  | "TENSOR_MISSING"
  | "TENSOR_SHAPE"
  | "TENSOR_DTYPE"
  | "TOKENIZER_INVALID"
  | "TOKENIZER_MISSING"
  | "VOCABULARY_MISMATCH"
  | "UNSUPPORTED_MODEL"
  | "UNSUPPORTED_DTYPE"
  | "UNSUPPORTED_DEVICE"
  // Data to train on or to measure with.
  | "DATA_NOT_FOUND"
  | "DATA_INVALID"
  | "DATA_EMPTY"
  | "COLUMN_UNKNOWN"
  | "LABEL_UNKNOWN"
  // A training run.
  | "LOSS_NOT_FINITE"
  | "OUTPUT_BUSY"
  | "OUTPUT_EXISTS"
  | "CHECKPOINT_MISMATCH"
  | "CHECKPOINT_CORRUPT"
  // The hub.
  | "MODEL_GATED"
  | "DOWNLOAD_FAILED"
  // The installation, and bugs.
  | "ADDON_MISSING"
  | "INTERNAL";

/**
 * Every error that Candlewick throws or rejects with.
 *
 * `name` is `"CandlewickError"`, except that an error with code `ABORTED` is named `"AbortError"`, as the web's is, so
 * that code which already tells aborts from failures by that name keeps working.
 */
export class CandlewickError extends Error {
  /** Stable across versions. */
  readonly code: ErrorCode;
  /** With `QUEUE_FULL`: milliseconds after which the queue may have room, by the model's speed so far. */
  declare readonly retryAfterMs?: number;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions & { retryAfterMs?: number }) {
    super(message, options);
    this.code = code;
    if (options?.retryAfterMs !== undefined) this.retryAfterMs = options.retryAfterMs;
  }

  /** The HTTP status that fits the code: 4xx if the caller is at fault, 499 for an abort, else 5xx. */
  get httpStatus(): number {
    return HTTP_STATUS[this.code] ?? 500;
  }

  static {
    // On the prototype, so that it is not among an error's own, printed, properties.
    Object.defineProperty(this.prototype, "name", {
      configurable: true,
      get(this: Partial<CandlewickError>) {
        return this.code === "ABORTED" ? "AbortError" : "CandlewickError";
      },
    });
  }
}

const HTTP_STATUS: Partial<Record<ErrorCode, number>> = {
  OPTION_UNKNOWN: 400,
  OPTION_INVALID: 400,
  PROMPT_EMPTY: 400,
  CONTEXT_OVERFLOW: 400,
  INPUT_INVALID: 400,
  TASK_UNSUPPORTED: 400,
  DATA_NOT_FOUND: 404,
  DATA_INVALID: 400,
  DATA_EMPTY: 400,
  COLUMN_UNKNOWN: 400,
  LABEL_UNKNOWN: 400,
  OUTPUT_BUSY: 409,
  OUTPUT_EXISTS: 409,
  MODEL_NOT_FOUND: 404,
  MODEL_GATED: 403,
  DOWNLOAD_FAILED: 502,
  ABORTED: 499,
  DEADLINE_EXCEEDED: 504,
  QUEUE_FULL: 503,
  OUT_OF_MEMORY: 400,
  DEVICE_LOST: 503,
  MODEL_CLOSED: 503,
};

/** The error of an operation that `signal` ended; its `cause` is the signal's reason. */
export function abortError(signal: AbortSignal): CandlewickError {
  return new CandlewickError("ABORTED", "The operation was aborted", { cause: signal.reason });
}

/** What the native side threw (an `Error` with a `code` of ours), as a {@link CandlewickError}. */
export function fromNative(error: unknown): CandlewickError {
  if (error instanceof CandlewickError) return error;
  const { code, message, retryAfterMs } = error as { code?: unknown; message?: unknown; retryAfterMs?: number };
  if (typeof code === "string" && /^[A-Z][A-Z0-9_]+$/.test(code)) {
    return new CandlewickError(code as ErrorCode, String(message), { retryAfterMs });
  }
  return new CandlewickError("INTERNAL", `Unexpected error in the native addon: ${String(message)}`, { cause: error });
}
