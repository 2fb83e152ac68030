import { CandlewickError, fromNative } from "./errors.js";

/** The source of a stream's items. At most one call of `next` is pending at a time. */
export interface Source<T> {
  /** The items that are ready, at least one; `null` after the last. */
  next(): Promise<readonly T[] | null>;
}

interface Waiter<T> {
  resolve(result: IteratorResult<T, undefined>): void;
  reject(error: unknown): void;
}

/**
 * What {@link TokenStream} and {@link TrainingRun} have in common: items that are pulled from the engine at the
 * reader's pace, and a result.
 *
 * - Items are fetched while a `next()` is pending, or the result is awaited. `next()` calls may overlap and are served
 *   in order.
 * - A reader that iterates sets the pace: after its next call of `next()` nothing is fetched ahead for the result.
 * - The first reason to end counts. A failure is thrown at the reader once, after the items before it, and rejects
 *   `result`, which is never an unhandled rejection.
 */
export abstract class EventStream<T, R> implements AsyncIterable<T>, AsyncDisposable {
  readonly #opened: Promise<Source<T>>;
  readonly #result: Promise<R>;
  #settle!: (result: Promise<R>) => void;
  /** Items for the reader; the first `#read` of them have been read. */
  #items: T[] = [];
  #read = 0;
  #waiters: Waiter<T>[] = [];
  #ended = false;
  #failure: CandlewickError | undefined;
  #fetching = false;
  #iterated = false;
  /** The result is awaited, and no iterating reader has read since. */
  #wanted = false;
  #unlisten = () => {};

  protected constructor(opened: Promise<Source<T>>) {
    this.#result = new Promise((resolve) => (this.#settle = resolve));
    this.#result.catch(() => {});
    this.#opened = opened;
    opened.catch((error) => this.end(fromNative(error)));
  }

  /** Itself. A second iteration throws `STREAM_USED`: what was read is not kept. */
  [Symbol.asyncIterator](): this {
    if (this.#iterated) throw new CandlewickError("STREAM_USED", "A stream can be read once");
    this.#iterated = true;
    return this;
  }

  /** The next item. Calls may overlap; they are served in their order. */
  next(): Promise<IteratorResult<T, undefined>> {
    // An iterating reader reads on until it ends the stream. Single calls of `next` may stop anywhere, so they do not
    // stop what runs for the result.
    if (this.#iterated) this.#wanted = false;
    if (this.#waiters.length === 0 && this.#read < this.#items.length) {
      return Promise.resolve({ value: this.#shift(), done: false });
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#serve();
      void this.#fetch();
    });
  }

  /** Ends the stream as {@link cancel} does, and waits until nothing computes for it any more. `for await` calls it. */
  async return(): Promise<IteratorResult<T, undefined>> {
    this.cancel();
    await this.result.catch(() => {});
    return { value: undefined, done: true };
  }

  /** As {@link return}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  /** Ends the stream quietly. Harmless on a stream that has ended. */
  abstract cancel(): void;

  get result(): Promise<R> {
    this.#wanted = true;
    void this.#fetch();
    return this.#result;
  }

  /** The stream's result, once it has ended; rejects with `failure`, if there is one. */
  protected abstract finish(failure: CandlewickError | undefined): Promise<R>;

  /** Called with items as they come, before a reader gets them; returns those to keep for the reader. */
  protected arrived(items: readonly T[]): readonly T[] {
    return items;
  }

  /** The source has no more items. */
  protected exhausted(): void {
    this.end();
  }

  /** Called once, when the stream ends, before promises settle. `whole`: the source came to its end. */
  protected ending(_whole: boolean): void {}

  protected get ended(): boolean {
    return this.#ended;
  }

  /** Whether somebody reads items, or has begun to. */
  protected get isRead(): boolean {
    return this.#iterated || this.#waiters.length > 0;
  }

  /** Drops the items that have not been read; returns how many there were. */
  protected drop(): number {
    const unread = this.#items.length - this.#read;
    this.#items.length = this.#read;
    return unread;
  }

  /** Calls `abort` when the signal is aborted, until the stream ends. */
  protected listen(signal: AbortSignal, abort: () => void): void {
    signal.addEventListener("abort", abort, { once: true });
    this.#unlisten = () => signal.removeEventListener("abort", abort);
  }

  /** The one way to end; the first reason counts. `last` are items that the reader still gets. */
  protected end(failure?: CandlewickError, { whole = false, last = [] }: { whole?: boolean; last?: readonly T[] } = {}): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = failure;
    this.#items.push(...last);
    this.#unlisten();
    this.ending(whole);
    this.#settle(this.finish(failure));
    this.#serve();
  }

  /** Fetches items as long as a reader waits for them. */
  async #fetch(): Promise<void> {
    if (this.#fetching) return;
    this.#fetching = true;
    try {
      const source = await this.#opened;
      while (!this.#ended && (this.#waiters.length > 0 || this.#wanted)) {
        const items = await source.next();
        if (this.#ended) break;
        if (items) this.#items.push(...this.arrived(items));
        else this.exhausted();
        this.#serve();
      }
    } catch (error) {
      this.end(fromNative(error));
    } finally {
      this.#fetching = false;
    }
  }

  #serve(): void {
    while (this.#waiters.length > 0) {
      if (this.#read < this.#items.length) {
        this.#waiters.shift()!.resolve({ value: this.#shift(), done: false });
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

  #shift(): T {
    const item = this.#items[this.#read++]!;
    // Read items are removed in blocks: `shift()` of a long array would move all of it for each item.
    if (this.#read === this.#items.length || this.#read >= 256) {
      this.#items = this.#items.slice(this.#read);
      this.#read = 0;
    }
    return item;
  }
}
