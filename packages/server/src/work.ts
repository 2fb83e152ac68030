/** One request from the moment it is taken on until its answer has ended, however it ends. */
import type { Span } from "@opentelemetry/api";
import type { GenerationResult, TokenStream } from "candlewick";
import { event, eventStream, EVENT_HEADERS, type TokenSource } from "candlewick/openai";
import type { Call, Core } from "./core.js";
import { ApiError, apiError } from "./errors.js";
import { type CommonOptions, defined } from "./generation.js";
import type { Outcome } from "./metrics.js";
import type { Entry, ServedModel } from "./models.js";
import { endSpan, startSpan } from "./tracing.js";

export class Work {
  readonly entry: Entry;
  /** Since when the client waits for the model, by `performance.now()`; `undefined` while the model waits for it. */
  waitingSince: number | undefined;
  readonly #core: Core;
  readonly #call: Call;
  readonly #span: Span;
  readonly #controller = new AbortController();
  readonly #closing: ((outcome: Outcome) => void)[] = [];
  /** Tokens that the client has read. */
  #made = 0;
  #ended = false;
  #reason: ApiError | undefined;
  #result: Parameters<typeof endSpan>[1] = {};
  #stream: TokenStream | undefined;

  constructor(core: Core, call: Call, operation: string, entry: Entry, attributes: Record<string, unknown>, closed: () => void) {
    this.#core = core;
    this.#call = call;
    this.entry = entry;
    this.#span = startSpan(operation, entry.id, call.headers, attributes);
    const { left } = call;
    const leave = () => {
      this.#controller.abort(left.reason);
      this.close("client_closed");
    };
    left.addEventListener("abort", leave, { once: true });
    this.#closing.push(closed, () => left.removeEventListener("abort", leave));
    if (entry.adapter !== undefined) this.#closing.push(core.metrics.adapter(entry.adapter));
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** What every generation of this request has: whose it is, and when it ends. */
  get standing(): CommonOptions {
    const { name, scope } = this.#call.caller;
    return defined({ signal: this.signal, client: name, scope, adapter: this.entry.adapter });
  }

  /**
   * Takes its share of what the model may have under way: `tokens`, prompts included.
   *
   * @throws {ApiError} 429 if there is no room now, 400 if there never is.
   */
  async admit(model: ServedModel, tokens: number): Promise<void> {
    const { caller, identity } = this.#call;
    const leave = this.#core.gate(this.entry.base, model).enter(tokens, identity, caller.name);
    // Of an answer that was left, what was made of it is all that is known to be done.
    this.#closing.push((outcome) => leave(outcome === "completed" ? tokens : this.#made));
    await caller.spend(tokens);
  }

  /** Starts to generate, and waits until the prompts are accepted. */
  async start(start: (standing: CommonOptions) => TokenStream): Promise<TokenSource> {
    const stream = start(this.standing);
    this.#stream = stream;
    this.#closing.push(() => stream.cancel());
    this.waitingSince = performance.now();
    await stream.accepted;
    return this.#observed(stream);
  }

  /** `run` is work of another kind than a generation; its time counts as waiting for the model. */
  async run<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.waitingSince = performance.now();
    return run(this.signal);
  }

  /** The stream, and what its reader sees of it in the metrics. */
  #observed(stream: TokenStream): TokenSource {
    const { metrics } = this.#core;
    const { base } = this.entry;
    const { started } = this.#call;
    let before: number | undefined;
    const count = metrics.token(base);
    const arrived = (now: number) => {
      this.#made++;
      count(before === undefined ? undefined : (now - before) / 1_000);
      if (before === undefined) metrics.firstToken(base, (now - started) / 1_000);
      before = now;
    };
    const next = async () => {
      this.waitingSince = performance.now();
      const result = await stream.next();
      this.waitingSince = undefined;
      if (!result.done) arrived(performance.now());
      return result;
    };
    const result = async () => {
      this.waitingSince ??= performance.now();
      const result = await stream.result;
      if (before === undefined) metrics.firstToken(base, result.timings.firstTokenMs / 1_000);
      this.#generated(result);
      return result;
    };
    return {
      next,
      get result() {
        return result();
      },
    };
  }

  #generated(result: GenerationResult): void {
    const { usage, sequences } = result;
    this.#core.metrics.generated(this.entry.base, result, usage.completionTokens - this.#made);
    Object.assign(this.#call.notes, { prompt_tokens: usage.promptTokens, completion_tokens: usage.completionTokens, cached_tokens: usage.cachedTokens });
    this.#result = { usage, finishReasons: sequences.map(({ finishReason }) => finishReason) };
  }

  /** As {@link admit}, for texts whose tokens are known, which will be read. */
  async take(model: ServedModel, tokens: number): Promise<void> {
    await this.admit(model, tokens);
    this.read(tokens);
  }

  /** Tokens of texts that were read. */
  read(tokens: number): void {
    this.#core.metrics.read(this.entry.base, tokens);
    this.#call.notes["prompt_tokens"] = tokens;
  }

  /** Ends it for a reason that its client is told. */
  end(reason: ApiError): void {
    this.#reason ??= reason;
    this.#controller.abort(reason);
  }

  /** What the client is told of an error. */
  failure(error: unknown, field?: string): ApiError {
    const { base, id: name } = this.entry;
    const failure = this.#reason ?? apiError(error, { field, source: this.#core.models.find(base)?.source, name });
    if (failure.status >= 500 && !this.#reason) this.#core.options.log?.error({ request_id: this.#call.id, err: error }, "failed");
    this.close(this.#reason ? "ended_by_drain" : this.#call.left.aborted ? "client_closed" : failure.status < 500 ? "rejected" : "failed", { error: failure.code });
    return failure;
  }

  /** The answer is whole. */
  complete(): void {
    this.close("completed", this.#result);
  }

  /** It has ended; the first time counts. */
  close(outcome: Outcome, ended: Parameters<typeof endSpan>[1] = {}): void {
    if (this.#ended) return;
    this.#ended = true;
    this.waitingSince = undefined;
    this.#call.notes["outcome"] = outcome;
    this.#core.metrics.ended(this.entry.base, outcome, (performance.now() - this.#call.started) / 1_000);
    endSpan(this.#span, outcome === "client_closed" ? { ...ended, error: outcome } : ended);
    for (const close of this.#closing.splice(0)) close(outcome);
  }

  /**
   * A response of server-sent events. An error after its beginning is the last event: `{error}`, or what `failed` makes
   * of it.
   */
  events(events: AsyncGenerator<string, void>, failed: (error: ApiError) => string = ({ body }) => event(body)): Response {
    const told = this.#told(events, failed);
    const { keepAliveMs, stallMs } = this.#core.options;
    const cancel = () => {
      this.#stream?.cancel();
      this.close("client_closed");
    };
    // Its memory is needed by those who read; should it read again, it is told.
    const stalled = () => {
      this.end(new ApiError(408, "The stream was not read in time.", { code: "client_stalled" }));
      this.close("client_closed");
    };
    return new Response(eventStream(told, { cancel, keepAliveMs, stalled, stallMs }), { headers: EVENT_HEADERS });
  }

  async *#told(events: AsyncGenerator<string, void>, failed: (error: ApiError) => string): AsyncGenerator<string, void> {
    try {
      yield* events;
      this.complete();
    } catch (error) {
      yield failed(this.failure(error));
    }
  }
}
