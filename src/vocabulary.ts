/** The tokens of a model, as bytes. */
import { CandlewickError } from "./errors.js";
import type { PackedBytes } from "./native.js";
import { show } from "./options.js";

/** The bytes of every token of a GPT-2, in memory; {@link GPT2.vocabulary} gives it. */
export class Vocabulary {
  /** Ids are below it. */
  readonly size: number;
  readonly #data: Uint8Array;
  /** Where each token's bytes begin, and where the last one's end. */
  readonly #starts: Uint32Array;
  readonly #texts: string[] = [];
  // A byte order mark is a token like any other.
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  private constructor({ data, lengths }: PackedBytes) {
    this.size = lengths.length;
    this.#data = data;
    this.#starts = new Uint32Array(this.size + 1);
    for (let id = 0; id < this.size; id++) this.#starts[id + 1] = this.#starts[id]! + lengths[id]!;
  }

  /** @internal */
  static of(packed: PackedBytes): Vocabulary {
    return new Vocabulary(packed);
  }

  /**
   * The bytes that a token adds to a text, which may be a part of a character; of a special or added token, its name in
   * UTF-8. In a vocabulary whose tokens are words and not bytes (`BertTokenizer`), what the token by itself is decoded
   * to. Empty for ids that the model has and its tokenizer does not. A copy.
   *
   * @throws {CandlewickError} `INPUT_INVALID`: no id of this model.
   */
  bytes(id: number): Uint8Array {
    return this.#view(id).slice();
  }

  /**
   * The token by itself, as in {@link TokenLogprob}: bytes that are no whole character are U+FFFD.
   *
   * @throws {CandlewickError} `INPUT_INVALID`: no id of this model.
   */
  text(id: number): string {
    return (this.#texts[id] ??= this.#decoder.decode(this.#view(id)));
  }

  #view(id: number): Uint8Array {
    if (!Number.isInteger(id) || id < 0 || id >= this.size) {
      throw new CandlewickError("INPUT_INVALID", `vocabulary: ${show(id)} is no id of a model of ${this.size} tokens`);
    }
    return this.#data.subarray(this.#starts[id], this.#starts[id + 1]);
  }
}
