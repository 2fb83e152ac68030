/** Token streams as web streams and responses, and as Node's. */
import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream as NodeWebStream } from "node:stream/web";
import { type CandlewickError, fromNative } from "./errors.js";
import { completionEvents } from "./openai/completion.js";
import { errorBody, retryHeaders } from "./openai/errors.js";
import { DONE, event, EVENT_HEADERS, eventStream } from "./openai/events.js";
import { CompletionReport } from "./openai/logprobs.js";
import { type Check, checkOptions, checks, invalid, type OptionTable } from "./options.js";
import { publicName } from "./public-name.js";
import type { TokenStream } from "./stream.js";
import type { GenerationResult, Token } from "./types.js";

/**
 * - `"text"`: the generated text.
 * - `"sse"`: server-sent events, each a `text_completion` chunk as OpenAI's API sends it, the last one with counts of
 *   tokens, then `data: [DONE]`; a comment after 5 s of silence. `text_offset` of log-probabilities counts from the
 *   continuation's beginning. An error after the first byte is an event with an `error` of `{message, type, param,
 *   code}`, and no `[DONE]`; the message is the error's if the request was at fault, else the code.
 */
export type StreamFormat = "text" | "sse";

export interface ReadableOptions {
  /** Default `"text"`. */
  format?: StreamFormat;
}

export interface ResponseOptions extends ReadableOptions {
  /** HTTP status; default 200. */
  status?: number;
  /** Added to the format's own headers, or put in their place. */
  headers?: ConstructorParameters<typeof Headers>[0];
}

/** Statuses of responses without a body, which `Response` refuses beside a stream. */
const BODILESS: readonly unknown[] = [204, 205, 304];
const status: Check = (value) =>
  checks.integer(200, 599)(value) ?? (BODILESS.includes(value) ? "must be the status of a response with a body" : undefined);

const FORMAT = checks.oneOf("text", "sse");
const readableOptions: OptionTable<ReadableOptions> = { format: FORMAT };
const responseOptions: OptionTable<ResponseOptions> = {
  format: FORMAT,
  status,
  headers: (value) => (typeof value === "object" && value !== null ? undefined : "must be headers"),
};

const HEADERS: Record<StreamFormat, Record<string, string>> = {
  text: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  sse: EVENT_HEADERS,
};

/** @internal What is wrong with the options is thrown at once; what is wrong with the prompt becomes a response. */
export function toResponse(stream: TokenStream, model: string, options: ResponseOptions = {}): Promise<Response> {
  const head = headOf("toResponse", options);
  const body = toReadable(stream, model, { format: head.format });
  return stream.accepted.then(
    () => new Response(body, head),
    (error) => refusal(fromNative(error)),
  );
}

/** @internal Never rejects: what goes wrong is in the response, and in `stream.result`. */
export async function pipeTo(
  stream: TokenStream,
  model: string,
  response: ServerResponse | Http2ServerResponse,
  options: ResponseOptions = {},
): Promise<GenerationResult | undefined> {
  const { format, status, headers } = headOf("pipeTo", options);
  const body = toNodeStream(stream, model, { format });
  const leave = () => stream.cancel();
  response.once("close", leave);
  if (response.destroyed) leave();
  try {
    await stream.accepted;
    if (!response.headersSent) (response as ServerResponse).writeHead(status, nodeHeaders(headers)).flushHeaders();
    await pipeline(body, response as ServerResponse);
  } catch (error) {
    await refuse(response, fromNative(error));
  } finally {
    response.off("close", leave);
  }
  return stream.result.catch(() => undefined);
}

async function refuse(response: ServerResponse | Http2ServerResponse, error: CandlewickError): Promise<void> {
  if (response.headersSent || response.destroyed) return void response.destroy();
  const { status, headers } = refusal(error);
  (response as ServerResponse).writeHead(status, nodeHeaders(headers));
  await new Promise<void>((resolve) => response.end(JSON.stringify(errorBody(error)), () => resolve()));
}

/** The response to a request that cannot be answered by a stream, in the form that OpenAI's API has. */
function refusal(error: CandlewickError): Response {
  const { httpStatus: status, retryAfterMs } = error;
  const headers = { "cache-control": "no-store", ...(retryAfterMs !== undefined && retryHeaders(retryAfterMs)) };
  return Response.json(errorBody(error), { status, headers });
}

/** `set-cookie` may be there several times. */
const nodeHeaders = (headers: Headers): Record<string, string | string[]> => {
  const all: Record<string, string | string[]> = Object.fromEntries(headers);
  const cookies = headers.getSetCookie();
  return cookies.length > 0 ? { ...all, "set-cookie": cookies } : all;
};

/** Status and headers of a response that streams. */
function headOf(where: string, options: ResponseOptions): { format: StreamFormat; status: number; headers: Headers } {
  const { format = "text", status = 200, headers } = checkOptions(where, options, responseOptions);
  const all = new Headers({ "cache-control": "no-cache, no-transform", ...HEADERS[format] });
  const own = headersOf(where, headers);
  for (const name of own.keys()) all.delete(name);
  own.forEach((value, name) => all.append(name, value));
  return { format, status, headers: all };
}

function headersOf(where: string, headers: ResponseOptions["headers"]): Headers {
  try {
    return new Headers(headers);
  } catch (error) {
    throw invalid(where, "headers", `must be headers (${(error as Error).message})`, headers);
  }
}

/** @internal One chunk is read ahead, no more: what is read has been computed. */
export function toNodeStream(stream: TokenStream, model: string, options: ReadableOptions = {}): Readable {
  return Readable.fromWeb(toReadable(stream, model, options) as NodeWebStream<Uint8Array>, { highWaterMark: 1 });
}

/** @internal */
export function toReadable(stream: TokenStream, model: string, options: ReadableOptions = {}): ReadableStream<Uint8Array> {
  const { format } = checkOptions("toReadable", options, readableOptions);
  const tokens = stream[Symbol.asyncIterator]();
  // Not a generator's own `return()`: that would wait for the token that a pending read waits for.
  const cancel = () => tokens.return();
  // A text has no place for a comment.
  return format === "sse" ? eventStream(events(tokens, model), { cancel }) : eventStream(text(tokens), { cancel, keepAliveMs: 0 });
}

async function* text(tokens: TokenStream): AsyncGenerator<string, void> {
  for (;;) {
    const { value: token, done } = await tokens.next();
    if (done) return;
    // A token whose bytes begin a character has no text yet.
    if (token.text) yield token.text;
  }
}

async function* events(tokens: TokenStream, source: string): AsyncGenerator<string, void> {
  const created = Math.floor(Date.now() / 1000);
  const head = { id: `cmpl-${randomUUID()}`, object: "text_completion", created, model: publicName(source) };
  const reports = new Map<number, CompletionReport>();
  const report = async (sequence: number, reported: readonly Token[]) => {
    const known = reports.get(sequence) ?? new CompletionReport(await tokens.vocabulary!(), 0);
    reports.set(sequence, known);
    return known.of(reported);
  };
  try {
    yield* completionEvents(tokens, { head, usage: true, ...(tokens.vocabulary && { report }) });
    yield DONE;
  } catch (error) {
    yield event(errorBody(fromNative(error)));
  }
}
