import { abortError, CandlewickError, fromNative } from "../errors.js";
import type { NativeFinetune } from "../native.js";
import { call, mailbox } from "../runtime.js";
import type { DoneEvent, FinetuneEvent } from "./events.js";

interface Waiter {
  resolve(result: IteratorResult<FinetuneEvent, undefined>): void;
  reject(error: unknown): void;
}

/** What runs: the native side, and what to let go of when it has ended. */
export interface Opened {
  readonly native: NativeFinetune;
  close(): Promise<void>;
}

export interface Beginning {
  readonly opened: Promise<Opened>;
  /** Ends the download and the reading of rows that come before a run. */
  readonly opening: AbortController;
  readonly output: string;
  /** The user's. */
  readonly signal: AbortSignal | undefined;
}

/**
 * A training run, which has begun. Iterate its events once, or await {@link result}.
 *
 * The run is some 250 events ahead of its reader at most, then it waits. {@link cancel} has it write a checkpoint and end by the next
 * layer; the events that say so still come. Leaving the loop cancels, and waits for the checkpoint. An aborted signal cancels, and then
 * ends the iteration with code `ABORTED`. A failure is thrown at the reader once and rejects `result`, which is never unhandled.
 */
export class TrainingRun implements AsyncIterable<FinetuneEvent>, AsyncDisposable {
  readonly #opened: Promise<Opened>;
  readonly #opening: AbortController;
  readonly #output: string;
  readonly #signal: AbortSignal | undefined;
  readonly #result: Promise<DoneEvent>;
  #settle!: (result: DoneEvent | Promise<DoneEvent>) => void;
  /** Events that have not been read. */
  #events: FinetuneEvent[] = [];
  #waiters: Waiter[] = [];
  #done: DoneEvent | undefined;
  #ended = false;
  #failure: CandlewickError | undefined;
  #fetching = false;
  #iterated = false;
  /** Nobody reads on, and somebody wants the end. */
  #wanted = false;
  readonly #cancel = () => this.cancel();

  /** @internal */
  constructor({ opened, opening, output, signal }: Beginning) {
    this.#opened = opened;
    this.#opening = opening;
    this.#output = output;
    this.#signal = signal;
    this.#result = new Promise((resolve) => (this.#settle = resolve));
    this.#result.catch(() => {});
    signal?.addEventListener("abort", this.#cancel, { once: true });
    opened.catch((error) => this.#end(fromNative(error)));
  }

  /** Itself. A second iteration throws `STREAM_USED`. */
  [Symbol.asyncIterator](): this {
    if (this.#iterated) throw new CandlewickError("STREAM_USED", "The events of a run can be read once");
    this.#iterated = true;
    return this;
  }

  /** The next event. Calls may overlap. */
  next(): Promise<IteratorResult<FinetuneEvent, undefined>> {
    if (this.#iterated) this.#wanted = false;
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#serve();
      void this.#fetch();
    });
  }

  /** Cancels, and waits until the checkpoint is written and nothing computes any more. `for await` calls it. */
  async return(): Promise<IteratorResult<FinetuneEvent, undefined>> {
    this.cancel();
    await this.result.catch(() => {});
    return { value: undefined, done: true };
  }

  /**
   * The run writes a checkpoint and ends, with `finishReason: "cancelled"`; one that has not begun, because a model is downloaded or rows are read, never
   * does. Harmless when it has ended.
   */
  cancel(): void {
    this.#opening.abort();
    this.#opened.then(({ native }) => native.cancel()).catch(() => {});
  }

  /** As {@link return}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  /**
   * The last event. Asking for it runs on to the end without a reader; only a reader that iterates sets the pace. Events of a run that
   * nobody iterates are not kept.
   */
  get result(): Promise<DoneEvent> {
    if (this.#waiters.length === 0) this.#wanted = true;
    void this.#fetch();
    return this.#result;
  }

  async #fetch(): Promise<void> {
    if (this.#fetching) return;
    this.#fetching = true;
    try {
      const { native } = await this.#opened;
      while (!this.#ended && (this.#waiters.length > 0 || this.#wanted)) {
        const text = await call<string | null | undefined>((id) => native.next(mailbox, id));
        if (typeof text !== "string") {
          this.#end(this.#signal?.aborted && (this.#done?.finishReason ?? "cancelled") === "cancelled" ? abortError(this.#signal) : undefined);
          break;
        }
        for (const event of JSON.parse(text) as FinetuneEvent[]) {
          if (event.type === "done") this.#done = event;
          if (this.#iterated || this.#waiters.length > 0) this.#events.push(event);
        }
        this.#serve();
      }
    } catch (error) {
      this.#end(fromNative(error));
    } finally {
      this.#fetching = false;
    }
  }

  #serve(): void {
    while (this.#waiters.length > 0) {
      const event = this.#events.shift();
      if (event) {
        this.#waiters.shift()!.resolve({ value: event, done: false });
      } else if (this.#failure) {
        this.#waiters.shift()!.reject(this.#failure);
        this.#failure = undefined;
      } else if (this.#ended) {
        this.#waiters.shift()!.resolve({ value: undefined, done: true });
      } else {
        return;
      }
    }
  }

  #end(failure?: CandlewickError): void {
    if (this.#ended) return;
    this.#ended = true;
    if (failure?.code === "ABORTED" && !this.#signal?.aborted) {
      failure = undefined;
      this.#done = this.#nothing();
      if (this.#iterated || this.#waiters.length > 0) this.#events.push(this.#done);
    }
    this.#failure = failure;
    this.#signal?.removeEventListener("abort", this.#cancel);
    this.#settle(this.#finish(failure));
    this.#serve();
  }

  /** The end of a run that was cancelled before it began. */
  #nothing(): DoneEvent {
    const nothing = { loss: null, bestStep: null, bestMetric: null, tokens: 0, seconds: 0 };
    return { type: "done", step: 0, epoch: 0, finishReason: "cancelled", output: this.#output, ...nothing };
  }

  async #finish(failure: CandlewickError | undefined): Promise<DoneEvent> {
    const opened = await this.#opened.catch(() => undefined);
    await opened?.close();
    if (failure) throw failure;
    return this.#done!;
  }
}
