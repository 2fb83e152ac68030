/**
 * Labels that the model was never trained on: by a classifier of entailment, as transformers'
 * `ZeroShotClassificationPipeline`; or, by a model without a head, by how similar text and label are. The first gives
 * probabilities, the second does not, and says so.
 */
import type { BERT } from "../bert.js";
import { CandlewickError, withPlaces } from "../errors.js";
import { checks, invalid, type OptionTable } from "../options.js";
import { mapInTurns } from "../slices.js";
import { similarityOf } from "../vectors/similarity.js";
import { fromLogits, softmax } from "./native-calls.js";
import { vectors } from "./embed.js";
import { readText } from "./input-checks.js";
import { taskOptions, unfit, type SimpleTask, type TaskDefinition, type TaskOptions } from "./task.js";

export interface ZeroShotOptions extends TaskOptions {
  /** The candidate labels. */
  candidateLabels: readonly string[];
  /**
   * A sentence about the text, `{}` standing for the label. Default: `"This example is {}."`; by similarity, the label
   * alone.
   */
  hypothesisTemplate?: string;
  /** Whether several labels may hold: each then has a probability of its own. Default false. By entailment only. */
  multiLabel?: boolean;
  /**
   * Which of the classifier's labels (`model.info.labels`) says that the hypothesis follows from the text. Default: the
   * one that begins with "entail"; a classifier without one (`LABEL_0`, …) needs it. By entailment only.
   */
  entailmentLabel?: string;
}

export interface ZeroShotResult {
  readonly sequence: string;
  /** Best first. */
  readonly labels: string[];
  /** Probabilities for `"entailment"`, similarities for `"similarity"`. */
  readonly scores: number[];
  readonly method: "entailment" | "similarity";
}

export type ZeroShotTask = SimpleTask<string, ZeroShotOptions, ZeroShotResult>;

const template = (value: unknown) =>
  typeof value === "string" && value.includes("{}") ? undefined : "must be a string with {} where the label goes";

const labelsCheck = (value: unknown) =>
  Array.isArray(value) && value.length > 0 && value.every((label) => typeof label === "string" && label.trim() !== "")
    ? undefined
    : "must be an array of labels, at least one";

const options: OptionTable<ZeroShotOptions> = {
  ...taskOptions,
  candidateLabels: labelsCheck,
  hypothesisTemplate: template,
  multiLabel: checks.boolean,
  entailmentLabel: checks.string,
};

/** The number of the label of entailment; -1: none is, or several could be. */
function entailment({ info: { labels } }: BERT, name?: string): number {
  const fits = (label: string) => (name === undefined ? label.toLowerCase().startsWith("entail") : label === name);
  const first = labels.findIndex(fits);
  // Which of several transformers takes depends on the order in which the file has them.
  return name === undefined && labels.filter(fits).length > 1 ? -1 : first;
}
const isClassifier = ({ info }: BERT): boolean => info.head === "sequence-classification" && info.labels.length > 1;
const MOST_SHOWN = 12;
/** The model's labels, for messages. */
const labelsOf = ({ info: { labels } }: BERT): string =>
  labels.slice(0, MOST_SHOWN).join(", ") + (labels.length > MOST_SHOWN ? `, and ${labels.length - MOST_SHOWN} more` : "");

export const zeroShot: TaskDefinition<string, ZeroShotOptions, ZeroShotResult> = {
  name: "zeroShot",
  options,
  fits(model) {
    if (isClassifier(model) || model.info.head === undefined) return;
    throw unfit(model, "zero-shot classification", "a classifier of entailment, or a model of embeddings");
  },
  check(model, { multiLabel, entailmentLabel }) {
    if (!isClassifier(model)) {
      if (multiLabel !== undefined) throw invalid("zeroShot", "multiLabel", "has no effect on similarities", multiLabel);
      if (entailmentLabel !== undefined) throw invalid("zeroShot", "entailmentLabel", "has no effect on similarities", entailmentLabel);
    } else if (entailment(model, entailmentLabel) === -1) {
      if (entailmentLabel !== undefined) throw invalid("zeroShot", "entailmentLabel", `must be one of the model's labels, ${labelsOf(model)}`, entailmentLabel);
      // transformers takes the last label, with a warning.
      const needs = `one label that begins with "entail", or entailmentLabel, which says which of ${labelsOf(model)} means it`;
      throw unfit(model, "zero-shot classification", needs);
    }
  },
  read: readText("zeroShot"),
  async run(model, texts, { candidateLabels, ...rest }) {
    if (!candidateLabels) throw new CandlewickError("OPTION_INVALID", `zeroShot: candidateLabels ${labelsCheck(undefined)}`);
    const [method, scores] = isClassifier(model)
      ? (["entailment", await entailments(model, texts, candidateLabels, rest)] as const)
      : (["similarity", await similarities(model, texts, candidateLabels, rest)] as const);
    return mapInTurns(texts, (sequence, index) => {
      const ranked = candidateLabels.map((label, i) => ({ label, score: scores[index]![i]! })).sort((a, b) => b.score - a.score);
      return { sequence, labels: ranked.map(({ label }) => label), scores: ranked.map(({ score }) => score), method };
    });
  },
};

type Rest = Omit<ZeroShotOptions, "candidateLabels">;

async function entailments(model: BERT, texts: readonly string[], labels: readonly string[], rest: Rest): Promise<number[][]> {
  const { hypothesisTemplate = "This example is {}.", multiLabel = false, entailmentLabel, onProgress, ...call } = rest;
  const hypotheses = labels.map((label) => hypothesisTemplate.replaceAll("{}", () => label));
  const pairs = texts.flatMap((text) => hypotheses.map((textPair) => ({ text, textPair })));
  const progress = onProgress && (({ done }: { done: number }) => onProgress({ done: done / labels.length, total: texts.length }));
  // The hypothesis stays whole: of a long pair the text is cut.
  const yes = entailment(model, entailmentLabel);
  const no = yes === 0 ? model.info.labels.length - 1 : 0;
  const reading = fromLogits(model, pairs, { ...call, onProgress: progress }, (row) => [row[no]!, row[yes]!] as const, "first");
  const textOf = (pair: number) => (texts.length === 1 ? undefined : Math.floor(pair / labels.length));
  const logits = await withPlaces(reading, textOf);
  return mapInTurns(texts, (_, index) => {
    const rows = logits.slice(index * labels.length, (index + 1) * labels.length);
    if (multiLabel || labels.length === 1) return rows.map((row) => softmax(row)[1]!);
    return softmax(rows.map((row) => row[1]));
  });
}

async function similarities(model: BERT, texts: readonly string[], labels: readonly string[], rest: Rest): Promise<number[][]> {
  const { hypothesisTemplate = "{}", multiLabel: _none, entailmentLabel: _no, ...call } = rest;
  const sentences = labels.map((label) => hypothesisTemplate.replaceAll("{}", () => label));
  const { onProgress: _progress, ...quiet } = call;
  // A label is none of the inputs.
  const labelled = withPlaces(vectors(model, sentences, quiet), () => undefined);
  const [of, about] = await Promise.all([labelled, vectors(model, texts, call)]);
  const compare = similarityOf(model.info.sentences.similarity);
  return mapInTurns(about, (text) => of.map((label) => compare(text, label)));
}
