/** What {@link evaluate} gives. All shares are from 0 to 1, BLEU and chrF from 0 to 100, losses in nats. */
import type { ProblemType, Task } from "../data/options.js";

export interface Scores {
  readonly precision: number;
  readonly recall: number;
  readonly f1: number;
}

export interface ClassScores extends Scores {
  readonly label: string;
  /** How many there are in the data. */
  readonly support: number;
}

/** A row, and what the model made of it. */
export interface Sample {
  readonly input: unknown;
  readonly expected: unknown;
  readonly predicted: unknown;
  /** The probability that the model gave to what it predicted; of a classifier with one label for each text. */
  readonly score?: number;
}

interface Common {
  /** Rows (of `text-generation`: documents) that were measured. */
  readonly examples: number;
  readonly seconds: number;
  /** Of classifiers the first rows that went wrong, of generators the first rows. */
  readonly samples: readonly Sample[];
  /** What was inferred from the data, in a line each: which classes its labels are, and which problem. */
  readonly notes?: readonly string[];
}

export interface ClassificationMetrics extends Common {
  readonly problemType: ProblemType;
  readonly labels: readonly string[];
  readonly loss: number;
  /** With several labels: of rows whose labels are all right. */
  readonly accuracy: number;
  /** Wilson's 95% interval of the accuracy; of single labels. */
  readonly accuracyInterval?: readonly [low: number, high: number];
  readonly micro: Scores;
  /** The mean over the classes that occur. */
  readonly macro: Scores;
  /** The mean weighted by support. */
  readonly weighted: Scores;
  /** Matthews's correlation coefficient; of single labels. */
  readonly mcc?: number;
  readonly perClass: readonly ClassScores[];
  /** Rows: true classes; columns: predictions. For single labels and at most 500 classes. */
  readonly confusionMatrix?: readonly (readonly number[])[];
  /** The expected calibration error in ten bins; for single labels. */
  readonly calibrationError?: number;
  /** Share of wrong decisions; of several labels. */
  readonly hammingLoss?: number;
}

export interface RegressionMetrics extends Common {
  readonly problemType: "regression";
  readonly labels: readonly string[];
  readonly loss: number;
  readonly meanSquaredError: number;
  readonly meanAbsoluteError: number;
  readonly pearson: number;
  readonly spearman: number;
}

/** Entities as seqeval counts them: one is right if its kind, start and end are. */
export interface EntityMetrics extends Common, Scores {
  readonly labels: readonly string[];
  readonly loss: number;
  readonly macro: Scores;
  readonly weighted: Scores;
  /** Share of words whose tag is right. */
  readonly accuracy: number;
  readonly perClass: readonly ClassScores[];
}

/** As SQuAD scores them. */
export interface AnswerScores {
  readonly exactMatch: number;
  readonly f1: number;
  /** F1 where each Chinese character is a word. */
  readonly characterF1: number;
}

export interface AnswerMetrics extends Common, AnswerScores {
  readonly loss: number;
  /** Of questions that have an answer and that have none, if there are such. */
  readonly withAnswer?: AnswerScores;
  readonly withoutAnswer?: AnswerScores;
}

export interface LanguageMetrics extends Common {
  /** Nats a token. */
  readonly loss: number;
  readonly perplexity: number;
  /** All bits over all bytes of UTF-8: comparable between tokenizers. */
  readonly bitsPerByte: number;
  /** Share of tokens that were the most likely ones. */
  readonly tokenAccuracy: number;
  readonly tokens: number;
  readonly bytes: number;
}

export interface Bleu {
  readonly score: number;
  /** Of 1 to 4 words, in per cent. */
  readonly precisions: readonly number[];
  readonly brevityPenalty: number;
  readonly length: number;
  readonly referenceLength: number;
  readonly tokenizer: "13a" | "zh" | "none";
}

/** Likelihoods are of the completions; the rest is there if the model was asked to write. */
export interface CompletionMetrics extends LanguageMetrics {
  readonly bleu?: Bleu;
  readonly chrf?: number;
  readonly chrfPlusPlus?: number;
  /** Share of completions that are right to the letter. */
  readonly exactMatch?: number;
}

export interface MaskedMetrics extends Common {
  readonly loss: number;
  readonly perplexity: number;
  readonly tokenAccuracy: number;
  readonly tokens: number;
}

export interface SimilarityMetrics extends Common {
  /** Between the vectors' cosine and the scores, where there are scores. */
  readonly spearman?: number;
  readonly pearson?: number;
  /**
   * Without scores: how often a text's partner is the nearest of all second texts, and the mean reciprocal of its rank.
   */
  readonly accuracy?: number;
  readonly meanReciprocalRank?: number;
}

export interface MetricsByTask {
  "text-generation": LanguageMetrics;
  completion: CompletionMetrics;
  translation: CompletionMetrics;
  dialogue: CompletionMetrics;
  "text-classification": ClassificationMetrics;
  "sentiment-analysis": ClassificationMetrics;
  "token-classification": EntityMetrics;
  "question-answering": AnswerMetrics;
  "fill-mask": MaskedMetrics;
  "feature-extraction": SimilarityMetrics;
}

export type Metrics<T extends Task = Task> = MetricsByTask[T];
