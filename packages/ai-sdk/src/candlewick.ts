/** The AI SDK's provider: models by their names. */
import { NoSuchModelError } from "@ai-sdk/provider-v3";
import { BERT, CandlewickError, GPT2 } from "candlewick";
import { CandlewickEmbeddingModel } from "./embedding-model.js";
import { CandlewickLanguageModel } from "./language-model.js";
import { CandlewickRerankingModel } from "./reranking-model.js";
import { bertSource, borrowed, gpt2Source, type LoadableBERT, type LoadableGPT2, type Source } from "candlewick/loadable";
import { PROVIDER, type Version } from "./specification.js";

/** A loaded model, or what loads one: a GPT-2 where a language model is asked for, else a BERT. */
export type ModelOf = LoadableGPT2 | LoadableBERT;

export interface CandlewickOptions {
  /** By the names that programs ask for. A model that is named and not loaded is loaded when it is first used. */
  models: Readonly<Record<string, ModelOf>>;
}

/** Makes the AI SDK's models; called as a function, a language model. */
export interface Candlewick<V extends Version> extends AsyncDisposable {
  (modelId: string): CandlewickLanguageModel<V>;
  readonly specificationVersion: V;
  /** Each throws a `NoSuchModelError` for a name without a model of this kind. */
  languageModel(modelId: string): CandlewickLanguageModel<V>;
  embeddingModel(modelId: string): CandlewickEmbeddingModel<V>;
  rerankingModel(modelId: string): CandlewickRerankingModel<V>;
  imageModel(modelId: string): never;
  /** Closes the models that were loaded here; those that were given stay open. */
  close(): Promise<void>;
}

/** What a version of the AI SDK is given. */
export function forVersion<V extends Version>(version: V) {
  return {
    /** A provider of several models. It closes those that it has loaded, when it is closed. */
    createCandlewick: (options: CandlewickOptions): Candlewick<V> => create(version, options),
    /** A GPT-2 for `generateText` and `streamText`. Its `close()` closes what was loaded for it. */
    languageModel: (model: LoadableGPT2) => new CandlewickLanguageModel(version, gpt2Source(model)),
    /** A BERT for `embed` and `embedMany`. Its `close()` closes what was loaded for it. */
    embeddingModel: (model: LoadableBERT) => new CandlewickEmbeddingModel(version, bertSource(model)),
    /** A BERT for `rerank`. Its `close()` closes what was loaded for it. */
    rerankingModel: (model: LoadableBERT) => new CandlewickRerankingModel(version, bertSource(model)),
  };
}

function create<V extends Version>(version: V, { models, ...rest }: CandlewickOptions): Candlewick<V> {
  const strange = Object.keys(rest);
  if (strange.length > 0) throw new CandlewickError("OPTION_UNKNOWN", `createCandlewick: unknown option "${strange[0]}"; known: models`);
  if (typeof models !== "object" || models === null) throw new CandlewickError("OPTION_INVALID", "createCandlewick: models must be an object of models by name");

  // A BERT that embeds and reranks is loaded once.
  const gpt2s = new Map<string, Source<GPT2>>();
  const berts = new Map<string, Source<BERT>>();
  const find = <Model, Given extends ModelOf>(
    modelId: string,
    modelType: "languageModel" | "embeddingModel" | "rerankingModel",
    fits: (given: ModelOf) => given is Given,
    sources: Map<string, Source<Model>>,
    make: (given: Given, modelId: string) => Source<Model>,
  ): Source<Model> => {
    const given = Object.hasOwn(models, modelId) ? models[modelId]! : undefined;
    if (given === undefined || !fits(given)) throw new NoSuchModelError({ modelId, modelType });
    const source = sources.get(modelId) ?? make(given, modelId);
    sources.set(modelId, source);
    return borrowed(source);
  };
  const isGPT2 = (given: ModelOf): given is LoadableGPT2 => !(given instanceof BERT);
  const isBERT = (given: ModelOf): given is LoadableBERT => !(given instanceof GPT2);

  const languageModel = (modelId: string) => new CandlewickLanguageModel(version, find(modelId, "languageModel", isGPT2, gpt2s, gpt2Source));
  const close = async () => {
    await Promise.all([...gpt2s.values(), ...berts.values()].map((source) => source.close()));
  };
  return Object.assign((modelId: string) => languageModel(modelId), {
    specificationVersion: version,
    languageModel,
    embeddingModel: (modelId: string) => new CandlewickEmbeddingModel(version, find(modelId, "embeddingModel", isBERT, berts, bertSource)),
    rerankingModel: (modelId: string) => new CandlewickRerankingModel(version, find(modelId, "rerankingModel", isBERT, berts, bertSource)),
    imageModel: (modelId: string): never => {
      throw new NoSuchModelError({ modelId, modelType: "imageModel", message: `${PROVIDER} has no models of images` });
    },
    close,
    [Symbol.asyncDispose]: close,
  });
}
