/** Errors as OpenAI's API sends them: a status, and `{error: {message, type, param, code}}`. */
import { randomBytes } from "node:crypto";
import type { CandlewickError } from "candlewick";
import { errorBody, type ErrorBody, retryHeaders } from "candlewick/openai";

export interface ApiErrorFields {
  readonly code: string;
  /** The field of the request that is wrong. */
  readonly param?: string;
  /** Default: by the status. */
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What a request is answered with if it is not done. */
export class ApiError extends Error {
  readonly status: number;
  readonly body: ErrorBody;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, { code, param, type = typeOf(status), headers = {} }: ApiErrorFields) {
    super(message);
    this.status = status;
    this.headers = headers;
    this.body = { error: { message, type, param: param ?? null, code } };
  }

  get code(): string {
    return this.body.error.code!;
  }
}

function typeOf(status: number): string {
  if (status === 429) return "rate_limit_error";
  if (status === 401 || status === 403) return "authentication_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

export const newRequestId = (): string => `req_${randomBytes(12).toString("hex")}`;

export const invalid = (message: string, param?: string, code = "invalid_value"): ApiError =>
  new ApiError(400, message, { code, param });

export const unsupported = (param: string, why = "is not supported by this server"): ApiError =>
  invalid(`"${param}" ${why}.`, param, "unsupported_parameter");

export const modelNotFound = (id: string, has = "does not exist"): ApiError =>
  new ApiError(404, `The model ${shorten(id)} ${has}.`, { code: "model_not_found", param: "model" });

export function contextExceeded(prompt: number, asked: number, positions: number, param: string): ApiError {
  const message = `This model has ${positions} positions; the request has ${prompt} tokens and asks for ${asked} more.`;
  return invalid(message, param, "context_length_exceeded");
}

/** Names that a request chose are shown, but not at any length. */
export const shorten = (text: string): string => JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text);

/** Too much is asked of the server at present. The wait has some jitter, so that not all who wait come at once. */
export function busy(message: string, retryAfterMs: number, code = "rate_limit_exceeded"): ApiError {
  return new ApiError(429, message, { code, headers: retryHeaders(retryAfterMs * (1 + 0.1 * Math.random())) });
}

export const unavailable = (message: string, code: string): ApiError =>
  new ApiError(503, message, { code, headers: retryHeaders(5_000) });

/** Also of another copy of the library than this package's own. */
const isOfCandlewick = (error: unknown): error is CandlewickError =>
  error instanceof Error && typeof (error as CandlewickError).code === "string" && typeof (error as CandlewickError).httpStatus === "number";

export interface ErrorPlace {
  /** The request's field that holds the texts. */
  readonly field?: string;
  /** Where the model was loaded from, which no client learns, and the name that it has in requests. */
  readonly source?: string;
  readonly name?: string;
}

/** The library's names of options, and the fields that they are made of. */
const FIELDS: Readonly<Record<string, string>> = {
  badWords: "bad_words",
  logitBias: "logit_bias",
  maxNewTokens: "max_tokens",
  minNewTokens: "min_tokens",
  noRepeatNgramSize: "no_repeat_ngram_size",
  stopTokenIds: "stop_token_ids",
  stop: "stop",
};
const OPTION = new RegExp(`\\b(${Object.keys(FIELDS).join("|")})\\b`);

/** Whatever was thrown. */
export function apiError(error: unknown, { field, source = "", name = "this model" }: ErrorPlace = {}): ApiError {
  if (error instanceof ApiError) return error;
  if (!isOfCandlewick(error)) return new ApiError(500, "Internal error.", { code: "internal_error" });
  if (error.code === "QUEUE_FULL") return busy("The queue of this model is full.", error.retryAfterMs ?? 1_000);
  const { message: whole, type, code } = errorBody(error).error;
  const message = source === "" ? whole : whole.replaceAll(source, name);
  const { index } = error;
  if (error.code === "TASK_UNSUPPORTED" || error.code === "CHAT_TEMPLATE_MISSING") return invalid(message, "model", code!);
  const option = error.code === "OPTION_INVALID" ? OPTION.exec(message)?.[1] : undefined;
  if (option !== undefined) return invalid(message.replace(option, FIELDS[option]!), FIELDS[option]);
  const param = field !== undefined && error.httpStatus === 400 ? (index === undefined ? field : `${field}[${index}]`) : undefined;
  return new ApiError(error.httpStatus, message, { code: code!, type, param });
}
