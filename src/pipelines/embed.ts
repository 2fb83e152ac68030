/** Embeddings: a vector for each text, as sentence-transformers makes them. */
import type { BERT, Matrix, PoolingName } from "../bert.js";
import { unpack } from "../inputs.js";
import type { PackedFloats, PackedOutputs } from "../native.js";
import { CandlewickError } from "../errors.js";
import { checks, invalid, type OptionTable } from "../options.js";
import { mapInTurns } from "../slices.js";
import { mailbox } from "../runtime.js";
import { columns, inCalls, weighText } from "./native-calls.js";
import { quantise, type Precision, type Ranges, type Vector } from "./precision.js";
import { readText } from "./input-checks.js";
import type { FailedRow, Inputs, Row, StreamOptions } from "./stream.js";
import { taskOptions, type Task, type TaskDefinition, type TaskOptions } from "./task.js";

export interface EmbedOptions extends TaskOptions {
  /**
   * How token vectors become one: their mean, the first token's (`"cls"`), the largest of each dimension (`"max"`), …;
   * `"none"` gives a matrix with a row for each token. Default: what the model's `1_Pooling` says, else `"mean"`.
   */
  pooling?: PoolingName | "none";
  /** Scale vectors to length 1. Default: if the model's `modules.json` has a `Normalize`. */
  normalize?: boolean;
  /**
   * Numbers that are kept of each vector, the first ones, scaled anew where vectors are scaled: for models that were
   * trained for it (Matryoshka), of whose vectors a part is a vector. Default: all.
   */
  dimensions?: number;
  /** Text that goes before each text. Default: the model's default prompt, if it has one. */
  prompt?: string;
  /** The model's own prompt of this name: `"query"`, `"document"`. */
  promptName?: string;
  /**
   * What vectors are made of: `"float32"` (`Float32Array`), `"int8"`, `"uint8"` (a byte for each dimension, between its
   * `ranges`), `"binary"`, `"ubinary"` (a bit for each dimension, set if it is positive). Default `"float32"`.
   */
  precision?: Precision;
  /**
   * For `"int8"` and `"uint8"`: each dimension's least and greatest value. Default: those of the call's own vectors.
   */
  ranges?: Ranges;
}

const POOLINGS = ["cls", "max", "mean", "meanSqrtLength", "weightedMean", "last", "none"] as const;

const embedOptions: OptionTable<EmbedOptions> = {
  ...taskOptions,
  pooling: checks.oneOf(...POOLINGS),
  normalize: checks.boolean,
  dimensions: checks.integer(1, 0xffff_ffff),
  prompt: (value) => (typeof value === "string" ? undefined : "must be a string"),
  promptName: checks.string,
  precision: checks.oneOf("float32", "int8", "uint8", "binary", "ubinary"),
  ranges: (value) => {
    const { minimum, maximum } = (value ?? {}) as Partial<Ranges>;
    return minimum?.length && minimum.length === maximum?.length ? undefined : "must be {minimum, maximum}, lists as long as a vector";
  },
};

/** What {@link EmbedOptions} make of a text. */
export type Embedding<O> = O extends { pooling: "none" }
  ? Matrix
  : O extends { precision: "int8" | "binary" }
    ? Int8Array
    : O extends { precision: "uint8" | "ubinary" }
      ? Uint8Array
      : Float32Array;

/** Vectors of texts; rows of one call share memory: `slice()` what stays. */
export interface EmbedTask extends Task {
  <O extends EmbedOptions = EmbedOptions>(text: string, options?: O): Promise<Embedding<O>>;
  <O extends EmbedOptions = EmbedOptions>(texts: readonly string[], options?: O): Promise<Embedding<O>[]>;
  /** `"int8"` and `"uint8"` need `ranges` here, because a stream never has all vectors. */
  stream<O extends EmbedOptions = EmbedOptions>(
    texts: Inputs<string>,
    options?: O & StreamOptions<"throw">,
  ): AsyncIterableIterator<Row<string, Embedding<O>>>;
  stream<O extends EmbedOptions = EmbedOptions>(
    texts: Inputs<string>,
    options: O & StreamOptions,
  ): AsyncIterableIterator<Row<string, Embedding<O>> | FailedRow<string>>;
}

export const embedding: TaskDefinition<string, EmbedOptions, Vector | Matrix> = {
  name: "embed",
  options: embedOptions,
  // Every BERT has token vectors, whatever its head.
  fits: () => {},
  check(model, { pooling, normalize, dimensions, precision = "float32", prompt, promptName, ranges }) {
    if (prompt !== undefined && promptName !== undefined) {
      throw invalid("embed", "promptName", "has no effect beside a prompt", promptName);
    }
    if (promptName !== undefined && !Object.hasOwn(model.info.sentences.prompts, promptName)) {
      const names = Object.keys(model.info.sentences.prompts);
      throw invalid("embed", "promptName", `must be one of the model's prompts (${names.join(", ") || "it has none"})`, promptName);
    }
    const bytes = precision === "int8" || precision === "uint8";
    if (ranges && !bytes) throw invalid("embed", "ranges", "has no effect without a precision of int8 or uint8", ranges);
    if (pooling !== "none") return;
    if (normalize) throw invalid("embed", "normalize", 'has no effect beside a pooling of "none"', normalize);
    if (dimensions !== undefined) throw invalid("embed", "dimensions", 'has no effect beside a pooling of "none"', dimensions);
    if (precision !== "float32") throw invalid("embed", "precision", 'has no effect beside a pooling of "none"', precision);
  },
  read: readText("embed"),
  async run(model, texts, options) {
    if (options.pooling === "none") return tokenVectors(model, texts, options);
    const rows = await vectors(model, texts, options);
    const { precision = "float32", ranges } = options;
    return precision === "float32" ? rows : quantise(rows, precision, ranges);
  },
};

/** The vectors of texts, as {@link EmbedOptions} say, but for their precision. */
export async function vectors(model: BERT, texts: readonly string[], options: EmbedOptions): Promise<Float32Array[]> {
  const rows = await wholeVectors(model, texts, options);
  const { dimensions, normalize = model.info.sentences.normalize } = options;
  return dimensions === undefined ? rows : firstDimensions(rows, dimensions, normalize);
}

/** The first numbers of each vector, scaled to length 1 if all of them were. */
async function firstDimensions(rows: readonly Float32Array[], dimensions: number, scaled: boolean): Promise<Float32Array[]> {
  return mapInTurns(rows, (row) => {
    if (dimensions > row.length) throw invalid("embed", "dimensions", `must be at most ${row.length}, which the model's vectors have`, dimensions);
    // Scaled once more, a vector that is kept whole could change its last bits.
    if (dimensions === row.length) return row;
    const first = row.slice(0, dimensions);
    if (!scaled) return first;
    let square = 0;
    for (const x of first) square += x * x;
    // torch's normalize: a vector of zeros stays one.
    const length = Math.max(Math.sqrt(square), 1e-12);
    return first.map((x) => x / length);
  });
}

function wholeVectors(model: BERT, texts: readonly string[], options: EmbedOptions): Promise<Float32Array[]> {
  const { pooling, normalize } = options;
  if (pooling === "none") throw new CandlewickError("INTERNAL", "token vectors are no vectors");
  const how = { pooling, normalize, prompt: promptOf(model, options) };
  return inCalls<string, PackedFloats, Float32Array>(
    model,
    texts,
    { options, maxLength: model.info.sentences.maxLength, weigh: weighText },
    (slice) => {
      const given = columns(slice);
      return (native, id, limits, cancel) => native.embed(mailbox, id, given, limits, how, cancel);
    },
    unpack,
  );
}

function promptOf(model: BERT, { prompt, promptName }: EmbedOptions): string | undefined {
  const { prompts, defaultPrompt } = model.info.sentences;
  const name = promptName ?? defaultPrompt;
  return prompt ?? (name === undefined ? undefined : prompts[name]);
}

const STATES = { lastHiddenState: true, hiddenStates: false, attentions: false, pooled: false, logits: false };

function tokenVectors(model: BERT, texts: readonly string[], options: EmbedOptions): Promise<Matrix[]> {
  const prompt = promptOf(model, options) ?? "";
  const { hiddenSize, sentences } = model.info;
  return inCalls<string, PackedOutputs, Matrix>(
    model,
    prompt ? texts.map((text) => prompt + text) : texts,
    // A few hundred tokens each: what comes back is some hundred times what a vector is.
    { options, maxLength: sentences.maxLength, size: 32, weigh: weighText },
    (slice) => {
      const given = columns(slice);
      return (native, id, limits, cancel) => native.run(mailbox, id, given, limits, STATES, cancel);
    },
    (packed) => unpack(packed.lastHiddenState).map((data) => ({ data, shape: [data.length / hiddenSize, hiddenSize] as const })),
  );
}
