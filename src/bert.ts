import { checkInputs, nativeInputs, unpack } from "./inputs.js";
import { load, loadOptions, type LoadOptions } from "./load.js";
import { Model } from "./model.js";
import { native, type NativeEncoder, type PackedInputs, type PackedOutputs, type PackedTokens } from "./native.js";
import { checkOptions, checks, invalid, TOKEN_ID, type OptionTable } from "./options.js";
import type { AnswerTask } from "./pipelines/answer.js";
import type { ClassifyTask } from "./pipelines/classify.js";
import type { EmbedTask } from "./pipelines/embed.js";
import type { EntitiesTask } from "./pipelines/entities.js";
import type { FillMaskTask } from "./pipelines/fill-mask.js";
import { taskOf, type BERTTask, type BERTTasks } from "./pipelines/definitions.js";
import type { RerankTask } from "./pipelines/rerank.js";
import type { ZeroShotTask } from "./pipelines/zero-shot.js";
import { abortable, mailbox } from "./runtime.js";
import { inSlices } from "./slices.js";
import type { BERTStats } from "./stats.js";
import type { TokenIds } from "./types.js";
import type { SimilarityName } from "./vectors/similarity.js";
import { warnIfSlow } from "./slow-bf16.js";

/** The head of a checkpoint, and the shape of its `logits`; T is the number of tokens. */
export type BERTHead =
  /** (T, vocabulary) */
  | "masked-lm"
  /** (classes) */
  | "sequence-classification"
  /** (T, classes) */
  | "token-classification"
  /** (T, 2): where the answer starts, where it ends. */
  | "question-answering";

/** What is known about a loaded BERT, or another encoder of its family. */
export interface BERTInfo {
  /** `"bert"`, `"distilbert"`, `"roberta"`, `"xlm-roberta"`, `"camembert"`, `"electra"` or `"mpnet"`. */
  readonly modelType: string;
  /** Rows of the embedding: ids are below it. */
  readonly vocabularySize: number;
  /** Entries of the tokenizer; absent for a model without one, which takes ids alone. */
  readonly tokenizerSize?: number;
  /** Tokens that a text may have, special ones included. */
  readonly positions: number;
  /** Token types: 2 if the model tells the texts of a pair apart by them, 0 if it has none. */
  readonly types: number;
  readonly layers: number;
  readonly hiddenSize: number;
  readonly heads: number;
  /** Number of weights. */
  readonly parameters: number;
  /** Bytes of weights in memory. */
  readonly weightBytes: number;
  readonly hasPooler: boolean;
  /** Absent for a bare encoder, and for ELECTRA's discriminator, whose own head is not run. */
  readonly head?: BERTHead;
  /** Names of the head's classes, by number. */
  readonly labels: readonly string[];
  /** Tokens that tasks cut texts at: what the tokenizer's files say, `positions` at most. */
  readonly maxLength: number;
  /** The configuration's `problem_type`: what the labels' scores are. */
  readonly problemType?: string;
  /** The mask token, such as `[MASK]` or `<mask>`. */
  readonly maskToken?: string;
  /** A cross-encoder's last function, as its configuration names it. */
  readonly crossEncoderActivation?: string;
  /** How the model makes vectors of texts. */
  readonly sentences: SentenceInfo;
  readonly dtype: string;
  /** `"cpu"`, `"cuda"`, or another GPU than the first, such as `"cuda:1"`. */
  readonly device: string;
  /** A GPU's name, such as `"NVIDIA H100 80GB HBM3"`. */
  readonly deviceName?: string;
  /** Threads that compute. */
  readonly threads: number;
  /**
   * What products are computed with: `"avx512bf16"`, `"avx512vnni"`, `"avx512"`, `"avx2"`, `"neondotprod"`, `"neon"` or
   * `"portable"`, which differ in speed alone; on a GPU its compute capability, such as `"9.0"`.
   */
  readonly instructionSet: string;
}

/** How one vector is made of a text's token vectors. */
export type PoolingName = "cls" | "max" | "mean" | "meanSqrtLength" | "weightedMean" | "last";

/** What sentence-transformers' files (`modules.json` and those it names) say, or their defaults. */
export interface SentenceInfo {
  /** Several are concatenated. */
  readonly pooling: readonly string[];
  /** Whether vectors are scaled to length 1. */
  readonly normalize: boolean;
  /** Whether texts become lower case before they are tokenised. */
  readonly lowerCase: boolean;
  /** Tokens that texts are cut at. */
  readonly maxLength: number;
  /** Prompts that are put before texts, by name. */
  readonly prompts: Readonly<Record<string, string>>;
  readonly defaultPrompt?: string;
  /** The similarity function of the vectors. */
  readonly similarity: SimilarityName;
}

/** A token of a text. */
export interface TextToken {
  readonly id: number;
  /** As the vocabulary has it: `"##ing"`. */
  readonly token: string;
  /** Of a pair, which text it is from; absent for special tokens. */
  readonly text?: 0 | 1;
  /** Where it stands in its text, in UTF-16 code units, as JavaScript counts; both 0 for special tokens. */
  readonly start: number;
  readonly end: number;
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

/**
 * The ids of two texts, without special tokens, which are put to them as to a {@link TextPair}, as are the token types;
 * and it is cut as one.
 */
export interface IdPairInput {
  readonly ids: TokenIds;
  readonly pairIds: TokenIds;
}

/** One text, pair, pair of ids, or list of ids with its special tokens. */
export type TextInput = string | TextPair | IdPairInput | IdsInput;

export interface BERTEncodeOptions {
  /** Most tokens per text, special ones included. Default: the model's `positions`. */
  maxLength?: number;
  /**
   * Whether longer texts are cut, on the right and of a pair the longer one first; else they fail with
   * `CONTEXT_OVERFLOW`. Default true. A list of ids with its special tokens is never cut.
   */
  truncate?: boolean;
  /** Aborting it ends the call by the next layer, with code `ABORTED`. */
  signal?: AbortSignal;
}

/** Which outputs {@link BERT.forward} returns for each text. Fewer outputs take less memory. */
export interface ForwardOptions extends BERTEncodeOptions {
  /** Default true. */
  lastHiddenState?: boolean;
  /** Default: true if the model has a pooler. */
  pooled?: boolean;
  /**
   * The embeddings' output (0) and every layer's (1 to `info.layers`), or those whose numbers are listed. Default
   * false.
   */
  hiddenStates?: boolean | readonly number[];
  /**
   * Attention weights of every layer (0 to `info.layers` - 1), or of the listed layers. CPU only. Default
   * false.
   */
  attentions?: boolean | readonly number[];
  /** The text's tokens with their offsets. Not for ids. Default false. */
  returnTokens?: boolean;
  /** The head's logits. Default: true if the model has a head. */
  logits?: boolean;
}

const encodeOptions: OptionTable<BERTEncodeOptions> = {
  maxLength: checks.integer(1, 0xffff_ffff),
  truncate: checks.boolean,
  signal: checks.signal,
};
const layersCheck = (value: unknown) =>
  typeof value === "boolean" || (Array.isArray(value) && value.length > 0 && value.every((layer) => !TOKEN_ID(layer)))
    ? undefined
    : "must be true, false or an array of layers";
const forwardOptions: OptionTable<ForwardOptions> = {
  ...encodeOptions,
  lastHiddenState: checks.boolean,
  pooled: checks.boolean,
  hiddenStates: layersCheck,
  attentions: layersCheck,
  returnTokens: checks.boolean,
  logits: checks.boolean,
};

/** Numbers in rows: element (i, j) is `data[i * shape[1] + j]`. */
export interface Matrix {
  readonly data: Float32Array;
  readonly shape: readonly [rows: number, columns: number];
}

/**
 * The model's output for one text of T tokens; H is `info.hiddenSize`. Arrays of one call share memory: `slice()` those
 * that you keep.
 */
export interface ForwardOutput {
  /** (T, H) */
  readonly lastHiddenState?: Matrix;
  /** (H): tanh(dense(first token)). */
  readonly pooled?: Float32Array;
  /** (T, H) each: those that were asked for, the embeddings' output (0) first. */
  readonly hiddenStates?: readonly Matrix[];
  /** Per requested layer and head (T, T): row i holds the attention weights of token i, which sum to 1. */
  readonly attentions?: readonly (readonly Matrix[])[];
  /** T of them. */
  readonly tokens?: readonly TextToken[];
  /** One row for sequence classification, else T; see {@link BERTHead}. */
  readonly logits?: Matrix;
}

/**
 * A BERT encoder in memory, with threads of its own; {@link loadBERT} makes it. Any number of calls may run at once;
 * they are computed together, and a text's result does not depend on what it is computed with. An idle model does not
 * keep the process alive. `close()` frees it, as does the end of an `await using` block and, at some time, the garbage
 * collector.
 */
export class BERT extends Model {
  readonly info: BERTInfo;
  readonly #native: NativeEncoder;
  readonly #tasks: { [Name in BERTTask]?: BERTTasks[Name] } = {};

  private constructor(source: string, encoder: NativeEncoder) {
    super(source, encoder);
    this.#native = encoder;
    this.info = Object.freeze(encoder.info);
  }

  /** @internal */
  static of(source: string, encoder: NativeEncoder): BERT {
    return new BERT(source, encoder);
  }

  /** What the model is doing: what runs and waits, its speed. Costs microseconds, and never waits. */
  stats(): BERTStats {
    this.checkOpen();
    return this.#native.stats();
  }

  /** @internal The addon's handle of the model. */
  get native(): NativeEncoder {
    return this.#native;
  }

  /** Vectors of texts. Task `"feature-extraction"`. */
  get embed(): EmbedTask {
    return this.#task("feature-extraction");
  }
  /** Labels of texts or pairs. Task `"text-classification"`; needs a sequence-classification head. */
  get classify(): ClassifyTask {
    return this.#task("text-classification");
  }
  /**
   * Labels that are given with the call. Task `"zero-shot-classification"`; needs an entailment classifier, or no head.
   */
  get zeroShot(): ZeroShotTask {
    return this.#task("zero-shot-classification");
  }
  /** Predicts masked words. Task `"fill-mask"`; needs a masked-lm head. */
  get fillMask(): FillMaskTask {
    return this.#task("fill-mask");
  }
  /** Named entities. Task `"token-classification"`; needs a token-classification head. */
  get entities(): EntitiesTask {
    return this.#task("token-classification");
  }
  /** Finds answers in contexts. Task `"question-answering"`; needs a question-answering head. */
  get answer(): AnswerTask {
    return this.#task("question-answering");
  }
  /** Ranks documents for a query. Task `"rerank"`; needs a classifier with one label, or no head. */
  get rerank(): RerankTask {
    return this.#task("rerank");
  }

  #task<Name extends BERTTask>(name: Name): BERTTasks[Name] {
    return (this.#tasks[name] ??= taskOf(name, this)) as BERTTasks[Name];
  }

  /** Ids and token types of a text or pair, or of each of several, with special tokens. */
  encode(text: string | TextPair | IdPairInput, options?: BERTEncodeOptions): Promise<Encoding>;
  encode(texts: readonly (string | TextPair | IdPairInput)[], options?: BERTEncodeOptions): Promise<Encoding[]>;
  async encode(
    input: string | TextPair | IdPairInput | readonly (string | TextPair | IdPairInput)[],
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
   * Runs the model over a text, or over each of several, in the input's order and without padding: a text's T is its
   * own.
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
    const { hiddenStates = false, attentions = false, returnTokens = false } = wanted;
    const hiddenLayers = this.#layers("hiddenStates", hiddenStates, this.info.layers);
    const attentionLayers = this.#layers("attentions", attentions, this.info.layers - 1);
    const want = {
      lastHiddenState: wanted.lastHiddenState ?? true,
      pooled: wanted.pooled ?? hasPooler,
      hiddenStates: hiddenStates !== false,
      hiddenLayers,
      attentions: attentions !== false,
      attentionLayers,
      logits: wanted.logits ?? head !== undefined,
    };
    const inputs = checkInputs("forward", input);
    this.checkOpen();
    const outputs = await inSlices(inputs, async (slice) => {
      const texts = nativeInputs(slice);
      const tokens = returnTokens
        ? abortable<PackedTokens>(signal, (id, cancel) => this.#native.tokens(mailbox, id, texts, { maxLength, truncate }, cancel))
        : undefined;
      // Both promises may reject, and only one of them is awaited: this one must not be an unhandled rejection.
      tokens?.catch(() => {});
      const packed = await abortable<PackedOutputs>(signal, (id, cancel) =>
        this.#native.run(mailbox, id, texts, { maxLength, truncate }, want, cancel),
      );
      return this.#outputs(packed, want, tokens && unpackTokens(await tokens));
    });
    return Array.isArray(input) ? outputs : outputs[0]!;
  }

  /** The numbers of layers that were asked for, in order; undefined: all of them. */
  #layers(name: string, wanted: boolean | readonly number[], last: number): number[] | undefined {
    if (typeof wanted === "boolean") return undefined;
    const beyond = wanted.find((layer) => layer > last);
    if (beyond !== undefined) throw invalid("forward", name, `has the layers 0 to ${last}`, beyond);
    return [...new Set(wanted)].sort((a, b) => a - b);
  }

  #outputs(packed: PackedOutputs, want: Wanted, tokens: TextToken[][] | undefined): ForwardOutput[] {
    const { hiddenSize, layers, heads } = this.info;
    const lists = <K extends PackedKey>(key: K) => (want[key] ? unpack(packed[key]) : undefined);
    const [last, pooled, hidden, attentions, logits] = [
      lists("lastHiddenState"),
      lists("pooled"),
      lists("hiddenStates"),
      lists("attentions"),
      lists("logits"),
    ];
    const classes = this.#classes();
    const states = want.hiddenLayers?.length ?? layers + 1;
    const attending = want.attentionLayers?.length ?? layers;
    return Array.from({ length: packed.pooled.lengths.length }, (_, i) => ({
      ...(last && { lastHiddenState: matrix(last[i]!, hiddenSize) }),
      ...(pooled && { pooled: pooled[i]! }),
      ...(hidden && { hiddenStates: split(hidden[i]!, states).map((state) => matrix(state, hiddenSize)) }),
      ...(attentions && {
        attentions: split(attentions[i]!, attending).map((layer) =>
          split(layer, heads).map((head) => matrix(head, Math.sqrt(head.length))),
        ),
      }),
      ...(logits && { logits: matrix(logits[i]!, classes ?? logits[i]!.length) }),
      ...(tokens && { tokens: tokens[i]! }),
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

type PackedKey = "lastHiddenState" | "pooled" | "hiddenStates" | "attentions" | "logits";
type Wanted = Record<PackedKey, boolean> & { hiddenLayers: number[] | undefined; attentionLayers: number[] | undefined };

function unpackTokens({ lengths, ids, tokens, texts, starts, ends }: PackedTokens): TextToken[][] {
  let at = 0;
  return Array.from(lengths, (length) =>
    Array.from({ length }, () => {
      const text = texts[at]!;
      const token = { id: ids[at]!, token: tokens[at]!, start: starts[at]!, end: ends[at]! };
      at++;
      return text === 2 ? token : { ...token, text: text as 0 | 1 };
    }),
  );
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
 * `vocab.txt`), a package of weights, or a hub id, whose files are looked up in the hub's own cache on this machine and
 * downloaded if they are not there. Any of these may be a LoRA adapter in PEFT's layout (`adapter_config.json`,
 * `adapter_model.safetensors`): it is merged into its base, which `base_model_name_or_path` names: a path from the
 * adapter's folder, a package, a path from the working directory or a hub id.
 *
 * @throws {CandlewickError} `OPTION_UNKNOWN`, `OPTION_INVALID`, `ABORTED`, and what can be wrong with a model's files:
 *   `MODEL_NOT_FOUND`, `CONFIG_INVALID`, `WEIGHTS_CORRUPT` and the others in `docs/errors.md`.
 */
export async function loadBERT(source: string, options: LoadOptions = {}): Promise<BERT> {
  const { model } = await load<NativeEncoder, LoadOptions>("loadBERT", native.loadEncoder, source, options, loadOptions);
  const bert = BERT.of(source, model);
  warnIfSlow(bert.info);
  return bert;
}
