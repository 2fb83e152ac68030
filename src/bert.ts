import { checkInputs, nativeInputs, unpack } from "./inputs.js";
import { load, loadOptions, type LoadOptions } from "./load.js";
import { Model } from "./model.js";
import { native, type NativeEncoder, type PackedInputs, type PackedOutputs } from "./native.js";
import { checkOptions, checks, type OptionTable } from "./options.js";
import { abortable, mailbox } from "./runtime.js";
import { inSlices } from "./slices.js";
import type { TokenIds } from "./types.js";

/** What sits on top of the encoder in a checkpoint, and what its `logits` are, T being the number of tokens. */
export type BERTHead =
  /** (T, vocabulary) */
  | "masked-lm"
  /** (classes) */
  | "sequence-classification"
  /** (T, classes) */
  | "token-classification"
  /** (T, 2): where the answer starts, where it ends. */
  | "question-answering";

/** What is known about a loaded BERT. */
export interface BERTInfo {
  readonly modelType: string;
  /** Rows of the embedding: ids are below it. */
  readonly vocabularySize: number;
  /** Entries of the tokenizer; absent for a model without one, which takes ids alone. */
  readonly tokenizerSize?: number;
  /** Tokens that a text may have, special ones included. */
  readonly positions: number;
  /** Token types: 2 if the model reads pairs of texts. */
  readonly types: number;
  readonly layers: number;
  readonly hiddenSize: number;
  readonly heads: number;
  /** Number of weights. */
  readonly parameters: number;
  /** Bytes of weights in memory. */
  readonly weightBytes: number;
  readonly hasPooler: boolean;
  /** Absent for a bare encoder. */
  readonly head?: BERTHead;
  /** Names of the head's classes, by number. */
  readonly labels: readonly string[];
  readonly dtype: string;
  readonly device: string;
  /** Threads that compute. */
  readonly threads: number;
}

/** Two texts that are read together: a question and its context, a query and a passage. */
export interface TextPair {
  readonly text: string;
  readonly textPair: string;
}

/** A text as the model reads it, special tokens included. */
export interface Encoding {
  readonly ids: Uint32Array;
  /** 0 for the first text's tokens, 1 for its pair's. */
  readonly typeIds: Uint32Array;
}

/** Ids instead of text. Token types default to 0. */
export interface IdsInput {
  readonly ids: TokenIds;
  readonly typeIds?: TokenIds;
}

/** One text, pair, or list of ids with its special tokens. */
export type TextInput = string | TextPair | IdsInput;

export interface BERTEncodeOptions {
  /** Most tokens per text, special ones included. Default: the model's `positions`. */
  maxLength?: number;
  /**
   * Whether longer texts are cut, on the right and of a pair the longer one first; else they fail with
   * `CONTEXT_OVERFLOW`. Default true. Ids are never cut.
   */
  truncate?: boolean;
  /** Aborting it ends the call by the next layer, with code `ABORTED`. */
  signal?: AbortSignal;
}

/** What {@link BERT.forward} gives for each text. Less is less to hold. */
export interface ForwardOptions extends BERTEncodeOptions {
  /** Default true. */
  lastHiddenState?: boolean;
  /** Default: true if the model has a pooler. */
  pooled?: boolean;
  /** The embeddings' output and every layer's. Default false. */
  hiddenStates?: boolean;
  /** What the head gives. Default: true if the model has one. */
  logits?: boolean;
}

const encodeOptions: OptionTable<BERTEncodeOptions> = {
  maxLength: checks.integer(1, 0xffff_ffff),
  truncate: checks.boolean,
  signal: checks.signal,
};
const forwardOptions: OptionTable<ForwardOptions> = {
  ...encodeOptions,
  lastHiddenState: checks.boolean,
  pooled: checks.boolean,
  hiddenStates: checks.boolean,
  logits: checks.boolean,
};

/** Numbers in rows: element (i, j) is `data[i * shape[1] + j]`. */
export interface Matrix {
  readonly data: Float32Array;
  readonly shape: readonly [rows: number, columns: number];
}

/** What the model says of one text of T tokens; H is `info.hiddenSize`. Arrays of one call share memory: `slice()` what stays. */
export interface ForwardOutput {
  /** (T, H) */
  readonly lastHiddenState?: Matrix;
  /** (H): tanh(dense(first token)). */
  readonly pooled?: Float32Array;
  /** `info.layers` + 1 of (T, H): the embeddings' output first. */
  readonly hiddenStates?: readonly Matrix[];
  /** One row for sequence classification, else T; see {@link BERTHead}. */
  readonly logits?: Matrix;
}

/**
 * A BERT encoder in memory, with threads of its own; {@link loadBERT} makes it. Any number of calls may run at once; they
 * are computed together, and a text's result does not depend on what it is computed with. An idle model does not keep
 * the process alive. `close()` frees it, as does the end of an `await using` block and, at some time, the garbage
 * collector.
 */
export class BERT extends Model {
  readonly info: BERTInfo;
  readonly #native: NativeEncoder;

  private constructor(source: string, encoder: NativeEncoder) {
    super(source, encoder);
    this.#native = encoder;
    this.info = Object.freeze(encoder.info);
  }

  /** @internal */
  static of(source: string, encoder: NativeEncoder): BERT {
    return new BERT(source, encoder);
  }

  /** Ids and token types of a text or pair, or of each of several, with special tokens. */
  encode(text: string | TextPair, options?: BERTEncodeOptions): Promise<Encoding>;
  encode(texts: readonly (string | TextPair)[], options?: BERTEncodeOptions): Promise<Encoding[]>;
  async encode(
    input: string | TextPair | readonly (string | TextPair)[],
    options: BERTEncodeOptions = {},
  ): Promise<Encoding | Encoding[]> {
    const { signal, ...limits } = checkOptions("encode", options, encodeOptions);
    const inputs = checkInputs("encode", input);
    this.checkOpen();
    const encodings = await inSlices(inputs, async (slice) => {
      const texts = nativeInputs(slice);
      const packed = await abortable<PackedInputs>(signal, (id, cancel) =>
        this.#native.encode(mailbox, id, texts, limits, cancel),
      );
      const typeIds = unpack(packed.typeIds);
      return unpack(packed.ids).map((ids, i) => ({ ids, typeIds: typeIds[i]! }));
    });
    return Array.isArray(input) ? encodings : encodings[0]!;
  }

  /**
   * Runs the model over a text, or over each of several, in the input's order and without padding: a text's T is its own.
   *
   * @throws {CandlewickError} `OPTION_UNKNOWN`, `OPTION_INVALID` (also: `pooled` or `logits` of a model that has none),
   *   `PROMPT_EMPTY` (no ids), `INPUT_INVALID` (an id or token type that the model lacks), `CONTEXT_OVERFLOW`,
   *   `TOKENIZER_MISSING`, `ABORTED`, `MODEL_CLOSED`.
   */
  forward(text: TextInput, options?: ForwardOptions): Promise<ForwardOutput>;
  forward(texts: readonly TextInput[], options?: ForwardOptions): Promise<ForwardOutput[]>;
  async forward(
    input: TextInput | readonly TextInput[],
    options: ForwardOptions = {},
  ): Promise<ForwardOutput | ForwardOutput[]> {
    const { signal, maxLength, truncate, ...wanted } = checkOptions("forward", options, forwardOptions);
    const { hasPooler, head } = this.info;
    const want = {
      lastHiddenState: wanted.lastHiddenState ?? true,
      pooled: wanted.pooled ?? hasPooler,
      hiddenStates: wanted.hiddenStates ?? false,
      logits: wanted.logits ?? head !== undefined,
    };
    const inputs = checkInputs("forward", input);
    this.checkOpen();
    const outputs = await inSlices(inputs, async (slice) => {
      const texts = nativeInputs(slice);
      const packed = await abortable<PackedOutputs>(signal, (id, cancel) =>
        this.#native.run(mailbox, id, texts, { maxLength, truncate }, want, cancel),
      );
      return this.#outputs(packed, want);
    });
    return Array.isArray(input) ? outputs : outputs[0]!;
  }

  #outputs(packed: PackedOutputs, want: Record<keyof ForwardOutput, boolean>): ForwardOutput[] {
    const { hiddenSize, layers } = this.info;
    const lists = <K extends keyof ForwardOutput>(key: K) => (want[key] ? unpack(packed[key]) : undefined);
    const [last, pooled, hidden, logits] = [
      lists("lastHiddenState"),
      lists("pooled"),
      lists("hiddenStates"),
      lists("logits"),
    ];
    const classes = this.#classes();
    return Array.from({ length: packed.pooled.lengths.length }, (_, i) => ({
      ...(last && { lastHiddenState: matrix(last[i]!, hiddenSize) }),
      ...(pooled && { pooled: pooled[i]! }),
      ...(hidden && { hiddenStates: split(hidden[i]!, layers + 1).map((state) => matrix(state, hiddenSize)) }),
      ...(logits && { logits: matrix(logits[i]!, classes ?? logits[i]!.length) }),
    }));
  }

  /** Columns of the head's logits; undefined: all of them are one row. */
  #classes(): number | undefined {
    switch (this.info.head) {
      case "masked-lm":
        return this.info.vocabularySize;
      case "token-classification":
        return this.info.labels.length;
      case "question-answering":
        return 2;
      default:
        return undefined;
    }
  }
}

function matrix(data: Float32Array, columns: number): Matrix {
  return { data, shape: [data.length / columns, columns] };
}

function split(data: Float32Array, parts: number): Float32Array[] {
  const size = data.length / parts;
  return Array.from({ length: parts }, (_, part) => data.subarray(part * size, (part + 1) * size));
}

/**
 * Loads a BERT: a folder in Hugging Face's layout (`config.json`, `*.safetensors` or a shard index, `tokenizer.json` or
 * `vocab.txt`), or a hub id, whose files are looked up in
 * the hub's own cache on this machine and downloaded if they are not there.
 *
 * @throws {CandlewickError} `OPTION_UNKNOWN`, `OPTION_INVALID`, `ABORTED`, and what can be wrong with a model's files:
 *   `MODEL_NOT_FOUND`, `CONFIG_INVALID`, `WEIGHTS_CORRUPT` and the others in `docs/errors.md`.
 */
export async function loadBERT(source: string, options: LoadOptions = {}): Promise<BERT> {
  return BERT.of(source, await load<NativeEncoder, LoadOptions>("loadBERT", native.loadEncoder, source, options, loadOptions));
}
