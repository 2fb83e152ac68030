/**
 * Ids and fields of vectors, checked, and as the addon reads them: JSON in which "s…" is a string and "n…" a number
 * (`crates/engine/src/vectors/values.rs`).
 */
import { CandlewickError } from "../errors.js";
import { isPlainObject, show } from "../options.js";

/** A string that is not empty, or an integer. */
export type VectorId = string | number;

export type MetadataValue = string | number | boolean | null;

/** What is known of a vector: fields, by name; a field's value is one or a list of them. */
export type Metadata = Readonly<Record<string, MetadataValue | readonly MetadataValue[]>>;

/** Names that filters have a use for. */
const RESERVED = ["and", "or", "not"];
const MOST_ID = 1024;
/** Characters of a vector's metadata as JSON: a megabyte. */
const MOST_METADATA = 1 << 20;

/** What is wrong with an id. */
export function checkId(id: unknown): string | undefined {
  if (typeof id === "number") return Number.isSafeInteger(id) ? undefined : `must be a safe integer or a string, got ${id}`;
  if (typeof id !== "string") return `must be a string or an integer, got ${show(id)}`;
  if (id === "" || id.length > MOST_ID) return `must have 1 to ${MOST_ID} characters, got ${id.length}`;
  return isWhole(id) ? undefined : "has half a surrogate pair";
}

const isWhole = (text: string): boolean => !/\p{Surrogate}/u.test(text);

/** What is wrong with a field's value, or with one of its list. */
export function checkValue(value: unknown): string | undefined {
  if (value === null || typeof value === "boolean") return undefined;
  if (typeof value === "number") return Number.isFinite(value) ? undefined : `must be finite, got ${value}`;
  if (typeof value === "string") return isWhole(value) ? undefined : "has half a surrogate pair";
  return `must be a string, a number, true, false or null, got ${show(value)}`;
}

/** A value that was checked. */
export function encode(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(encode).join()}]`;
  if (typeof value === "string") return JSON.stringify(`s${value}`);
  if (typeof value === "number") return `"n${Object.is(value, -0) ? "-0" : value}"`;
  return String(value);
}

/** A vector's metadata. @throws {CandlewickError} `INPUT_INVALID`. */
export function encodeMetadata(where: string, metadata: unknown): string {
  if (metadata === undefined || metadata === null) return "null";
  const bad = (problem: string) => new CandlewickError("INPUT_INVALID", `${where}: metadata ${problem}`);
  if (!isPlainObject(metadata)) throw bad(`must be a plain object, got ${show(metadata)}`);
  const parts: string[] = [];
  let length = 0;
  for (const [name, value] of Object.entries(metadata)) {
    if (value === undefined) continue;
    if (RESERVED.includes(name)) throw bad(`has a field "${name}", which filters have another use for`);
    if (!isWhole(name) || name.length > MOST_ID) throw bad(`has a field whose name is no text of up to ${MOST_ID} characters`);
    const values: readonly unknown[] = Array.isArray(value) ? Array.from(value) : [value];
    for (const one of values) {
      const problem = checkValue(one);
      if (problem === undefined) continue;
      const flat = isPlainObject(one) || Array.isArray(one) ? "; fields are flat: give what is inside a name of its own" : "";
      throw bad(`field "${name.slice(0, 60)}" ${problem}${flat}`);
    }
    const part = `${JSON.stringify(name)}:${encode(Array.isArray(value) ? values : value)}`;
    length += part.length + 1;
    if (length > MOST_METADATA) throw bad(`is longer than ${MOST_METADATA} characters`);
    parts.push(part);
  }
  return parts.length === 0 ? "null" : `{${parts.join()}}`;
}
