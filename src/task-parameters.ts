/**
 * What a GPT-2's files say about how it is used: `task_specific_params` in `config.json` (transformers' key;
 * `finetune()` writes the separator there), and `generation_config.json`.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CandlewickError } from "./errors.js";
import { convertGeneration, type GenerationDefaults, type GenerationFiles, generationKeys } from "./generation-defaults.js";
import { isPlainObject } from "./options.js";

type Json = Readonly<Record<string, unknown>>;

/** As the files have them: transformers' names. */
export interface TaskParameters extends GenerationFiles {
  readonly tasks: Json;
}

/**
 * Reads both files, each from the first of a model's folders that has it. Loading has already refused a file that is
 * not a JSON object.
 */
export async function readTaskParameters(folders: readonly string[]): Promise<TaskParameters> {
  const read = async (name: string): Promise<Json | undefined> => {
    for (const folder of folders) {
      try {
        const value: unknown = JSON.parse(await readFile(join(folder, name), "utf8"));
        return isPlainObject(value) ? value : {};
      } catch {
        // In the next one, perhaps.
      }
    }
    return undefined;
  };
  const [config = {}, generation] = await Promise.all([read("config.json"), read("generation_config.json")]);
  const tasks = config["task_specific_params"];
  return { tasks: isPlainObject(tasks) ? tasks : {}, generation, config };
}

/** How the model was taught to do a task. */
export interface Use {
  readonly separator?: string;
  /** None: the files do not say. */
  readonly generation?: GenerationDefaults;
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

/**
 * How the model does a task by default: what its files say of the task, over what they say of generation in general, or
 * over `fallback` where they do not say whether to sample.
 *
 * @throws {CandlewickError} `CONFIG_INVALID`: a value that cannot be.
 */
export function useOf(parameters: TaskParameters, task: "translation" | "dialogue" | "text-generation", fallback?: Json): Use {
  const given = parametersOf(parameters, task);
  const general = generationKeys(parameters);
  // A file that samples is not meant for a translation, and a greedy one not for a conversation.
  const fits = task === "text-generation" || (task === "dialogue" && general?.["do_sample"] === true);
  const base = fits && general ? general : given["do_sample"] === undefined ? fallback : undefined;
  const { separator: _, ...keys } = given;
  const json = { ...base, ...keys };
  if (Object.keys(json).length === 0) return { separator: separatorOf(parameters, task) };
  const { defaults } = convertGeneration(`config.json, task_specific_params.${task}`, json);
  return { separator: separatorOf(parameters, task), generation: defaults };
}

const wrong = (task: string, name: string, problem: string) =>
  new CandlewickError("CONFIG_INVALID", `config.json: ${name} in task_specific_params.${task} ${problem}`);
