/** What all routes of a server share: models, callers, what is under way, and whether more may come. */
import type { Logger } from "pino";
import { Access, type ApiKey, type Caller } from "./access.js";
import { Gate } from "./admission.js";
import { ApiError, unavailable } from "./errors.js";
import type { BodyBudget } from "./json.js";
import { Metrics } from "./metrics.js";
import { type Entry, isGenerator, Models, type ServedModel } from "./models.js";
import { MOST_INPUTS } from "./schemas.js";
import { Work } from "./work.js";

export interface HandlerOptions {
  /**
   * Models by the names that requests give: a loaded `GPT2` or `BERT`, or the promise of one, for which `/readyz`
   * waits. Adapters that a `GPT2` was loaded with are models by their own names. Who loaded a model closes it, after
   * the handler.
   */
  readonly models: Readonly<Record<string, ServedModel | Promise<ServedModel>>>;
  /** Keys, one of which each request must have. Default: none are asked for. */
  readonly keys?: readonly ApiKey[];
  /**
   * Whether requests of different keys may share the beginnings of prompts. Then the time to the first token tells one
   * key what another has asked. Default false: prefixes are shared within a key.
   */
  readonly sharePrefixes?: boolean;
  /** Milliseconds of work that may be under way for a model; beyond it requests are refused. Default 10,000. */
  readonly maxWaitMs?: number;
  /** Bytes of a request's body. Default 4 MiB. */
  readonly maxBodyBytes?: number;
  /** Milliseconds for a body to come. Default 30,000. */
  readonly bodyTimeoutMs?: number;
  /** Milliseconds of silence before a stream's comment `: keep-alive`. Default 5,000. */
  readonly keepAliveMs?: number;
  /** Milliseconds after which a client that does not read its stream is cut off. Default 120,000. */
  readonly stallMs?: number;
  /** Milliseconds without a step, with work to do, after which `/livez` fails. Default 30,000. */
  readonly livenessMs?: number;
  /**
   * Whether `/v1/embeddings` takes token ids, which are right only if they are of the model's own tokenizer. Default
   * false.
   */
  readonly allowTokenIds?: boolean;
  /** Whether there is a page at `/`. Default true. */
  readonly page?: boolean;
  /** Gets a line for each request, without its texts. Default: none. */
  readonly log?: Pick<Logger, "info" | "warn" | "error">;
}

/** One request, as far as every route needs to know it. */
export interface Call {
  readonly id: string;
  readonly headers: Headers;
  /** Aborted when the client goes away. */
  readonly left: AbortSignal;
  readonly caller: Caller;
  /** `performance.now()` at its beginning. */
  readonly started: number;
  /** For the log. */
  readonly notes: Record<string, unknown>;
  /** Who asks, and what: equal for a request that is sent again. */
  identity(): string;
}

/** Bytes of all bodies that are being read. */
const BODY_BUDGET = 256 << 20;

export const DEFAULTS = {
  maxWaitMs: 10_000,
  maxBodyBytes: 4 << 20,
  bodyTimeoutMs: 30_000,
  keepAliveMs: 5_000,
  stallMs: 120_000,
  livenessMs: 30_000,
} as const;

/** Sequences of all positions that may be under way at any speed. */
const LEAST_SEQUENCES = 8;
/** Those that one request may ask for. */
const MOST_SEQUENCES = 64;

/** A client that reads has read why its answer ends by then. */
const TOLD_MS = 1_000;

export class Core {
  readonly options: HandlerOptions & typeof DEFAULTS;
  readonly models: Models;
  readonly access: Access;
  readonly metrics: Metrics;
  readonly bodies: BodyBudget = { left: BODY_BUDGET };
  readonly #gates = new Map<string, Gate>();
  readonly #under = new Set<Work>();
  #draining = false;
  readonly #idle: (() => void)[] = [];

  constructor(options: HandlerOptions) {
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    this.options = { ...DEFAULTS, ...given } as HandlerOptions & typeof DEFAULTS;
    this.models = new Models(options.models);
    this.access = new Access(options.keys ?? [], options.sharePrefixes ?? false);
    this.metrics = new Metrics(this.models);
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** Requests that are under way. */
  get working(): number {
    return this.#under.size;
  }

  /** @throws {ApiError} 503 once the server ends. */
  begin(call: Call, operation: string, entry: Entry, attributes: Record<string, unknown> = {}): Work {
    if (this.#draining) throw unavailable("The server is ending.", "server_draining");
    if (call.left.aborted) throw new ApiError(499, "The client has left.", { code: "client_closed" });
    const work = new Work(this, call, operation, entry, attributes, () => {
      this.#under.delete(work);
      if (this.#under.size === 0) for (const told of this.#idle.splice(0)) told();
    });
    this.#under.add(work);
    return work;
  }

  gate(name: string, model: ServedModel): Gate {
    let gate = this.#gates.get(name);
    if (!gate) {
      gate = new Gate({
        maxWaitMs: this.options.maxWaitMs,
        leastTokens: LEAST_SEQUENCES * model.info.positions,
        mostOfOne: (isGenerator(model) ? MOST_SEQUENCES : MOST_INPUTS) * model.info.positions,
        modelSpeed: () => model.stats().steps.tokensPerSecond,
      });
      this.#gates.set(name, gate);
    }
    return gate;
  }

  /**
   * Takes nothing on any more, waits until what is under way has ended, and ends what has not after `graceMs` with
   * `reason`.
   */
  async drain(graceMs: number, reason: ApiError): Promise<void> {
    this.#draining = true;
    if (this.#under.size === 0) return;
    const idle = new Promise<void>((resolve) => this.#idle.push(resolve));
    const timer = setTimeout(() => this.endAll(reason), graceMs);
    await idle;
    clearTimeout(timer);
  }

  /** Ends all that is under way. Clients are told, but not waited for. */
  endAll(reason: ApiError): void {
    this.#draining = true;
    for (const work of this.#under) work.end(reason);
    setTimeout(() => {
      for (const work of this.#under) work.close("ended_by_drain");
    }, TOLD_MS);
  }

  /** The models that stand still although somebody waits for them. */
  stuck(now = performance.now()): string[] {
    const since = new Map<string, number>();
    for (const { entry, waitingSince } of this.#under) {
      if (waitingSince !== undefined) since.set(entry.base, Math.min(since.get(entry.base) ?? Infinity, waitingSince));
    }
    return Array.from(this.models.loaded())
      .filter(([name, model]) => {
        const waited = now - (since.get(name) ?? now);
        return waited > this.options.livenessMs && model.stats().steps.secondsSinceLast * 1_000 > this.options.livenessMs;
      })
      .map(([name]) => name);
  }
}
