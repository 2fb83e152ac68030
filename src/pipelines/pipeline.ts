/** `pipeline(task, model, options)`: a task by its name, on a model that is loaded or named. */
import { BERT, loadBERT } from "../bert.js";
import { CandlewickError } from "../errors.js";
import { GPT2, loadGPT2 } from "../gpt2.js";
import { LOAD_OPTION_NAMES, type LoadOptions } from "../load.js";
import { checks, isPlainObject, invalid } from "../options.js";
import { defaultModelPath } from "../package.js";
import { answering, type AnswerOptions, type AnswerTask } from "./answer.js";
import { classification, type ClassifyOptions, type ClassifyTask } from "./classify.js";
import { embedding, type EmbedOptions, type EmbedTask } from "./embed.js";
import { entities, type EntitiesOptions, type EntitiesTask } from "./entities.js";
import { fillMask, type FillMaskOptions, type FillMaskTask } from "./fill-mask.js";
import { createTextGeneration, type TextGenerationOptions, type TextGenerationTask } from "./generate-text.js";
import { reranking, type RerankOptions, type RerankTask } from "./rerank.js";
import { createTask, type TaskDefinition } from "./task.js";
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
  "text-generation": TextGenerationTask;
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
  "text-generation": TextGenerationOptions;
}

export type PipelineTask = keyof Pipelines;
/** Those that a BERT does: each is also a method of it. */
export type BERTTask = Exclude<PipelineTask, "text-generation">;
/** A loaded model for the task. */
export type PipelineModel<Name extends PipelineTask> = Name extends BERTTask ? BERT : GPT2;

/** How the model is loaded, if it is named; and the defaults of the task's calls. `signal` and `onProgress` are the load's. */
export type PipelineOptions<Name extends PipelineTask = PipelineTask> = LoadOptions &
  Partial<Omit<PipelineTaskOptions[Name], keyof LoadOptions>>;

// Each definition is of its own types, which `Pipelines` says.
type AnyDefinition = TaskDefinition<any, any, any>;

/** The definition of each of BERT's tasks. */
const definitions: Record<BERTTask, AnyDefinition> = {
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

/** How a task is made. Classes are named inside functions, since `bert.ts` is being loaded when this file is. */
interface Kind {
  /** What it takes, for messages. */
  readonly model: string;
  isModel(value: unknown): boolean;
  load(source: string, options: LoadOptions): Promise<BERT | GPT2>;
  create(model: BERT | GPT2, defaults: object, owned: boolean): unknown;
  /** What is taken if no model is named. */
  readonly shipped?: string;
}

const generation: Kind = {
  model: "GPT2",
  isModel: (value) => value instanceof GPT2,
  load: (source, options) => loadGPT2(source, options),
  create: (model, defaults, owned) => createTextGeneration(model as GPT2, defaults, owned),
  shipped: defaultModelPath,
};

const understanding = (definition: AnyDefinition): Kind => ({
  model: "BERT",
  isModel: (value) => value instanceof BERT,
  load: (source, options) => loadBERT(source, options),
  create(model, defaults, owned) {
    // What is wrong with model and defaults is said now, and not by the first call.
    definition.fits(model as BERT);
    definition.check?.(model as BERT, defaults);
    return createTask(definition, model as BERT, defaults, owned);
  },
});

const TASKS: readonly string[] = [...Object.keys(definitions), "text-generation"];

function kindOf(task: PipelineTask): Kind {
  if (task === "text-generation") return generation;
  if (Object.hasOwn(definitions, task)) return understanding(definitions[task]);
  throw new CandlewickError("TASK_UNSUPPORTED", `There is no task "${String(task)}"; there are ${TASKS.join(", ")}`);
}

/**
 * A task, ready to be called:
 *
 * ```ts
 * await using classify = await pipeline("text-classification", "./my-bert");
 * const { label, score } = await classify("I loved it");
 * for await (const { input, result } of classify.stream(lines)) …
 * ```
 *
 * `model` is what {@link loadBERT} takes (for `"text-generation"` what {@link loadGPT2} takes, or nothing, for the model that
 * ships), or a loaded model, which then stays open when the task is closed.
 *
 * @throws {CandlewickError} `TASK_UNSUPPORTED`: there is no such task, or this model cannot do it (the message says what it can);
 *   `OPTION_UNKNOWN`, `OPTION_INVALID`, and what {@link loadBERT} throws.
 */
export async function pipeline<Name extends PipelineTask>(
  task: Name,
  model?: string | PipelineModel<Name>,
  options: PipelineOptions<Name> = {} as PipelineOptions<Name>,
): Promise<Pipelines[Name]> {
  const kind = kindOf(task);
  if (!isPlainObject(options)) throw invalid("pipeline", "options", "must be a plain object", options);
  const ofLoad = ([name]: [string, unknown]) => LOAD_OPTION_NAMES.includes(name);
  const given = Object.entries(options);
  const load = Object.fromEntries(given.filter(ofLoad));
  const defaults = Object.fromEntries(given.filter((entry) => !ofLoad(entry)));
  if (kind.isModel(model)) {
    const [idle] = Object.keys(load);
    if (idle !== undefined) throw invalid("pipeline", idle, "has no effect on a model that is loaded", load[idle]);
    return kind.create(model as BERT | GPT2, defaults, false) as Pipelines[Name];
  }
  const source = model ?? kind.shipped;
  const problem = checks.string(source);
  if (problem) throw invalid("pipeline", `the model for ${task}`, `${problem}, or a ${kind.model}`, source);
  const loaded = await kind.load(source as string, load);
  try {
    return kind.create(loaded, defaults, true) as Pipelines[Name];
  } catch (error) {
    await loaded.close();
    throw error;
  }
}

/** The task of a model's method. */
export function taskOf<Name extends BERTTask>(name: Name, model: BERT): Pipelines[Name] {
  return createTask(definitions[name], model) as unknown as Pipelines[Name];
}
