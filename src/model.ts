import { CandlewickError } from "./errors.js";
import { nativeIds, nativeTexts } from "./inputs.js";
import type { native, NativeEncoder, NativeGenerator } from "./native.js";
import { checkOptions, checks, type OptionTable } from "./options.js";
import { abortable, call, mailbox } from "./runtime.js";
import { inSlices } from "./slices.js";
import type { TokenIds } from "./types.js";
import { warnOfUnknown } from "./unknown-tokens.js";

export interface DecodeOptions {
  /** Leave out special tokens (`[CLS]`, `<|endoftext|>`). Default true. */
  skipSpecialTokens?: boolean;
}

const decodeOptions: OptionTable<DecodeOptions> = { skipSpecialTokens: checks.boolean };

/** What a loaded GPT-2 and a loaded BERT have in common: a tokenizer, and `close()`. */
export abstract class Model implements AsyncDisposable {
  /** What it was loaded from. */
  readonly source: string;
  readonly #native: NativeGenerator | NativeEncoder;
  #closed: Promise<void> | undefined;

  /** @internal */
  protected constructor(source: string, model: NativeGenerator | NativeEncoder) {
    this.source = source;
    this.#native = model;
  }

  /** @internal Throws `MODEL_CLOSED` once {@link close} was called. */
  checkOpen(): void {
    if (this.#closed) throw new CandlewickError("MODEL_CLOSED", `The model ${this.source} is closed`);
  }

  /** The text of ids, or of each of several lists of ids. Bytes that are no UTF-8 become U+FFFD. */
  decode(ids: TokenIds, options?: DecodeOptions): Promise<string>;
  decode(ids: readonly TokenIds[], options?: DecodeOptions): Promise<string[]>;
  async decode(ids: TokenIds | readonly TokenIds[], options: DecodeOptions = {}): Promise<string | string[]> {
    const { skipSpecialTokens = true } = checkOptions("decode", options, decodeOptions);
    const several = Array.isArray(ids) && typeof ids[0] === "object";
    const lists = Array.from(several ? (ids as readonly TokenIds[]) : [ids], (list) => nativeIds("decode", "ids", list));
    this.checkOpen();
    const texts = await inSlices(lists, (slice) =>
      call<string[]>((id) => this.#native.decode(mailbox, id, slice.slice(), skipSpecialTokens)),
    );
    return several ? texts : texts[0]!;
  }

  /** How many tokens a text, or each of several, is to the model, special ones included. */
  countTokens(text: string): Promise<number>;
  countTokens(texts: readonly string[]): Promise<number[]>;
  async countTokens(text: string | readonly string[]): Promise<number | number[]> {
    const texts = nativeTexts("countTokens", text);
    this.checkOpen();
    const counts = await inSlices(texts, (slice) =>
      call<number[]>((id) => this.#native.countTokens(mailbox, id, slice.slice())),
    );
    return typeof text === "string" ? counts[0]! : counts;
  }

  /** @internal What `evaluate` asks and gets, as JSON; progress is in rows. */
  evaluation(options: string, signal?: AbortSignal, onProgress?: (done: number, total: number) => void): Promise<string> {
    this.checkOpen();
    const run = (id: number, cancel: InstanceType<typeof native.Cancel>) =>
      this.#native.evaluate(mailbox, id, options, cancel, onProgress !== undefined);
    return abortable<string>(signal, run, onProgress, (share) => warnOfUnknown("evaluate", share));
  }

  /**
   * Ends what runs on the model by the next layer, with `MODEL_CLOSED`, and resolves when its threads have ended and
   * its memory is free. Calls after it fail with `MODEL_CLOSED`. Closing twice is closing once.
   */
  close(): Promise<void> {
    this.#closed ??= call<void>((id) => this.#native.close(mailbox, id));
    return this.#closed;
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
