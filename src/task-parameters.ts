/**
 * What a GPT-2's files say about how it is used: `task_specific_params` in `config.json` (transformers' key; `finetune()` writes the
 * separator there), and `generation_config.json`.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CandlewickError } from "./errors.js";
import { generateOptions } from "./generation-options.js";
import { isPlainObject } from "./options.js";
import type { GenerateOptions } from "./types.js";

type Json = Readonly<Record<string, unknown>>;

/** As the files have them: transformers' names. */
export interface TaskParameters {
  readonly tasks: Json;
  readonly generation: Json;
}

/**
 * Of a model's folders, the first of which that has a file counts; nothing of a file. One that is no JSON is no business of this: loading has said
 * what there is to say.
 */
export async function readTaskParameters(folders: readonly string[]): Promise<TaskParameters> {
  const read = async (name: string): Promise<Json> => {
    for (const folder of folders) {
      try {
        const value: unknown = JSON.parse(await readFile(join(folder, name), "utf8"));
        return isPlainObject(value) ? value : {};
      } catch {
        // In the next one, perhaps.
      }
    }
    return {};
  };
  const [config, generation] = await Promise.all([read("config.json"), read("generation_config.json")]);
  const tasks = config["task_specific_params"];
  return { tasks: isPlainObject(tasks) ? tasks : {}, generation };
}

/** transformers' name → ours. What else a file says does not concern a translation or a reply. */
const NAMES = {
  max_new_tokens: "maxNewTokens",
  min_new_tokens: "minNewTokens",
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  repetition_penalty: "repetitionPenalty",
  no_repeat_ngram_size: "noRepeatNgramSize",
  num_beams: "numBeams",
  length_penalty: "lengthPenalty",
  early_stopping: "earlyStopping",
} as const satisfies Record<string, keyof GenerateOptions>;

/** How the model was taught to do a task. */
export interface Use {
  readonly separator?: string;
  /** None: the files do not say. */
  readonly generation?: GenerateOptions;
}

const parametersOf = ({ tasks }: TaskParameters, task: string): Json => {
  const own = tasks[task];
  return isPlainObject(own) ? own : {};
};

/**
 * What stood between a prompt and what follows it, or between turns, when the model was trained for the task.
 *
 * @throws {CandlewickError} `CONFIG_INVALID`: it is no string.
 */
export function separatorOf(parameters: TaskParameters, task: string): string | undefined {
  const { separator } = parametersOf(parameters, task);
  if (separator === undefined || typeof separator === "string") return separator;
  throw wrong(task, "separator", "must be a string");
}

/** @throws {CandlewickError} `CONFIG_INVALID`: a value that cannot be. */
export function useOf(parameters: TaskParameters, task: "translation" | "dialogue"): Use {
  const separator = separatorOf(parameters, task);
  const { generation } = parameters;
  const given = parametersOf(parameters, task);
  // The general defaults are for sampling, which a translation is not.
  const general = task === "dialogue" && generation["do_sample"] === true ? generation : {};
  const options = convert(task, { ...general, ...given });
  return { separator, generation: Object.keys(options).length > 0 ? options : undefined };
}

function convert(task: string, parameters: Json): GenerateOptions {
  const options: Record<string, unknown> = {};
  for (const [theirs, ours] of Object.entries(NAMES)) {
    const value = parameters[theirs];
    if (value === undefined || value === null) continue;
    const problem = generateOptions[ours](value);
    if (problem) throw wrong(task, theirs, problem);
    options[ours] = value;
  }
  if (parameters["do_sample"] === false) options["temperature"] = 0;
  else if (parameters["do_sample"] === true) options["temperature"] ??= 1;
  return options;
}

const wrong = (task: string, name: string, problem: string) =>
  new CandlewickError("CONFIG_INVALID", `config.json: ${name} in task_specific_params.${task} ${problem}`);

const SAMPLING = ["temperature", "topK", "topP", "minP"] as const;
const BEAMS = ["numBeams", "lengthPenalty", "earlyStopping"] as const;

/**
 * A call's options over the defaults, without those defaults that they leave no room for: who asks for a temperature does not want the
 * beams, who asks for beams does not sample.
 */
export function overDefaults(given: GenerateOptions, defaults: GenerateOptions): GenerateOptions {
  const samples = SAMPLING.some((name) => given[name] !== undefined) || (given.n ?? 1) > 1;
  const numBeams = given.numBeams ?? (samples ? 1 : (defaults.numBeams ?? 1));
  const idle: readonly string[] = numBeams > 1 ? SAMPLING : given.temperature === 0 ? [...SAMPLING, ...BEAMS] : BEAMS;
  const fitting = Object.fromEntries(Object.entries(defaults).filter(([name]) => !idle.includes(name)));
  // Greedy by default, it samples where it is asked to.
  if (samples && fitting["temperature"] === 0) delete fitting["temperature"];
  return { ...fitting, ...given, numBeams };
}
