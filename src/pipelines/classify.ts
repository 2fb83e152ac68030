/**
 * Text classification and sentiment, as transformers' `TextClassificationPipeline`. The work beside the model is a few
 * numbers for each text.
 */
import type { BERTInfo, TextPair } from "../bert.js";
import { checks, type OptionTable } from "../options.js";
import { fromLogits, sigmoid, softmax } from "./native-calls.js";
import { readTextOrPair } from "./input-checks.js";
import type { FailedRow, Inputs, Row, StreamOptions } from "./stream.js";
import { taskOptions, unfit, type Task, type TaskDefinition, type TaskOptions } from "./task.js";

/** What makes scores of logits. */
export type ScoreFunction = "softmax" | "sigmoid" | "none";

export interface ClassifyOptions extends TaskOptions {
  /** How many labels, best first, or `"all"`; the result is then a list, also for 1. Default: the best one alone. */
  topK?: number | "all";
  /** Default: what the model's `problem_type` asks for, else sigmoid for one label and softmax for several. */
  functionToApply?: ScoreFunction;
}

export interface Classification {
  readonly label: string;
  /** A probability, unless the function is `"none"`. */
  readonly score: number;
}

/** One classification, or with `topK` a list of them. */
export type Classified<O> = O extends { topK: number | "all" } ? Classification[] : Classification;

export interface ClassifyTask extends Task {
  <O extends ClassifyOptions = ClassifyOptions>(text: string | TextPair, options?: O): Promise<Classified<O>>;
  <O extends ClassifyOptions = ClassifyOptions>(texts: readonly (string | TextPair)[], options?: O): Promise<Classified<O>[]>;
  stream<O extends ClassifyOptions = ClassifyOptions, Input extends string | TextPair = string | TextPair>(
    texts: Inputs<Input>,
    options?: O & StreamOptions<"throw">,
  ): AsyncIterableIterator<Row<Input, Classified<O>>>;
  stream<O extends ClassifyOptions = ClassifyOptions, Input extends string | TextPair = string | TextPair>(
    texts: Inputs<Input>,
    options: O & StreamOptions,
  ): AsyncIterableIterator<Row<Input, Classified<O>> | FailedRow<Input>>;
}

const positiveOrAll = checks.integer(1);

export const classification: TaskDefinition<string | TextPair, ClassifyOptions, Classification | Classification[]> = {
  name: "classify",
  options: {
    ...taskOptions,
    topK: (value) => (value === "all" || !positiveOrAll(value) ? undefined : 'must be an integer of at least 1, or "all"'),
    functionToApply: checks.oneOf("softmax", "sigmoid", "none"),
  } satisfies OptionTable<ClassifyOptions>,
  fits(model) {
    if (model.info.head !== "sequence-classification") throw unfit(model, "text classification", "a sequence-classification head");
  },
  read: readTextOrPair("classify"),
  run(model, texts, options) {
    const { topK, functionToApply = defaultFunction(model.info) } = options;
    const { labels } = model.info;
    return fromLogits(model, texts, options, (logits) => {
      const scores = applyFunction(logits, functionToApply);
      const all = Array.from(scores, (score, index) => ({ label: labels[index]!, score })).sort((a, b) => b.score - a.score);
      if (topK === undefined) return all[0]!;
      return topK === "all" ? all : all.slice(0, topK);
    });
  },
};

function defaultFunction({ problemType, labels }: BERTInfo): ScoreFunction {
  if (problemType === "regression") return "none";
  return problemType === "multi_label_classification" || labels.length === 1 ? "sigmoid" : "softmax";
}

function applyFunction(logits: Float32Array, name: ScoreFunction): ArrayLike<number> {
  if (name === "none") return logits;
  return name === "softmax" ? softmax(logits) : Array.from(logits, sigmoid);
}
