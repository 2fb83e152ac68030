/** `pipeline(task, model, options)`: a task by its name, on a model that is loaded or named. */
import { BERT, loadBERT } from "../bert.js";
import { CandlewickError } from "../errors.js";
import { GPT2, loadGPT2 } from "../gpt2.js";
import { LOAD_OPTION_NAMES, type LoadOptions } from "../load.js";
import { checks, isPlainObject, invalid } from "../options.js";
import { isShipped, shippedModel, type Language } from "../default-models.js";
import { definitions, type AnyDefinition, type BERTTask, type BERTTaskOptions, type BERTTasks } from "./definitions.js";
import { createDialogue, type DialogueOptions, type DialogueTask } from "./dialogue.js";
import { createTextGeneration, type TextGenerationOptions, type TextGenerationTask } from "./generate-text.js";
import { createTask } from "./task.js";
import { createTranslation, type TranslationOptions, type TranslationTask } from "./translate.js";

/** The tasks by name, and what each is as a function. */
export interface Pipelines extends BERTTasks {
  "text-generation": TextGenerationTask;
  translation: TranslationTask;
  dialogue: DialogueTask;
}

/** The options of each task's calls. */
export interface PipelineTaskOptions extends BERTTaskOptions {
  "text-generation": TextGenerationOptions;
  translation: TranslationOptions;
  dialogue: DialogueOptions;
}

export type PipelineTask = keyof Pipelines;
/** A loaded model for the task. */
export type PipelineModel<Name extends PipelineTask> = Name extends BERTTask ? BERT : GPT2;

/**
 * How the model is loaded, if it is named; and the defaults of the task's calls. `signal` and `onProgress` are the
 * load's.
 */
export type PipelineOptions<Name extends PipelineTask = PipelineTask> = LoadOptions &
  Partial<Omit<PipelineTaskOptions[Name], keyof LoadOptions>> & {
    /**
     * Where no model is named: the language of the texts, which decides the model. Default: the task's first, `"en"`.
     */
    language?: Language;
    /** Of a task that a GPT-2 does: as `loadGPT2()` takes it. */
    kvCacheBytes?: number;
  };

/** How a task is made. */
interface Kind {
  /** What it takes, for messages. */
  readonly model: string;
  isModel(value: unknown): boolean;
  load(source: string, options: LoadOptions): Promise<BERT | GPT2>;
  create(model: BERT | GPT2, defaults: object, owned: boolean): unknown;
}

const generating = (create: (model: GPT2, defaults: object, owned: boolean) => unknown): Kind => ({
  model: "GPT2",
  isModel: (value) => value instanceof GPT2,
  load: (source, options) => loadGPT2(source, options),
  create: (model, defaults, owned) => create(model as GPT2, defaults, owned),
});

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

const generators = {
  "text-generation": createTextGeneration,
  translation: createTranslation,
  dialogue: createDialogue,
} satisfies Record<Exclude<PipelineTask, BERTTask>, unknown>;

const TASKS: readonly string[] = [...Object.keys(definitions), ...Object.keys(generators)];

function kindOf(task: PipelineTask): Kind {
  if (Object.hasOwn(generators, task)) return generating(generators[task as keyof typeof generators]);
  if (Object.hasOwn(definitions, task)) return understanding(definitions[task as BERTTask]);
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
 * `model` is what {@link loadBERT} takes (for `"text-generation"`, `"translation"` and `"dialogue"` what {@link
 * loadGPT2} takes), or a loaded model, which then stays open when the task is closed. Without one, the package of
 * weights for the task is taken (`candlewick-model-…`), and the options may stand in its place:
 *
 * ```ts
 * const feel = await pipeline("sentiment-analysis", { language: "zh" });
 * ```
 *
 * @throws {CandlewickError} `TASK_UNSUPPORTED`: there is no such task, or this model cannot do it (the message says
 *   what it can); `MODEL_NOT_FOUND`: also where the package of weights is not installed (the message says how to);
 *   `OPTION_UNKNOWN`, `OPTION_INVALID`, and what {@link loadBERT} throws.
 */
export function pipeline<Name extends PipelineTask>(task: Name, options: PipelineOptions<Name>): Promise<Pipelines[Name]>;
export function pipeline<Name extends PipelineTask>(
  task: Name,
  model?: string | PipelineModel<Name>,
  options?: PipelineOptions<Name>,
): Promise<Pipelines[Name]>;
export async function pipeline<Name extends PipelineTask>(
  task: Name,
  first?: string | PipelineModel<Name> | PipelineOptions<Name>,
  second?: PipelineOptions<Name>,
): Promise<Pipelines[Name]> {
  const kind = kindOf(task);
  const alone = isPlainObject(first) && second === undefined;
  const [model, options] = alone ? [undefined, first] : [first, second ?? {}];
  if (!isPlainObject(options)) throw invalid("pipeline", "options", "must be a plain object", options);
  const { language, ...rest } = options;
  const ofLoad = ([name]: [string, unknown]) => LOAD_OPTION_NAMES.includes(name);
  const given = Object.entries(rest);
  const load = Object.fromEntries(given.filter(ofLoad));
  const defaults = Object.fromEntries(given.filter((entry) => !ofLoad(entry)));
  if (language !== undefined && (model !== undefined || !isShipped(task))) {
    throw invalid("pipeline", "language", "has no effect where a model is named", language);
  }
  if (kind.isModel(model)) {
    const [idle] = Object.keys(load);
    if (idle !== undefined) throw invalid("pipeline", idle, "has no effect on a model that is loaded", load[idle]);
    return kind.create(model as BERT | GPT2, defaults, false) as Pipelines[Name];
  }
  if (model === undefined && !isShipped(task)) {
    const message =
      `There is no default model for ${task}: pass one, as in pipeline("${task}", "./my-${kind.model.toLowerCase()}") with a folder, a hub id or a ` +
      `loaded ${kind.model}. Tasks with a default model: ${TASKS.filter(isShipped).join(", ")}`;
    throw new CandlewickError("OPTION_INVALID", message);
  }
  const source = model ?? (isShipped(task) ? shippedModel(task, language as Language | undefined) : undefined);
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
