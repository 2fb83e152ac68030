/**
 * The body of a request as a JSON object. Stricter than `JSON.parse`: bytes that are no UTF-8, a key that is there
 * twice and nesting beyond what any request has are refused, for two readers of such a body may see two requests.
 */
import { ApiError, invalid, shorten, unavailable } from "./errors.js";

export type Json = Record<string, unknown>;

const DEPTH = 32;

/** Bytes that bodies may still take, of all requests together. */
export interface BodyBudget {
  left: number;
}

export interface BodyLimits {
  readonly budget: BodyBudget;
  readonly maxBytes: number;
  /** For all of the body to come. */
  readonly timeoutMs: number;
}

export async function readJson(request: Request, limits: BodyLimits): Promise<Json> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new ApiError(415, 'The content-type must be "application/json".', { code: "unsupported_media_type" });
  }
  const encoding = request.headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity") {
    throw new ApiError(415, "A body with a content-encoding is not read.", { code: "unsupported_media_type" });
  }
  return parse(await readBytes(request, limits));
}

const tooLarge = (maxBytes: number) =>
  new ApiError(413, `The body has more than ${maxBytes} bytes.`, { code: "request_too_large" });

async function readBytes(request: Request, { budget, maxBytes, timeoutMs }: BodyLimits): Promise<Uint8Array> {
  const stated = Number(request.headers.get("content-length") ?? 0);
  if (stated > maxBytes) throw tooLarge(maxBytes);
  if (!request.body) throw invalid("The body is empty.", undefined, "invalid_json");
  const reader = request.body.getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  let late = false;
  let taken = 0;
  const timer = setTimeout(() => {
    late = true;
    reader.cancel().catch(() => {});
  }, timeoutMs);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (late) throw new ApiError(408, "The body did not come in time.", { code: "request_timeout", headers: { connection: "close" } });
      if (done) break;
      if ((size += value.byteLength) > maxBytes) {
        reader.cancel().catch(() => {});
        throw tooLarge(maxBytes);
      }
      budget.left -= value.byteLength;
      taken += value.byteLength;
      if (budget.left < 0) {
        reader.cancel().catch(() => {});
        throw unavailable("Too much is being sent to the server at present.", "server_busy");
      }
      parts.push(value);
    }
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(400, "The body was cut off.", { code: "invalid_json" });
  } finally {
    clearTimeout(timer);
    budget.left += taken;
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function parse(bytes: Uint8Array): Json {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw invalid("The body is not UTF-8.", undefined, "invalid_json");
  }
  checkKeys(text);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw invalid("The body is not JSON.", undefined, "invalid_json");
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw invalid("The body must be a JSON object.", undefined, "invalid_json");
  }
  return json as Json;
}

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];

/**
 * Refuses a second value for a key, and deep nesting. Reads strings and brackets alone: what is no JSON for another
 * reason is found by `JSON.parse`.
 */
function checkKeys(text: string): void {
  /** Of each open bracket: the keys of an object so far, or `undefined` for a list. */
  const open: (Set<string> | undefined)[] = [];
  /** A string that comes now is a key. */
  let expectsKey = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE: {
        const end = endOfString(text, at + 1);
        const keys = open.at(-1);
        if (expectsKey && keys) {
          const key = plain(text.slice(at, end + 1));
          if (keys.has(key)) throw invalid(`The key ${shorten(key)} is there twice.`, key.slice(0, 64), "duplicate_key");
          keys.add(key);
        }
        at = end;
        break;
      }
      case OPEN_OBJECT:
      case OPEN_LIST:
        expectsKey = text.charCodeAt(at) === OPEN_OBJECT;
        if (open.push(expectsKey ? new Set() : undefined) > DEPTH) {
          throw invalid(`The body is nested more than ${DEPTH} deep.`, undefined, "invalid_json");
        }
        break;
      case CLOSE_OBJECT:
      case CLOSE_LIST:
        open.pop();
        expectsKey = false;
        break;
      case COMMA:
        expectsKey = open.at(-1) !== undefined;
        break;
      case COLON:
        expectsKey = false;
        break;
    }
  }
}

/** The index of the quote that ends a string; the text's length if none does. */
function endOfString(text: string, from: number): number {
  for (let at = text.indexOf('"', from); at !== -1; at = text.indexOf('"', at + 1)) {
    let slashes = 0;
    while (text.charCodeAt(at - 1 - slashes) === BACKSLASH) slashes++;
    if (slashes % 2 === 0) return at;
  }
  return text.length;
}

function plain(literal: string): string {
  if (!literal.includes("\\")) return literal.slice(1, -1);
  try {
    return JSON.parse(literal) as string;
  } catch {
    return literal;
  }
}
