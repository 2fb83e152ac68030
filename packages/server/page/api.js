// The server's API, as the page uses it.
import { createParser } from "./eventsource-parser.js";

/**
 * The server may be mounted anywhere: its root is the folder above this file's. A browser keeps a name and key that
 * stood in the page's address, and refuses requests to an address that has them.
 */
const root = new URL("../", import.meta.url);
root.username = root.password = "";

/** What the server says is wrong. */
export class Refusal extends Error {
  constructor({ message, code, param }, retryAfterMs) {
    super(message);
    this.code = code ?? "unknown";
    this.param = param ?? undefined;
    this.retryAfterMs = retryAfterMs;
  }
}

/** That it cannot be heard: said in the page's words. */
class Unreachable extends Error {
  key = "unreachable";
  code = "unreachable";
}

/** That the page's own fields cannot be sent. */
export class FieldError extends Error {
  code = "field";
  constructor(param, key, values) {
    super(key);
    Object.assign(this, { param, key, values });
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, root), options);
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new Unreachable();
  }
  if (response.ok) return response;
  const unread = { message: `HTTP ${response.status}`, code: String(response.status) };
  const { error = unread } = await response.json().catch(() => ({}));
  const wait = response.headers.get("retry-after-ms") ?? 1_000 * response.headers.get("retry-after");
  throw new Refusal(error, Number(wait) > 0 ? Number(wait) : undefined);
}

export const get = async (path, signal) => (await request(path, { signal })).json();
export const getText = async (path, signal) => (await request(path, { signal })).text();

const sent = (body, signal) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
export const post = async (path, body, signal) => (await request(path, sent(body, signal))).json();

/** The events of a stream, until it says that it is done. @throws {Refusal} An error among the events. */
export async function* stream(path, body, signal) {
  const response = await request(path, sent(body, signal));
  const events = [];
  const parser = createParser({ onEvent: ({ data }) => events.push(data) });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      // An answer that has no end was cut off on its way.
      if (done) throw new Unreachable();
      parser.feed(value);
      for (const data of events.splice(0)) {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refusal(event.error);
        yield event;
      }
    }
  } catch (error) {
    if (signal.aborted || error.code !== undefined) throw error;
    throw error instanceof TypeError ? new Unreachable() : error;
  }
}
