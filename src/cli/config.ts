/**
 * A command's options out of a configuration file, overridden by flags: what `train`, `evaluate` and `tokenizer` have
 * in common.
 */
import { readFile } from "node:fs/promises";
import { InvalidArgumentError, Option, type Command } from "commander";
import { TASKS } from "../data/options.js";
import { CandlewickError } from "../errors.js";
import { isPlainObject } from "../options.js";
import { number, several } from "./arguments.js";

/**
 * A JSON object with the options that the library's function takes; `$schema` and keys that begin with `//` are for
 * people.
 */
export async function readConfig(path: string | undefined): Promise<Record<string, unknown>> {
  if (path === undefined) return {};
  let config: unknown;
  try {
    config = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    const code = cause instanceof SyntaxError ? "OPTION_INVALID" : "IO";
    throw new CandlewickError(code, `${path}: ${(cause as Error).message}`, { cause });
  }
  if (!isPlainObject(config)) throw new CandlewickError("OPTION_INVALID", `${path} must hold one object of options`);
  return Object.fromEntries(Object.entries(config).filter(([key]) => key !== "$schema" && !key.startsWith("//")));
}

/** Flags over the file's options; objects (`columns`, `generation`, `lora`) key by key. */
export function merged(config: Record<string, unknown>, flags: Record<string, unknown>): Record<string, unknown> {
  const result = { ...config };
  for (const [key, value] of Object.entries(flags)) {
    if (value === undefined) continue;
    const before = result[key];
    result[key] = isPlainObject(before) && isPlainObject(value) ? merged(before, value) : value;
  }
  return result;
}

/** `role=name`, given several times, as an object. */
export function pairs(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("It must be role=name.");
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

/**
 * `lora.rank=8`, given several times, as nested objects. A value is JSON, or else a string.
 */
export function settings(text: string, before: Record<string, unknown> = {}): Record<string, unknown> {
  const at = text.indexOf("=");
  const keys = text.slice(0, at).split(".");
  if (at < 1 || keys.some((key) => key === "" || key === "__proto__")) throw new InvalidArgumentError("It must be option=value.");
  let value: unknown = text.slice(at + 1);
  try {
    value = JSON.parse(text.slice(at + 1));
  } catch {
    // A string without its quotation marks.
  }
  return merged(before, keys.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as Record<string, unknown>);
}

/** The options of a data set; {@link dataFlags} reads them. */
export function withDataOptions(command: Command): Command {
  return command
    .addOption(new Option("-t, --task <task>", "what is learned or measured").choices(TASKS))
    .option("-c, --column <role=name>", "a column that has not its usual name: text=review; may be repeated", pairs)
    .addOption(new Option("--format <format>", "of the files (default: by their endings)").choices(["jsonl", "csv", "tsv", "text"]))
    .option("--max-length <n>", "tokens in an example (default: the model's positions)", number)
    .option("--stride <n>", "tokens that windows of a long text share", number)
    .option("--label <name>", "a class, in the order of ids; may be repeated", several(String))
    .addOption(
      new Option("--problem-type <type>", "of text classification (default: as the model or the labels say)").choices([
        "single_label_classification",
        "multi_label_classification",
        "regression",
      ]),
    )
    .option("--separator <text>", "between a prompt and its completion")
    .option("--masking <share>", "of the tokens that a masked language model guesses (default: 0.15)", number);
}

export interface DataArguments {
  task?: string;
  column?: Record<string, string>;
  format?: string;
  maxLength?: number;
  stride?: number;
  label?: string[];
  problemType?: string;
  separator?: string;
  masking?: number;
}

/** The library's names of them. */
export function dataFlags({ task, column, format, maxLength, stride, label, problemType, separator, masking }: DataArguments) {
  return { task, columns: column, format, maxLength, stride, labels: label, problemType, separator, masking };
}
