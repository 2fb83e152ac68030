import { abortError, CandlewickError, fromNative } from "./errors.js";
import type { NativeResult, NativeTokenStream } from "./native.js";
import { toReadable, toResponse, type ReadableOptions, type ResponseOptions } from "./response.js";
import { call, mailbox } from "./runtime.js";
import type { GenerationResult, Token } from "./types.js";

/** The most tokens that one native call brings along. It brings those that are ready: one, while the reader keeps up. */
const BATCH = 64;

interface Waiter {
  resolve(result: IteratorResult<Token, undefined>): void;
  reject(error: unknown): void;
}

/**
 * The tokens of one generation, as they are made. Iterate it once, or turn it into a web stream or a response.
 *
 * The reader sets the pace: the model computes a few tokens ahead and then waits. Leaving the loop, {@link cancel}, the
 * `signal` that the generation was given and closing the model end the compute by the next token, and inside a prompt by
 * the next layer.
 *
 * How it ends: after the last token the iteration is over. {@link cancel} and leaving the loop end it quietly, with
 * `finishReason: "aborted"`. An aborted signal ends it with a {@link CandlewickError} of code `ABORTED`, whose `cause` is
 * the signal's reason; a failure ends it with a code of its own. An error is thrown at the reader once.
 */
export class TokenStream implements AsyncIterable<Token>, AsyncDisposable {
  readonly #model: string;
  readonly #opened: Promise<NativeTokenStream>;
  readonly #result: Promise<GenerationResult>;
  #settle!: (result: GenerationResult | Promise<GenerationResult>) => void;
  /** All that came from the engine; the reader has had the first `#read` of them. */
  readonly #tokens: Token[] = [];
  #read = 0;
  #waiters: Waiter[] = [];
  /** No more tokens come from the engine. */
  #ended = false;
  /** For the reader, after the tokens that it has not read yet. */
  #failure: CandlewickError | undefined;
  #fetching = false;
  #iterated = false;
  /** Somebody wants the result, and nobody has read on since: the stream runs by itself. */
  #wanted = false;
  #unlisten = () => {};
  #over: ((tokens: readonly Token[], whole: boolean) => void) | undefined;

  private constructor(model: string, stream: NativeTokenStream | Promise<NativeTokenStream>, signal?: AbortSignal) {
    this.#model = model;
    this.#result = new Promise((resolve) => (this.#settle = resolve));
    this.#result.catch(() => {});
    this.#opened = Promise.resolve(stream);
    this.#opened.catch((error) => this.#end(fromNative(error)));
    if (signal) this.#listen(signal);
  }

  /** @internal */
  static of(model: string, stream: NativeTokenStream | Promise<NativeTokenStream>, signal?: AbortSignal): TokenStream {
    return new TokenStream(model, stream, signal);
  }

  /** Itself. A second iteration throws `STREAM_USED`: tokens are not kept for it. */
  [Symbol.asyncIterator](): this {
    if (this.#iterated) throw new CandlewickError("STREAM_USED", "A token stream can be read once");
    this.#iterated = true;
    return this;
  }

  /** The next token. Calls may overlap; they are served in their order. */
  next(): Promise<IteratorResult<Token, undefined>> {
    // A loop reads on until it ends the stream; single calls of `next` may never come to that, so they take nothing back.
    if (this.#iterated) this.#wanted = false;
    if (this.#waiters.length === 0 && this.#read < this.#tokens.length) {
      return Promise.resolve({ value: this.#tokens[this.#read++]!, done: false });
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#serve();
      void this.#fetch();
    });
  }

  /** Ends the stream as {@link cancel} does, and waits until nothing computes for it any more. `for await` calls it. */
  async return(): Promise<IteratorResult<Token, undefined>> {
    this.cancel();
    await this.#result.catch(() => {});
    return { value: undefined, done: true };
  }

  /**
   * Ends the stream quietly: tokens that have not been read are dropped, pending and later `next()` calls are done, and
   * the result has `finishReason: "aborted"`. Harmless on a stream that has ended.
   */
  cancel(): void {
    this.#tokens.length = this.#read;
    this.#end();
  }

  /** As {@link return}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  /**
   * Everything about the finished generation: text, tokens, why it ended, counts and times. It is settled when the stream
   * has ended and nothing computes for it any more. Asking for it runs the stream on to its end, whatever was read before;
   * tokens that were not read still can be. Only a reader that iterates (`for await`, a web stream) sets the pace: the
   * stream waits for it again as soon as it reads on. Rejected as the iteration would be; a rejection that nobody handles
   * is not reported as unhandled.
   */
  get result(): Promise<GenerationResult> {
    if (!this.#iterated || this.#waiters.length === 0) this.#wanted = true;
    void this.#fetch();
    return this.#result;
  }

  /** @internal `listener` is told once, when no more tokens come: those that there are for the reader, and whether they are all. */
  whenOver(listener: (tokens: readonly Token[], whole: boolean) => void): void {
    this.#over = listener;
  }

  /** The generated text as a whole: `(await stream.result).text`. */
  async text(): Promise<string> {
    return (await this.result).text;
  }

  /** A web stream of UTF-8 bytes; its reader sets the pace, its `cancel()` ends the compute. */
  toReadable(options?: ReadableOptions): ReadableStream<Uint8Array> {
    return toReadable(this, this.#model, options);
  }

  /** A web `Response` that streams plain text (the default) or server-sent events in OpenAI's form. */
  toResponse(options?: ResponseOptions): Response {
    return toResponse(this, this.#model, options);
  }

  #listen(signal: AbortSignal): void {
    // Weak: a signal may live as long as the program, and a stream that nobody reads any more need not.
    const weak = new WeakRef(this);
    const abort = () => {
      const stream = weak.deref();
      if (stream) stream.#abort(signal);
    };
    signal.addEventListener("abort", abort, { once: true });
    this.#unlisten = () => signal.removeEventListener("abort", abort);
  }

  #abort(signal: AbortSignal): void {
    if (this.#ended) return;
    this.#tokens.length = this.#read;
    this.#end(abortError(signal));
  }

  /** Gets tokens from the engine for as long as somebody waits for them. One call at a time is on its way. */
  async #fetch(): Promise<void> {
    if (this.#fetching) return;
    this.#fetching = true;
    try {
      const stream = await this.#opened;
      while (!this.#ended && (this.#waiters.length > 0 || this.#wanted)) {
        const batch = await call<Token[] | null>((id) => stream.next(mailbox, id, BATCH));
        if (this.#ended) break;
        if (batch) this.#tokens.push(...batch);
        else this.#end(undefined, true);
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
      if (this.#read < this.#tokens.length) {
        this.#waiters.shift()!.resolve({ value: this.#tokens[this.#read++]!, done: false });
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

  /** The one way to end, whatever the reason; the first reason counts. `whole`: by itself. */
  #end(failure?: CandlewickError, whole = false): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = failure;
    this.#unlisten();
    this.#over?.(this.#tokens, whole);
    // Whoever listened may hold on to the stream before this one.
    this.#over = undefined;
    this.#settle(this.#finish(failure));
    this.#serve();
  }

  async #finish(failure: CandlewickError | undefined): Promise<GenerationResult> {
    const stream = await this.#opened.catch((error) => {
      throw failure ?? fromNative(error);
    });
    // Nothing happens if it has ended by itself.
    stream.cancel();
    const result = call<NativeResult>((id) => stream.result(mailbox, id));
    if (!failure) return toResult(await result);
    await result.catch(() => {});
    throw failure;
  }
}

function toResult(result: NativeResult): GenerationResult {
  return { ...result.sequences[0]!, ...result };
}
