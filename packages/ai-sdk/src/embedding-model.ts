/** BERT as an embedding model of the AI SDK. */
import { TooManyEmbeddingValuesForCallError } from "@ai-sdk/provider-v3";
import { CandlewickError, type BERT, type EmbedOptions } from "candlewick";
import { callErrors } from "./errors.js";
import { ownOptions } from "./options.js";
import { unsupported } from "./prompt.js";
import { CandlewickModel } from "./model.js";
import { PROVIDER, type EmbeddingCall, type Version, type Warning } from "./specification.js";

/** `providerOptions.candlewick` of an embedding model. */
export type EmbeddingOptions = Omit<EmbedOptions, keyof typeof ELSEWHERE | "pooling"> & {
  pooling?: Exclude<EmbedOptions["pooling"], "none">;
};

const numbers = "the AI SDK's vectors are numbers";
const ELSEWHERE = {
  precision: numbers,
  ranges: numbers,
  signal: "the AI SDK's setting for it is abortSignal",
  onProgress: "call the model's own embed() for it",
};

/** Texts of one call; `embedMany` makes several of more. */
const MOST = 2048;

interface EmbedResult {
  embeddings: number[][];
  usage: { tokens: number };
  warnings: Warning[];
}

/** A BERT as `embed` and `embedMany` call it. */
export class CandlewickEmbeddingModel<V extends Version> extends CandlewickModel<V, BERT> {
  readonly maxEmbeddingsPerCall = MOST;
  /** Calls that run at once are computed together. */
  readonly supportsParallelCalls = true;

  doEmbed(call: EmbeddingCall): Promise<EmbedResult> {
    const { provider, modelId } = this;
    return callErrors(modelId, async () => {
      const { values, abortSignal: signal } = call;
      if (values.length > MOST) throw new TooManyEmbeddingValuesForCallError({ provider, modelId, maxEmbeddingsPerCall: MOST, values });
      const options: EmbedOptions = { ...ownOptions(call.providerOptions, ELSEWHERE), ...(signal && { signal }) };
      if (options.pooling === "none") {
        throw new CandlewickError("OPTION_INVALID", `providerOptions.${PROVIDER}: a pooling of "none" gives no vector of a text`);
      }
      const model = await this.source.get(signal);
      const dimensions = "dimensions" in call ? call.dimensions : undefined;
      checkDimensions(dimensions, model, options);
      if (dimensions !== undefined) options.dimensions = dimensions;
      if (values.length === 0) return { embeddings: [], usage: { tokens: 0 }, warnings: [] };
      const [rows, tokens] = await Promise.all([model.embed(values, options), countTokens(model, values, options)]);
      return { embeddings: rows.map((row) => Array.from(row as Float32Array)), usage: { tokens }, warnings: [] };
    });
  }
}

/** The first dimensions may be kept, of a model that was trained for it. */
function checkDimensions(wanted: number | undefined, { info }: BERT, { pooling }: EmbedOptions): void {
  const dimensions = info.hiddenSize * (pooling === undefined ? Math.max(info.sentences.pooling.length, 1) : 1);
  if (wanted !== undefined && wanted > dimensions) throw unsupported(`dimensions of ${wanted}`, `The model's vectors have ${dimensions} dimensions`);
}

/** Tokens that are computed for the vectors: with the prompt before each text, and without what is cut off. */
async function countTokens(model: BERT, values: readonly string[], options: EmbedOptions): Promise<number> {
  const { prompts, defaultPrompt, maxLength: usual } = model.info.sentences;
  const name = options.promptName ?? defaultPrompt;
  const prompt = options.prompt ?? (name === undefined ? undefined : prompts[name]) ?? "";
  const { maxLength = usual, truncate, signal } = options;
  const encodings = await model.encode(prompt ? values.map((value) => prompt + value) : values, { maxLength, truncate, signal });
  return encodings.reduce((sum, { ids }) => sum + ids.length, 0);
}
