/**
 * What may be said about a data set, in training and in evaluation alike. Defaults are those of
 * `crates/train/src/data/task.rs`.
 */
import { checks, invalid, isPlainObject, type Check, type OptionTable } from "../options.js";

export const TASKS = [
  "text-generation",
  "completion",
  "translation",
  "dialogue",
  "text-classification",
  "sentiment-analysis",
  "token-classification",
  "question-answering",
  "fill-mask",
  "feature-extraction",
] as const;

/**
 * The task of a training or an evaluation; the first four are GPT-2's.
 *
 * | task | columns by default |
 * |---|---|
 * | `text-generation` | `text` |
 * | `completion` | `prompt`, `completion` |
 * | `translation` | `source`, `target` |
 * | `dialogue` | `messages`: `[{role, content}, …]` or texts in turn |
 * | `text-classification`, `sentiment-analysis` | `text`, `label`, perhaps `textPair` |
 * | `token-classification` | `tokens` and `tags`, or `text` and `entities`: `[{start, end, label}, …]` |
 * | `question-answering` | `question`, `context`, `answers`: `[{text, answerStart}, …]` |
 * | `fill-mask` | `text` |
 * | `feature-extraction` | `text`, `textPair`, perhaps `score` |
 *
 * A `score` is anything in evaluation; in training it is the cosine that the pair should have, from -1 to 1, and pairs
 * without scores are learned by contrast with the others of their batch.
 *
 * The names that such columns have in well-known data sets are found too. Offsets count UTF-16 units, as JavaScript
 * does.
 */
export type Task = (typeof TASKS)[number];

export const CAUSAL_TASKS: ReadonlySet<Task> = new Set(["text-generation", "completion", "translation", "dialogue"]);

export type DataFormat = "jsonl" | "csv" | "tsv" | "text";
export type ProblemType = "single_label_classification" | "multi_label_classification" | "regression";

export interface DataOptions {
  /** Default: by the file's ending; what is not known is plain text. */
  format?: DataFormat;
  /** Names of columns that have not the names above: `{ text: "review", label: "stars" }`. */
  columns?: Readonly<Record<string, string>>;
  /** Tokens in an example, special ones included. Default: the model's positions. */
  maxLength?: number;
  /**
   * Tokens that neighbouring windows of a long text share. Default: a quarter of the window for questions, half of it
   * where the likelihood of texts is measured, else none.
   */
  stride?: number;
  /** Names of the classes by id. Default: the checkpoint's if the data's are among them, else the data's, sorted. */
  labels?: readonly string[];
  /** Of text classification. Default: known from the model, or from the labels: lists, numbers, or names. */
  problemType?: ProblemType;
  /**
   * Between a prompt and its completion. Default: what the model was trained with for the task, as its `config.json`
   * says; else `"\n"` for a translation, nothing for a completion, the end of text between turns.
   */
  separator?: string;
  /** Share of the tokens that a masked language model predicts. Default 0.15. */
  masking?: number;
}

const text: Check = (value) => (typeof value === "string" ? undefined : "must be a string");

export const dataOptions: OptionTable<DataOptions> = {
  format: checks.oneOf("jsonl", "csv", "tsv", "text"),
  columns: (value) =>
    isPlainObject(value) && Object.values(value).every((name) => typeof name === "string" && name !== "")
      ? undefined
      : "must be an object of names of columns",
  maxLength: checks.integer(4),
  stride: checks.integer(0),
  labels: (value) => (Array.isArray(value) && value.length > 0 ? checks.oneOrMore(checks.string)(value) : "must be an array of names"),
  problemType: checks.oneOf("single_label_classification", "multi_label_classification", "regression"),
  separator: text,
  masking: checks.number("above 0, at most 1", (share) => share > 0 && share <= 1),
};

const CLASSES: readonly Task[] = ["text-classification", "sentiment-analysis", "token-classification"];

/** Options that only some tasks have. */
const ONLY: { readonly [K in keyof DataOptions]?: readonly Task[] } = {
  stride: ["text-generation", "fill-mask", "question-answering"],
  labels: CLASSES,
  problemType: ["text-classification", "sentiment-analysis"],
  separator: ["completion", "translation", "dialogue"],
  masking: ["fill-mask"],
};

/** Throws `OPTION_INVALID` for an option that has no effect on the task. */
export function refuseUseless(where: string, task: Task, options: DataOptions): void {
  for (const [name, tasks] of Object.entries(ONLY) as [keyof DataOptions, readonly Task[]][]) {
    const value = options[name];
    if (value !== undefined && !tasks.includes(task)) throw invalid(where, name, `has no effect on ${task}`, value);
  }
}

/** The data options among others: the addon's `DataOptions`. */
export function pickDataOptions(options: DataOptions): DataOptions {
  const names = Object.keys(dataOptions) as (keyof DataOptions)[];
  return Object.fromEntries(names.map((name) => [name, options[name]]));
}
