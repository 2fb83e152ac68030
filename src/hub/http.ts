/** Requests to the hub: redirects, the token, time limits, what a status means, and trying again. */
import { setTimeout as sleep } from "node:timers/promises";
import { abortError, CandlewickError } from "../errors.js";
import type { HubSettings } from "./settings.js";

export interface Connection {
  readonly settings: HubSettings;
  /** The model asked for, for messages. */
  readonly model: string;
  readonly signal: AbortSignal | undefined;
}

export interface Reply {
  readonly url: URL;
  readonly status: number;
  readonly headers: Headers;
  body(): AsyncGenerator<Uint8Array>;
  discard(): void;
}

export interface RequestOptions {
  readonly method?: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  /** Milliseconds without a byte; the download's limit unless given. */
  readonly timeout?: number;
  /** Ends the following of redirects at a reply that already says what is wanted, though it leads to `next`. */
  readonly until?: (reply: Reply, next: URL) => boolean;
  /** The address may be one that was signed for a short time: a refusal by another host only means it is too late. */
  readonly signed?: boolean;
}

/** A failure that another try may not meet: no answer, a cut body, 429, 5xx. */
export class Transient extends Error {
  /** Set if much arrived before it: then it does not count towards the limit of failures. */
  progressed = false;
  /** Milliseconds to wait, if the server said. */
  retryAfter: number | undefined;
}

const MAX_REDIRECTS = 5;
export const MAX_FAILURES = 5;
/** Milliseconds. Tests do not wait that long. */
export const pauses = { first: 250, longest: 30_000 };

/** One request. The token goes to the endpoint's own origin and to no other, whatever redirects say. */
export async function request(connection: Connection, address: URL, options: RequestOptions = {}): Promise<Reply> {
  const { token } = connection.settings;
  const { origin } = new URL(connection.settings.endpoint);
  let url = address;
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const authorization = token && url.origin === origin ? { authorization: `Bearer ${token}` } : undefined;
    // Compressed, a file's length and its ranges would not be the file's own.
    const headers = { "user-agent": "candlewick", "accept-encoding": "identity", ...options.headers, ...authorization };
    const reply = await send(connection, url, { ...options, headers });
    const location = reply.status >= 300 && reply.status < 400 ? reply.headers.get("location") : null;
    if (location === null) {
      if (reply.status < 300) return reply;
      reply.discard();
      throw refusal(connection, reply, options.signed === true);
    }
    const next = redirected(connection, url, location);
    if (options.until?.(reply, next)) return reply;
    reply.discard();
    url = next;
  }
  throw new CandlewickError("DOWNLOAD_FAILED", `"${connection.model}": more than ${MAX_REDIRECTS} redirects from ${address.host}`);
}

/** Where a redirect leads. One from https to http is refused. */
export function redirected(connection: Connection, from: URL, location: string): URL {
  const url = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  if (url && (url.protocol === "https:" || (url.protocol === "http:" && from.protocol === "http:"))) return url;
  throw new CandlewickError("DOWNLOAD_FAILED", `"${connection.model}": ${from.host} redirects to ${JSON.stringify(location)}`);
}

async function send(connection: Connection, url: URL, options: RequestOptions): Promise<Reply> {
  const { signal } = connection;
  if (signal?.aborted) throw abortError(signal);
  const timeout = options.timeout ?? connection.settings.stallTimeout;
  const controller = new AbortController();
  const aborted = (): void => controller.abort(signal?.reason);
  signal?.addEventListener("abort", aborted, { once: true });
  const stalled = (): void => controller.abort(new Error(`nothing came for ${timeout / 1000} s`));
  let timer = setTimeout(stalled, timeout);
  const end = (): void => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", aborted);
  };
  const failed = (error: unknown): Error => {
    end();
    if (signal?.aborted) return abortError(signal);
    return new Transient(`${url.host}: ${reasonOf(error)}`, { cause: error });
  };

  const init = { method: options.method ?? "GET", headers: options.headers, signal: controller.signal };
  const response = await fetch(url, { ...init, redirect: "manual" }).catch((error) => {
    throw failed(error);
  });
  clearTimeout(timer);

  async function* body(): AsyncGenerator<Uint8Array> {
    try {
      timer = setTimeout(stalled, timeout);
      for await (const chunk of response.body ?? []) {
        // The time that the reader takes for a chunk does not count as the server's delay.
        clearTimeout(timer);
        yield chunk;
        timer = setTimeout(stalled, timeout);
      }
    } catch (error) {
      throw failed(error);
    } finally {
      end();
    }
  }
  const discard = (): void => {
    end();
    controller.abort();
  };
  return { url, status: response.status, headers: response.headers, body, discard };
}

/** `fetch` says "fetch failed" and keeps what happened in `cause`. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as { message?: unknown; cause?: { message?: string; code?: string } };
  return cause?.message || cause?.code || String(message ?? error);
}

function refusal(connection: Connection, reply: Reply, signed: boolean): Error {
  const { model, settings } = connection;
  const { status, headers, url } = reply;
  const said = headers.get("x-error-message")?.slice(0, 200);
  const what = `${url.host} answered ${status}${said ? ` (${said})` : ""}`;
  const elsewhere = url.origin !== new URL(settings.endpoint).origin;
  if (status === 408 || status === 429 || status >= 500 || (signed && elsewhere)) {
    const error = new Transient(what);
    const seconds = Number(headers.get("retry-after") ?? Number.NaN);
    if (seconds >= 0) error.retryAfter = seconds * 1000;
    return error;
  }
  const withToken = settings.token ? "the token in use" : "HF_TOKEN";
  // The hub answers 401 rather than 404 to who may not know whether a private model exists.
  if (status === 404 || headers.get("x-error-code") === "RepoNotFound") {
    return new CandlewickError(
      "MODEL_NOT_FOUND",
      `No such model, revision or file at the hub: "${model}" (${what}). If it is private, ${withToken} must have access to it`,
    );
  }
  if (status === 401 || status === 403) {
    return new CandlewickError(
      "MODEL_GATED",
      `No access to the hub's model "${model}" (${what}). Accept its terms at ${settings.endpoint}/${model}, ` +
        `and see that ${withToken} belongs to who did`,
    );
  }
  return new CandlewickError("DOWNLOAD_FAILED", `"${model}": ${what}`);
}

/** Runs `attempt` until it does not fail with {@link Transient}, at most `limit` times in a row without progress. */
export async function retrying<T>(connection: Connection, limit: number, attempt: () => Promise<T>): Promise<T> {
  for (let failures = 0; ; ) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Transient)) throw error;
      failures = error.progressed ? 1 : failures + 1;
      if (failures >= limit) {
        const message = `Could not download "${connection.model}": ${error.message}`;
        throw new CandlewickError("DOWNLOAD_FAILED", message, { cause: error });
      }
      const backoff = pauses.first * 2 ** (failures - 1) * (1 + Math.random() / 4);
      await pause(Math.min(error.retryAfter ?? backoff, pauses.longest), connection.signal);
    }
  }
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return sleep(milliseconds, undefined, { signal }).catch((error) => {
    throw signal?.aborted ? abortError(signal) : error;
  });
}
