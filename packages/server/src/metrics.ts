/**
 * What `/metrics` shows, in Prometheus' text format: counts and times of requests, and the models' own `stats()` as
 * they are when it is read. The gauges of waiting and running requests, of the cache and of adapters are those of the
 * Gateway API Inference Extension's model server protocol (proposal 003). The number of series depends on the models
 * alone, never on what is asked.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { GenerationResult } from "candlewick";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { isGenerator, type Models, type ServedModel } from "./models.js";

/** How a request ended. */
export type Outcome = "completed" | "client_closed" | "rejected" | "failed" | "ended_by_drain";

const LATENCIES = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const INTERVALS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2, 0.5, 1];

/** Of a model: the sums of its generations, and what it is doing. */
interface Reading {
  readonly name: string;
  readonly help: string;
  readonly counter?: boolean;
  /** `undefined`: not of this kind of model. */
  read(model: ServedModel): number | undefined;
}

const generators = (read: (stats: ReturnType<Extract<ServedModel, { generate: unknown }>["stats"]>) => number) => (model: ServedModel) =>
  isGenerator(model) ? read(model.stats()) : undefined;

const READINGS: readonly Reading[] = [
  { name: "requests_running", help: "Sequences (of a BERT: calls) that run.", read: (model) => model.stats().running },
  { name: "requests_waiting", help: "Prompts (of a BERT: texts) that have not started.", read: (model) => model.stats().waiting },
  { name: "queued_tokens", help: "Tokens that have not started.", read: (model) => model.stats().queuedTokens },
  { name: "kv_blocks", help: "Blocks of memory for keys and values.", read: generators(({ blocks }) => blocks) },
  { name: "kv_block_positions", help: "Positions of a block.", read: generators(({ blockPositions }) => blockPositions) },
  {
    name: "kv_cache_usage_ratio",
    help: "Share of the blocks that running sequences use; kept prefixes count as free.",
    read: generators(({ blocks, freeBlocks, prefixBlocks }) => Math.max(0, blocks - freeBlocks - prefixBlocks) / Math.max(1, blocks)),
  },
  { name: "prefix_tokens_asked_total", help: "Tokens of all prompts that started.", counter: true, read: generators(({ promptTokens }) => promptTokens) },
  { name: "prefix_tokens_hit_total", help: "Those of them that were computed before.", counter: true, read: generators(({ cachedTokens }) => cachedTokens) },
  { name: "pauses_total", help: "How often a sequence waited for memory.", counter: true, read: generators(({ pauses }) => pauses) },
  { name: "steps_total", help: "Passes over the weights.", counter: true, read: (model) => model.stats().steps.count },
  { name: "step_seconds_total", help: "Time in steps.", counter: true, read: (model) => model.stats().steps.totalMs / 1_000 },
  { name: "step_tokens_total", help: "Tokens of all steps.", counter: true, read: (model) => model.stats().steps.totalTokens },
  { name: "step_sequences_total", help: "Sequences of all steps, summed.", counter: true, read: generators(({ steps }) => steps.totalSequences) },
];

export class Metrics {
  readonly #registry = new Registry();
  readonly #requests: Counter;
  readonly #rejections: Counter;
  readonly #tokens: Counter;
  readonly #duration: Histogram;
  readonly #firstToken: Histogram;
  readonly #interval: Histogram;
  readonly #queued: Histogram;
  readonly #adapters = new Map<string, number>();

  constructor(models: Models) {
    const own = <Kind extends Counter | Gauge | Histogram>(metric: Kind): Kind => {
      this.#registry.registerMetric(metric);
      return metric;
    };
    const named = (name: string, help: string, labelNames: string[]) => ({ name: `candlewick_${name}`, help, labelNames, registers: [] });
    const histogram = (name: string, help: string, buckets: number[]) => own(new Histogram({ ...named(`${name}_seconds`, help, ["model"]), buckets }));
    this.#requests = own(new Counter(named("requests_total", "Requests by how they ended.", ["model", "outcome"])));
    this.#rejections = own(new Counter(named("rejections_total", "Requests that were not taken on, by their error's status.", ["status"])));
    this.#tokens = own(new Counter(named("tokens_total", "Tokens of prompts, of prompts that were computed before, and generated ones.", ["model", "kind"])));
    this.#duration = histogram("request", "From a request to its answer's end.", LATENCIES);
    this.#firstToken = histogram("time_to_first_token", "From a request to its first token.", LATENCIES);
    this.#interval = histogram("inter_token", "Between two pieces of a streamed answer.", INTERVALS);
    this.#queued = histogram("queue", "From a request to the first step that computes it.", LATENCIES);
    for (const { name, help, counter, read } of READINGS) {
      const settings = {
        ...named(name, help, ["model"]),
        collect(this: Gauge | Counter) {
          this.reset();
          for (const [label, model] of models.loaded()) {
            const value = readOpen(read, model);
            if (value !== undefined) (this as Gauge).inc({ model: label }, value);
          }
        },
      };
      own(counter ? new Counter(settings) : new Gauge(settings));
    }
    own(new Gauge(adaptersInfo(named("lora_requests_info", "Adapters that requests are under way for.", ["max_lora", "running_lora_adapters", "waiting_lora_adapters"]), models, this.#adapters)));
    own(new Gauge({ ...named("process_resident_bytes", "Memory of the process.", []), collect(this: Gauge) { this.set(process.memoryUsage.rss()); } }));
    own(new Gauge(loopLag(named("event_loop_lag_p99_seconds", "99th percentile of the event loop's delay over the last 15 to 30 seconds.", []))));
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  rejected(status: number): void {
    this.#rejections.inc({ status });
  }

  ended(model: string, outcome: Outcome, seconds: number): void {
    this.#requests.inc({ model, outcome });
    if (outcome === "completed") this.#duration.observe({ model }, seconds);
  }

  firstToken(model: string, seconds: number): void {
    this.#firstToken.observe({ model }, seconds);
  }

  /** Counts a token of a model, and the seconds since the one before. */
  token(model: string): (seconds?: number) => void {
    // Found once for a stream: by their labels' names it would cost more than the rest of a token.
    const tokens = this.#tokens.labels(model, "completion");
    const interval = this.#interval.labels(model);
    return (seconds) => {
      tokens.inc();
      if (seconds !== undefined) interval.observe(seconds);
    };
  }

  /** `uncounted`: the completion's tokens that were not counted as they came. */
  generated(model: string, { usage, timings }: Pick<GenerationResult, "usage" | "timings">, uncounted: number): void {
    this.#queued.observe({ model }, timings.queuedMs / 1_000);
    this.#tokens.inc({ model, kind: "prompt" }, usage.promptTokens);
    this.#tokens.inc({ model, kind: "cached" }, usage.cachedTokens);
    this.#tokens.inc({ model, kind: "completion" }, Math.max(0, uncounted));
  }

  read(model: string, tokens: number): void {
    this.#tokens.inc({ model, kind: "prompt" }, tokens);
  }

  /** A request for an adapter is under way; returns what says that it has ended. */
  adapter(name: string): () => void {
    this.#adapters.set(name, (this.#adapters.get(name) ?? 0) + 1);
    return () => {
      const left = this.#adapters.get(name)! - 1;
      if (left > 0) this.#adapters.set(name, left);
      else this.#adapters.delete(name);
    };
  }
}

interface Named {
  readonly name: string;
  readonly help: string;
  readonly labelNames: string[];
  readonly registers: Registry[];
}

const adaptersInfo = (named: Named, models: Models, running: ReadonlyMap<string, number>) => ({
  ...named,
  collect(this: Gauge) {
    this.reset();
    const all = models.entries.filter(({ adapter }) => adapter !== undefined).length;
    if (all > 0) this.set({ max_lora: all, running_lora_adapters: Array.from(running.keys()).sort().join(), waiting_lora_adapters: "" }, 1);
  },
});

const LAG_WINDOW_MS = 15_000;

/** However often it is read, and by how many. */
function loopLag(named: Named) {
  const resolution = 10;
  let [before, current] = [startDelay(resolution), startDelay(resolution)];
  setInterval(() => {
    before.disable();
    [before, current] = [current, startDelay(resolution)];
  }, LAG_WINDOW_MS).unref();
  return {
    ...named,
    collect(this: Gauge) {
      // A delay is measured together with the resolution.
      this.set(Math.max(0, before.percentile(99) / 1e9 - resolution / 1_000) || 0);
    },
  };
}

function startDelay(resolution: number) {
  const delay = monitorEventLoopDelay({ resolution });
  delay.enable();
  return delay;
}

/** A model that was closed has nothing to read. */
function readOpen(read: Reading["read"], model: ServedModel): number | undefined {
  try {
    return read(model);
  } catch {
    return undefined;
  }
}
