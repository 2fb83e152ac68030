/** The inputs of tasks, checked and copied. */
import type { TextPair } from "../bert.js";
import { CandlewickError } from "../errors.js";
import { isPlainObject, show, unknown } from "../options.js";

/** Inputs, checked; the error of a bad one says which it is. */
export function readAll<Input>(inputs: readonly unknown[], read: (input: unknown) => Input): Input[] {
  return Array.from(inputs, (input, index) => {
    try {
      return read(input);
    } catch (error) {
      throw error instanceof CandlewickError && inputs.length > 1 ? error.at(index) : error;
    }
  });
}

/** A text, for a task that reads single ones. */
export function readText(name: string): (input: unknown) => string {
  return (input) => {
    if (typeof input === "string") return input;
    throw new CandlewickError("INPUT_INVALID", `${name}: a text must be a string, got ${show(input)}`);
  };
}

/** A text or a pair. */
export function readTextOrPair(name: string): (input: unknown) => string | TextPair {
  return (input) => {
    if (typeof input === "string") return input;
    const { text, textPair } = readObject(name, input, { text: isString, textPair: isString });
    return { text, textPair } as TextPair;
  };
}

type Fields = Record<string, (value: unknown) => boolean>;

/** An object with exactly these fields. */
export function readObject(name: string, input: unknown, fields: Fields): Record<string, unknown> {
  const names = Object.keys(fields);
  const form = `{${names.join(", ")}}`;
  if (!isPlainObject(input)) throw new CandlewickError("INPUT_INVALID", `${name}: expected ${form}, got ${show(input)}`);
  const given = { ...input };
  for (const key in given) if (!names.includes(key)) throw unknown(name, "key of an input", key, names);
  const wrong = names.find((key) => !fields[key]!(given[key]));
  if (wrong) throw new CandlewickError("INPUT_INVALID", `${name}: ${wrong} in ${form} is ${show(given[wrong])}`);
  return given;
}

export const isString = (value: unknown): boolean => typeof value === "string";
export const isStrings = (value: unknown): boolean => Array.isArray(value) && value.length > 0 && Array.from(value).every(isString);
