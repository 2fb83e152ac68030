/** `pipeline(task, model, options)`: a task by its name, on a model that is loaded or named. */
import { BERT, loadBERT } from "../bert.js";
import { CandlewickError } from "../errors.js";
import { LOAD_OPTION_NAMES, type LoadOptions } from "../load.js";
import { isPlainObject, invalid } from "../options.js";
import { answering, type AnswerOptions, type AnswerTask } from "./answer.js";
import { classification, type ClassifyOptions, type ClassifyTask } from "./classify.js";
import { embedding, type EmbedOptions, type EmbedTask } from "./embed.js";
import { entities, type EntitiesOptions, type EntitiesTask } from "./entities.js";
import { fillMask, type FillMaskOptions, type FillMaskTask } from "./fill-mask.js";
import { reranking, type RerankOptions, type RerankTask } from "./rerank.js";
import { createTask, type Task, type TaskDefinition } from "./task.js";
import { zeroShot, type ZeroShotOptions, type ZeroShotTask } from "./zero-shot.js";

/** The tasks by name, and what each is as a function. */
export interface Pipelines {
  "feature-extraction": EmbedTask;
  "text-classification": ClassifyTask;
  /** The same as `"text-classification"`. */
  "sentiment-analysis": ClassifyTask;
  "zero-shot-classification": ZeroShotTask;
  "fill-mask": FillMaskTask;
  "token-classification": EntitiesTask;
  /** The same as `"token-classification"`. */
  ner: EntitiesTask;
  "question-answering": AnswerTask;
  rerank: RerankTask;
}

/** The options of each task's calls. */
export interface PipelineTaskOptions {
  "feature-extraction": EmbedOptions;
  "text-classification": ClassifyOptions;
  "sentiment-analysis": ClassifyOptions;
  "zero-shot-classification": ZeroShotOptions;
  "fill-mask": FillMaskOptions;
  "token-classification": EntitiesOptions;
  ner: EntitiesOptions;
  "question-answering": AnswerOptions;
  rerank: RerankOptions;
}

export type PipelineTask = keyof Pipelines;

/** How the model is loaded, if it is named; and the defaults of the task's calls. `signal` and `onProgress` are the load's. */
export type PipelineOptions<Name extends PipelineTask = PipelineTask> = LoadOptions &
  Partial<Omit<PipelineTaskOptions[Name], keyof LoadOptions>>;

// Each definition is of its own types, which `Pipelines` says.
type AnyDefinition = TaskDefinition<any, any, any>;

/** The definition of each task. */
const definitions: Record<PipelineTask, AnyDefinition> = {
  "feature-extraction": embedding,
  "text-classification": classification,
  "sentiment-analysis": classification,
  "zero-shot-classification": zeroShot,
  "fill-mask": fillMask,
  "token-classification": entities,
  ner: entities,
  "question-answering": answering,
  rerank: reranking,
};

/**
 * A task, ready to be called:
 *
 * ```ts
 * await using classify = await pipeline("text-classification", "./my-bert");
 * const { label, score } = await classify("I loved it");
 * for await (const { input, result } of classify.stream(lines)) …
 * ```
 *
 * `model` is what {@link loadBERT} takes, or a loaded {@link BERT}, which then stays open when the task is closed.
 *
 * @throws {CandlewickError} `TASK_UNSUPPORTED`: there is no such task, or this model cannot do it (the message says what it can);
 *   `OPTION_UNKNOWN`, `OPTION_INVALID`, and what {@link loadBERT} throws.
 */
export async function pipeline<Name extends PipelineTask>(
  task: Name,
  model: string | BERT,
  options: PipelineOptions<Name> = {} as PipelineOptions<Name>,
): Promise<Pipelines[Name]> {
  if (!Object.hasOwn(definitions, task)) {
    throw new CandlewickError("TASK_UNSUPPORTED", `There is no task "${String(task)}"; there are ${Object.keys(definitions).join(", ")}`);
  }
  if (!isPlainObject(options)) throw invalid("pipeline", "options", "must be a plain object", options);
  const ofLoad = ([name]: [string, unknown]) => (LOAD_OPTION_NAMES as readonly string[]).includes(name);
  const given = Object.entries(options);
  const load = Object.fromEntries(given.filter(ofLoad));
  const defaults = Object.fromEntries(given.filter((entry) => !ofLoad(entry)));
  const definition = definitions[task];
  if (model instanceof BERT) {
    const [idle] = Object.keys(load);
    if (idle !== undefined) throw invalid("pipeline", idle, "has no effect on a model that is loaded", load[idle]);
    return create(definition, model, defaults, false) as Pipelines[Name];
  }
  const loaded = await loadBERT(model, load);
  try {
    return create(definition, loaded, defaults, true) as Pipelines[Name];
  } catch (error) {
    await loaded.close();
    throw error;
  }
}

/** What is wrong with model and defaults is said now, and not by the first call. */
function create(definition: AnyDefinition, model: BERT, defaults: object, owned: boolean): Task {
  definition.fits(model);
  definition.check?.(model, defaults);
  return createTask(definition, model, defaults, owned);
}

/** The task of a model's method. */
export function taskOf<Name extends PipelineTask>(name: Name, model: BERT): Pipelines[Name] {
  return createTask(definitions[name], model) as unknown as Pipelines[Name] & Task;
}
