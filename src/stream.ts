import type { ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";
import type { Readable } from "node:stream";
import { abortError, type CandlewickError, fromNative } from "./errors.js";
import { EventStream } from "./event-stream.js";
import type { NativeResult, NativeTokenStream } from "./native.js";
import { pipeTo, toNodeStream, toReadable, toResponse, type ReadableOptions, type ResponseOptions } from "./response.js";
import { call, mailbox } from "./runtime.js";
import type { Vocabulary } from "./vocabulary.js";
import type { Accepted, GenerationResult, Token } from "./types.js";

/**
 * The most tokens that one native call brings along. It brings those that are ready: one, while the reader keeps up.
 */
const BATCH = 64;

/**
 * The tokens of one generation, as they are made. Iterate it once, or turn it into a web stream or a response.
 *
 * The reader sets the pace: the model computes a few tokens ahead and then waits. Leaving the loop, {@link cancel}, the
 * `signal` that the generation was given and closing the model end the compute by the next token, and inside a prompt
 * by the next layer.
 *
 * How it ends: after the last token the iteration is over. {@link cancel} and leaving the loop end it quietly, with
 * `finishReason: "aborted"`. An aborted signal ends it with a {@link CandlewickError} of code `ABORTED`, whose `cause`
 * is the signal's reason; a failure ends it with a code of its own. An error is thrown at the reader once.
 */
export class TokenStream extends EventStream<Token, GenerationResult> {
  readonly #model: string;
  readonly #native: Promise<NativeTokenStream>;
  /** @internal */
  readonly vocabulary: (() => Promise<Vocabulary>) | undefined;
  /** All that the reader has had or still gets. */
  readonly #tokens: Token[] = [];
  #over: ((tokens: readonly Token[], whole: boolean) => void) | undefined;
  #accepted: Promise<Accepted> | undefined;
  /** The end by the signal. */
  #aborted: CandlewickError | undefined;

  private constructor(model: string, stream: Promise<NativeTokenStream>, signal?: AbortSignal, vocabulary?: () => Promise<Vocabulary>) {
    super(stream.then((native) => ({ next: () => call<Token[] | null>((id) => native.next(mailbox, id, BATCH)) })));
    this.#model = model;
    this.vocabulary = vocabulary;
    this.#native = stream;
    if (signal) this.#follow(signal);
  }

  /** @internal `vocabulary`: the bytes of the model's tokens, for reports of log-probabilities. */
  static of(
    model: string,
    stream: NativeTokenStream | Promise<NativeTokenStream>,
    signal?: AbortSignal,
    vocabulary?: () => Promise<Vocabulary>,
  ): TokenStream {
    return new TokenStream(model, Promise.resolve(stream), signal, vocabulary);
  }

  /**
   * Ends the stream quietly: tokens that have not been read are dropped, pending and later `next()` calls are done, and
   * the result has `finishReason: "aborted"`. Harmless on a stream that has ended.
   */
  cancel(): void {
    this.#dropUnread();
    this.end();
  }

  /**
   * Everything about the finished generation: text, tokens, why it ended, counts and times. It is settled when the
   * stream has ended and nothing computes for it any more. Asking for it runs the stream on to its end, whatever was
   * read before; tokens that were not read still can be. A reader that iterates (`for await`, a web stream) sets the
   * pace again as soon as it reads on. Rejected as the iteration would be; a rejection that nobody handles is not
   * reported as unhandled.
   */
  override get result(): Promise<GenerationResult> {
    return super.result;
  }

  /**
   * Settled when the prompt is tokenised, checked and queued, before any of it is computed: what a server must know
   * before it sends a status. Rejected with what is wrong: `CONTEXT_OVERFLOW`, `INPUT_INVALID`, `TOKENIZER_MISSING`,
   * `MODEL_CLOSED`, `ABORTED` (also after {@link cancel}), and what can be wrong with the files of a model that is
   * named. A rejection that nobody handles is not reported as unhandled.
   */
  get accepted(): Promise<Accepted> {
    if (!this.#accepted) {
      this.#accepted = this.#accept();
      this.#accepted.catch(() => {});
    }
    return this.#accepted;
  }

  async #accept(): Promise<Accepted> {
    try {
      const stream = await this.#native;
      return { promptTokens: await call<number>((id) => stream.accepted(mailbox, id)) };
    } catch (error) {
      // An aborted signal is the reason, whatever the engine says of it.
      throw this.#aborted ?? fromNative(error);
    }
  }

  /**
   * @internal `listener` is told once, when no more tokens come: those that there are for the reader, and whether they
   * are all.
   */
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

  /**
   * A web `Response` that streams plain text (the default) or server-sent events in OpenAI's form, when the prompt is
   * {@link accepted}. A prompt that is not becomes a JSON response with the error's status, in the form of OpenAI's
   * API: 400 and `context_length_exceeded` for one that is too long.
   */
  toResponse(options?: ResponseOptions): Promise<Response> {
    return toResponse(this, this.#model, options);
  }

  /** A Node stream of UTF-8 bytes, as {@link toReadable}; destroying it ends the compute. */
  toNodeStream(options?: ReadableOptions): Readable {
    return toNodeStream(this, this.#model, options);
  }

  /**
   * Answers a request of `node:http`, `node:http2`, Express or Fastify (`reply.raw`, after `reply.hijack()`): as {@link
   * toResponse}, at the pace of the client. A client that disconnects ends the compute by the next token. Headers that
   * were sent before stay as they are. Resolves when the response has ended, with the result, or with `undefined` where
   * an error was the answer: {@link result} rejects with it.
   */
  pipeTo(response: ServerResponse | Http2ServerResponse, options?: ResponseOptions): Promise<GenerationResult | undefined> {
    return pipeTo(this, this.#model, response, options);
  }

  #follow(signal: AbortSignal): void {
    // Weak: a signal may live as long as the program, and a stream that nobody reads any more need not.
    const weak = new WeakRef(this);
    this.listen(signal, () => {
      const stream = weak.deref();
      if (stream) stream.#abort(signal);
    });
  }

  #abort(signal: AbortSignal): void {
    if (this.ended) return;
    this.#dropUnread();
    this.#aborted = abortError(signal);
    this.end(this.#aborted);
  }

  #dropUnread(): void {
    this.#tokens.length -= this.drop();
  }

  protected override arrived(tokens: readonly Token[]): readonly Token[] {
    this.#tokens.push(...tokens);
    return tokens;
  }

  protected override exhausted(): void {
    this.end(undefined, { whole: true });
  }

  protected override ending(whole: boolean): void {
    this.#over?.(this.#tokens, whole);
    // A listener may still hold the previous stream.
    this.#over = undefined;
  }

  protected async finish(failure: CandlewickError | undefined): Promise<GenerationResult> {
    const stream = await this.#native.catch((error) => {
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
