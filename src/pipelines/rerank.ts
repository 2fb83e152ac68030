/**
 * Documents in the order of how well they answer a query: by a cross-encoder, which reads both together, as
 * sentence-transformers' `CrossEncoder.rank`; or, by a model without a head, by the similarity of their vectors.
 */
import type { BERT } from "../bert.js";
import { CandlewickError, withPlaces } from "../errors.js";
import { checks, invalid, type OptionTable } from "../options.js";
import { mapInTurns } from "../slices.js";
import { similarityOf } from "../vectors/similarity.js";
import { fromLogits, sigmoid } from "./native-calls.js";
import type { ScoreFunction } from "./classify.js";
import { vectors } from "./embed.js";
import { isString, isStrings, readObject } from "./input-checks.js";
import { taskOptions, unfit, type SimpleTask, type TaskDefinition, type TaskOptions } from "./task.js";

export interface RerankInput {
  readonly query: string;
  readonly documents: readonly string[];
}

export interface RerankOptions extends TaskOptions {
  /** How many documents. Default: all of them. */
  topK?: number;
  /**
   * What makes scores of a cross-encoder's logits. Default: what its configuration says, else sigmoid. The order is the
   * same.
   */
  functionToApply?: Exclude<ScoreFunction, "softmax">;
}

export interface RankedDocument {
  /** Among the input's documents. */
  readonly index: number;
  /** Larger is better. */
  readonly score: number;
  readonly document: string;
  /** Whether query and document were read together, or their vectors compared. */
  readonly method: "cross-encoder" | "similarity";
}

export type RerankTask = SimpleTask<RerankInput, RerankOptions, RankedDocument[]>;

const isCrossEncoder = (model: BERT): boolean => model.info.head === "sequence-classification" && model.info.labels.length === 1;

export const reranking: TaskDefinition<RerankInput, RerankOptions, RankedDocument[]> = {
  name: "rerank",
  options: {
    ...taskOptions,
    topK: checks.integer(1),
    functionToApply: checks.oneOf("sigmoid", "none"),
  } satisfies OptionTable<RerankOptions>,
  fits(model) {
    if (isCrossEncoder(model) || model.info.head === undefined) return;
    throw unfit(model, "rerank", "a classifier with one label, or a model of embeddings");
  },
  check(model, { functionToApply }) {
    // A default of the files is not replaced by another in silence.
    if (functionToApply === undefined && isCrossEncoder(model)) activationOf(model.info.crossEncoderActivation);
    const { defaultPrompt, prompts } = model.info.sentences;
    if (isCrossEncoder(model) && defaultPrompt !== undefined && prompts[defaultPrompt]) {
      throw new CandlewickError("UNSUPPORTED_MODEL", `rerank: config_sentence_transformers.json: default_prompt_name is ${JSON.stringify(defaultPrompt)}, and a cross-encoder's prompt is not supported`);
    }
    if (functionToApply !== undefined && !isCrossEncoder(model)) {
      throw invalid("rerank", "functionToApply", "has no effect on similarities", functionToApply);
    }
  },
  read: (input) => readObject("rerank", input, { query: isString, documents: isStrings }) as unknown as RerankInput,
  async run(model, inputs, options) {
    const { topK, functionToApply, onProgress, ...rest } = options;
    const count = inputs.reduce((sum, { documents }) => sum + documents.length, 0);
    const call: TaskOptions = {
      ...rest,
      onProgress: onProgress && (({ done }) => onProgress({ done: (inputs.length * done) / count, total: inputs.length })),
    };
    // Of one query the documents are the inputs.
    const owners = inputs.length === 1 ? undefined : inputs.flatMap(({ documents }, index) => documents.map(() => index));
    const placeOf = (document: number) => (owners ? owners[document] : count === 1 ? undefined : document);
    const cross = isCrossEncoder(model);
    const method = cross ? ("cross-encoder" as const) : ("similarity" as const);
    const scores = cross
      ? await withPlaces(crossScores(model, inputs, call, functionToApply), placeOf)
      : await similarities(model, inputs, call, placeOf);
    let at = 0;
    return mapInTurns(inputs, ({ documents }) =>
      documents
        .map((document, index) => ({ index, score: scores[at++]!, document, method }))
        .sort((a, b) => b.score - a.score)
        .slice(0, topK),
    );
  },
};

const activations: Readonly<Record<string, (logit: number) => number>> = {
  none: (logit) => logit,
  sigmoid,
  Identity: (logit) => logit,
  Sigmoid: sigmoid,
  Tanh: Math.tanh,
  ReLU: (logit) => Math.max(0, logit),
};

/**
 * The function of a cross-encoder by the path of its class, as sentence-transformers writes it; by default sigmoid, as
 * there.
 */
function activationOf(path = "torch.nn.Sigmoid"): (logit: number) => number {
  const [, name] = /^torch\.nn\.(?:modules\.activation\.|modules\.linear\.)?(Identity|Sigmoid|Tanh|ReLU)$/.exec(path) ?? [];
  const apply = name === undefined ? undefined : activations[name];
  if (apply) return apply;
  const problem = `the cross-encoder's activation_fn is ${JSON.stringify(path)}, which is not supported: name the function in functionToApply`;
  throw new CandlewickError("UNSUPPORTED_MODEL", `rerank: ${problem}`);
}

/** Of each document of each input, one after the other. */
function crossScores(
  model: BERT,
  inputs: readonly RerankInput[],
  call: TaskOptions,
  functionToApply: RerankOptions["functionToApply"],
): Promise<number[]> {
  const apply = functionToApply === undefined ? activationOf(model.info.crossEncoderActivation) : activations[functionToApply]!;
  const { lowerCase, maxLength: usual } = model.info.sentences;
  // A character at a time, as the tokenizers' normaliser does it.
  const read = (text: string) => (lowerCase ? Array.from(text, (character) => character.toLowerCase()).join("") : text);
  const pairs = inputs.flatMap(({ query, documents }) => documents.map((textPair) => ({ text: read(query), textPair: read(textPair) })));
  const { maxLength = usual } = call;
  return fromLogits(model, pairs, { ...call, maxLength }, ([logit]) => apply(logit!));
}

async function similarities(
  model: BERT,
  inputs: readonly RerankInput[],
  call: TaskOptions,
  placeOf: (document: number) => number | undefined,
): Promise<number[]> {
  const { prompts, similarity } = model.info.sentences;
  const named = (...names: string[]) => ({ promptName: names.find((name) => Object.hasOwn(prompts, name)) });
  const { onProgress: _progress, ...quiet } = call;
  const documents = inputs.flatMap(({ documents }) => documents);
  const [queries, rows] = await Promise.all([
    vectors(model, inputs.map(({ query }) => query), { ...quiet, ...named("query") }),
    withPlaces(vectors(model, documents, { ...call, ...named("document", "passage", "corpus") }), placeOf),
  ]);
  const compare = similarityOf(similarity);
  const queryOf = inputs.flatMap(({ documents }, index) => documents.map(() => queries[index]!));
  return mapInTurns(rows, (row, index) => compare(queryOf[index]!, row));
}
