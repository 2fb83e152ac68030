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
  | "CHAT_TEMPLATE_MISSING"
  // The model's files.
  | "MODEL_NOT_FOUND"
  | "PATH_ESCAPE"
  | "IO"
  | "CONFIG_INVALID"
  | "MODEL_INVALID"
  | "WEIGHTS_CORRUPT"
  | "TENSOR_MISSING"
  | "TENSOR_SHAPE"
  | "TENSOR_DTYPE"
  | "TOKENIZER_INVALID"
  | "TOKENIZER_MISSING"
  | "CHAT_TEMPLATE_INVALID"
  | "VOCABULARY_MISMATCH"
  | "UNSUPPORTED_MODEL"
  | "UNSUPPORTED_DTYPE"
  | "UNSUPPORTED_DEVICE"
  | "INDEX_INVALID"
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
  /**
   * Where one of several inputs of a call is at fault: which one, from 0. A prompt of `generate()`, a text of `score()`
   * or of a task, a row of a task's stream; of `rerank()` with one query, a document. The message begins with it.
   */
  declare readonly index?: number;
  /** The message without the index. */
  #plain: string;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions & { retryAfterMs?: number }) {
    super(message, options);
    this.code = code;
    this.#plain = message;
    if (options?.retryAfterMs !== undefined) this.retryAfterMs = options.retryAfterMs;
  }

  /** @internal The same error of input `index`, or of the only one: then nothing says which. */
  at(index: number | undefined, what = "Input"): CandlewickError {
    const { code, cause, retryAfterMs } = this;
    const message = index === undefined ? this.#plain : `${what} ${index}: ${this.#plain}`;
    const moved = new CandlewickError(code, message, { retryAfterMs, ...(cause !== undefined && { cause }) });
    moved.#plain = this.#plain;
    return index === undefined ? moved : Object.assign(moved, { index });
  }

  /**
   * The HTTP status that fits the code: 4xx if the caller is at fault, 429 if it is to wait, 499 for an abort, else
   * 5xx.
   */
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
  CHAT_TEMPLATE_MISSING: 400,
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
  QUEUE_FULL: 429,
  OUT_OF_MEMORY: 400,
  DEVICE_LOST: 503,
  MODEL_CLOSED: 503,
};

/** The error of an operation that `signal` ended; its `cause` is the signal's reason. */
export function abortError(signal: AbortSignal): CandlewickError {
  return new CandlewickError("ABORTED", "The operation was aborted", { cause: signal.reason });
}

/**
 * What `running` gives; of an error that is one input's, `place` says which of the caller's inputs that is, from its
 * place among those that were handed on. Undefined: the caller has one alone.
 */
export async function withPlaces<T>(running: Promise<T>, place: (index: number) => number | undefined): Promise<T> {
  try {
    return await running;
  } catch (error) {
    if (error instanceof CandlewickError && error.index !== undefined) throw error.at(place(error.index));
    throw error;
  }
}

/** What the native side threw (an `Error` with a `code` of ours), as a {@link CandlewickError}. */
export function fromNative(error: unknown): CandlewickError {
  if (error instanceof CandlewickError) return error;
  const { code, message, retryAfterMs, index } = error as { code?: unknown; message?: unknown; retryAfterMs?: number; index?: number };
  if (typeof code === "string" && /^[A-Z][A-Z0-9_]+$/.test(code)) {
    const plain = new CandlewickError(code as ErrorCode, String(message), { retryAfterMs });
    return index === undefined ? plain : plain.at(index);
  }
  return new CandlewickError("INTERNAL", `Unexpected error in the native addon: ${String(message)}`, { cause: error });
}
