/** The server as a function from a web `Request` to a `Response`, which any framework can mount. */
import { createApp } from "./app.js";
import { Core, type HandlerOptions } from "./core.js";
import { unavailable } from "./errors.js";

export interface Handler {
  (request: Request): Promise<Response>;
  /** Prometheus' text, as `/metrics` has it. */
  metrics(): Promise<string>;
  /** Requests that are under way. */
  readonly working: number;
  /**
   * Takes nothing on any more: `/readyz` fails, new requests are answered with 503. Resolves when what is under way has
   * ended; what has not after `graceMs` (default 30,000) is ended, a stream with an event that says why.
   */
  drain(graceMs?: number): Promise<void>;
  /** {@link drain} without a grace. The models stay open: they are their owner's. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface CreateHandlerOptions extends HandlerOptions {
  /** Where the handler is mounted, such as `/ai`. Default `/`. */
  readonly basePath?: string;
}

/**
 * OpenAI's API over models that are loaded:
 *
 * ```ts
 * const handler = createHandler({ models: { gpt2: await loadGPT2("./my-gpt2"), minilm: await loadBERT("./minilm") } });
 * ```
 *
 * It is what Hono, Next.js, Bun and Deno call a fetch handler. Express, Fastify and node:http take it through
 * `getRequestListener` of `@hono/node-server`. Never rejects.
 *
 * @throws {TypeError} Options that cannot be: no models, two of one name, a key without a value.
 */
export function createHandler(options: CreateHandlerOptions): Handler {
  const core = new Core(options);
  const app = createApp(core, options.basePath ?? "/");
  const drain = (graceMs = 30_000) => core.drain(graceMs, unavailable("The server has ended.", "server_draining"));
  const close = () => drain(0);
  const handler = async (request: Request): Promise<Response> => app.fetch(request);
  return Object.defineProperties(Object.assign(handler, { metrics: () => core.metrics.text(), drain, close, [Symbol.asyncDispose]: close }), {
    working: { get: () => core.working },
  }) as Handler;
}
