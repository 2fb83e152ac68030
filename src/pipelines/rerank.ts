/**
 * Documents in the order of how well they answer a query: by a cross-encoder, which reads both together, as sentence-transformers'
 * `CrossEncoder.rank`; or, by a model without a head, by the similarity of their vectors.
 */
import type { BERT } from "../bert.js";
import { checks, invalid, type OptionTable } from "../options.js";
import { similarityOf } from "../vectors.js";
import { logitsOf, sigmoid } from "./call.js";
import type { ScoreFunction } from "./classify.js";
import { vectors } from "./embed.js";
import { isString, isStrings, readObject } from "./read.js";
import { taskOptions, unfit, type SimpleTask, type TaskDefinition, type TaskOptions } from "./task.js";

export interface RerankInput {
  readonly query: string;
  readonly documents: readonly string[];
}

export interface RerankOptions extends TaskOptions {
  /** How many documents. Default: all of them. */
  topK?: number;
  /** What makes scores of a cross-encoder's logits. Default: what its configuration says, else sigmoid. The order is the same. */
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
    if (functionToApply !== undefined && !isCrossEncoder(model)) {
      throw invalid("rerank", "functionToApply", "has no effect on similarities", functionToApply);
    }
  },
  read: (input) => readObject("rerank", input, { query: isString, documents: isStrings }) as unknown as RerankInput,
  async run(model, inputs, options) {
    const results: RankedDocument[][] = [];
    const { onProgress, ...call } = options;
    for (const [index, input] of inputs.entries()) {
      const progress = onProgress && (({ done, total }: { done: number; total: number }) => onProgress({ done: index + done / total, total: inputs.length }));
      results.push(await rank(model, input, { ...call, onProgress: progress }));
    }
    return results;
  },
};

async function rank(model: BERT, { query, documents }: RerankInput, options: RerankOptions): Promise<RankedDocument[]> {
  const { topK = documents.length, functionToApply, ...call } = options;
  const cross = isCrossEncoder(model);
  const scores = cross ? await crossScores(model, query, documents, call, functionToApply) : await similarities(model, query, documents, call);
  const method = cross ? ("cross-encoder" as const) : ("similarity" as const);
  return documents
    .map((document, index) => ({ index, score: scores[index]!, document, method }))
    .sort((a, b) => b.score - a.score)
    .slice(0, topK);
}

async function crossScores(
  model: BERT,
  query: string,
  documents: readonly string[],
  call: TaskOptions,
  functionToApply: RerankOptions["functionToApply"],
): Promise<number[]> {
  const identity = model.info.crossEncoderActivation?.endsWith("Identity");
  const apply = functionToApply ?? (identity ? "none" : "sigmoid");
  const logits = await logitsOf(model, documents.map((textPair) => ({ text: query, textPair })), call);
  return logits.map(([logit]) => (apply === "none" ? logit! : sigmoid(logit!)));
}

async function similarities(model: BERT, query: string, documents: readonly string[], call: TaskOptions): Promise<number[]> {
  const { prompts, similarity } = model.info.sentences;
  const named = (...names: string[]) => ({ promptName: names.find((name) => Object.hasOwn(prompts, name)) });
  const { onProgress: _progress, ...quiet } = call;
  const [[of], rows] = await Promise.all([
    vectors(model, [query], { ...quiet, ...named("query") }),
    vectors(model, documents, { ...call, ...named("document", "passage", "corpus") }),
  ]);
  const compare = similarityOf(similarity);
  return rows.map((row) => compare(of!, row));
}
