import { loadBERT, BERT } from "../bert.js";
import { CAUSAL_TASKS, dataOptions, pickDataOptions, refuseUseless, TASKS, type DataOptions, type Task } from "../data/options.js";
import { openData, type DataSource } from "../data/source.js";
import { GPT2, loadGPT2 } from "../gpt2.js";
import { loadOptions, type Device, type Dtype, type LoadProgress } from "../load.js";
import { checkOptions, checks, invalid, isPlainObject, type OptionTable } from "../options.js";
import type { Metrics, RegressionMetrics } from "./metrics.js";
import { separatorOf } from "../task-parameters.js";
import { writeReport } from "./write-report.js";

/** How a generator writes the texts that are compared with the references: by beam search or greedily. */
export interface EvaluationGeneration {
  /** Default 128. */
  maxNewTokens?: number;
  /** Default 1: greedy. */
  numBeams?: number;
  /** Default 1. */
  lengthPenalty?: number;
  /** Default 1. */
  repetitionPenalty?: number;
  /** Default 0. */
  noRepeatNgramSize?: number;
}

const generationOptions: OptionTable<EvaluationGeneration> = {
  maxNewTokens: checks.integer(1),
  numBeams: checks.integer(1, 64),
  lengthPenalty: checks.number("from -10 to 10", (x) => Math.abs(x) <= 10),
  repetitionPenalty: checks.number("above 0", (x) => x > 0),
  noRepeatNgramSize: checks.integer(0),
};

export type EvaluationProgress = LoadProgress | { readonly stage: "evaluate"; readonly done: number; readonly total: number };

export interface EvaluateOptions<T extends Task = Task> extends DataOptions {
  /** What {@link loadGPT2} or {@link loadBERT} take, or a model that they gave, which stays open. */
  model: string | GPT2 | BERT;
  task: T;
  data: DataSource;
  /** Rows that the model sees at once. Default 32. */
  batchSize?: number;
  /** Number of rows that are returned with the model's predictions. Default 20. */
  samples?: number;
  /** Whether a generator writes completions, beside their likelihood. Default: yes, but not for a dialogue. */
  generate?: boolean;
  generation?: EvaluationGeneration;
  /** How BLEU finds words. Default: `"zh"` if most letters of the references are Chinese, else `"13a"`. */
  bleuTokenizer?: "13a" | "zh" | "none";
  /** For the masks of `fill-mask`. Default 0. */
  seed?: number;
  /** A folder for `report.json`, `report.md` and `report.html`, which needs no other file. */
  report?: string;
  /**
   * The trainer's log, whose curves the report draws. Default: `training-log.jsonl` in the model's folder, if it is
   * there.
   */
  trainingLog?: string;
  /** Of a model that is loaded: see {@link LoadOptions}. */
  dtype?: Dtype;
  device?: Device;
  threads?: number;
  /** Aborting it ends the load or the evaluation, with code `ABORTED`. */
  signal?: AbortSignal;
  onProgress?: (progress: EvaluationProgress) => void;
}

const evaluateOptions: OptionTable<EvaluateOptions> = {
  ...dataOptions,
  model: (value) => (value instanceof GPT2 || value instanceof BERT ? undefined : checks.string(value)),
  task: checks.oneOf(...TASKS),
  // Checked when it is opened.
  data: () => undefined,
  batchSize: checks.integer(1, 4096),
  samples: checks.integer(0, 10_000),
  generate: checks.boolean,
  generation: (value) => (isPlainObject(value) ? undefined : "must be an object"),
  bleuTokenizer: checks.oneOf("13a", "zh", "none"),
  seed: checks.integer(0),
  report: checks.string,
  trainingLog: checks.string,
  dtype: loadOptions.dtype,
  device: loadOptions.device,
  threads: loadOptions.threads,
  signal: checks.signal,
  onProgress: checks.function,
};

/** Options without which there is nothing to do. */
export function required<T extends object>(where: string, options: T, names: readonly (keyof T & string)[]): void {
  for (const name of names) if (options[name] === undefined) throw invalid(where, name, "is missing", undefined);
}

/**
 * Measures a model on a data set, with the metrics of its task; nothing computes on the JavaScript thread. The data is
 * read once before, so that whatever is wrong with it is known at once.
 *
 * ```ts
 * const options = { data: "test.jsonl", report: "./report" } as const;
 * const metrics = await evaluate({ model: "./tuned", task: "text-classification", ...options });
 * console.log(metrics.accuracy, metrics.macro.f1);
 * ```
 *
 * @throws {CandlewickError} `OPTION_UNKNOWN`, `OPTION_INVALID` (also: a model of another kind, or with another head,
 *   than the task's), `DATA_NOT_FOUND`, `DATA_EMPTY`, `DATA_INVALID` (with file and line), `COLUMN_UNKNOWN`,
 *   `LABEL_UNKNOWN`, `TOKENIZER_MISSING`, `ABORTED`, `MODEL_CLOSED`, `IO` (the report), and what can be wrong with a
 *   model's files.
 */
export async function evaluate(
  options: EvaluateOptions<"text-classification"> & { problemType: "regression" },
): Promise<RegressionMetrics>;
export async function evaluate<T extends Task>(options: EvaluateOptions<T>): Promise<Metrics<T>>;
export async function evaluate<T extends Task>(options: EvaluateOptions<T>): Promise<Metrics<T> | RegressionMetrics> {
  const checked = checkOptions("evaluate", options, evaluateOptions as OptionTable<EvaluateOptions<T>>);
  required("evaluate", checked, ["model", "task", "data"]);
  const generation = checkOptions("evaluate: generation", checked.generation ?? {}, generationOptions);
  const { task, signal, onProgress, batchSize, samples, generate, bleuTokenizer, seed } = checked;
  const causal = CAUSAL_TASKS.has(task);
  refuseUseless("evaluate", task, checked);
  const writes = causal && task !== "text-generation";
  for (const name of writes ? [] : (["generate", "generation", "bleuTokenizer"] as const)) {
    if (checked[name] !== undefined) throw invalid("evaluate", name, `has no effect on ${task}`, checked[name]);
  }
  const started = performance.now();
  await using opened = await model(checked, causal);
  await using data = await openData("evaluate", checked.data, checked);
  const separator = checked.separator ?? (opened.model instanceof GPT2 ? separatorOf(opened.model.tasks, task) : undefined);
  const request = {
    task,
    data: data.paths,
    batchSize,
    samples,
    generate,
    generation,
    bleuTokenizer,
    seed,
    options: { ...pickDataOptions(checked), separator },
  };
  const report = onProgress && ((done: number, total: number) => onProgress({ stage: "evaluate", done, total }));
  const result = JSON.parse(await opened.model.evaluation(JSON.stringify(request), signal, report));
  const metrics = { ...result, seconds: (performance.now() - started) / 1000 } as Metrics<T>;
  if (checked.report !== undefined) {
    await writeReport(checked.report, { task, model: opened.model.source, data: checked.data, metrics, trainingLog: checked.trainingLog });
  }
  return metrics;
}

/** The model of the options; `evaluate` closes it if it loaded it. */
async function model<T extends Task>(
  { model, task, dtype, device, threads, signal, onProgress }: EvaluateOptions<T>,
  causal: boolean,
): Promise<AsyncDisposable & { model: GPT2 | BERT }> {
  const load = { dtype, device, threads };
  if (typeof model === "string") {
    const loaded = await (causal ? loadGPT2 : loadBERT)(model, { ...load, signal, onProgress });
    return { model: loaded, [Symbol.asyncDispose]: () => loaded.close() };
  }
  if (model instanceof GPT2 !== causal) {
    throw invalid("evaluate", "model", `must be a ${causal ? "GPT-2" : "BERT"} for ${task}`, model);
  }
  for (const [name, value] of Object.entries(load)) {
    if (value !== undefined) throw invalid("evaluate", name, "has no effect on a model that is loaded", value);
  }
  return { model, async [Symbol.asyncDispose]() {} };
}
