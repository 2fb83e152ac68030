/** Which vectors count, by their metadata: checked, and as `crates/engine/src/vectors/filter.rs` reads it. */
import { CandlewickError } from "../errors.js";
import { isPlainObject, show, unknown } from "../options.js";
import { checkValue, encode, type MetadataValue } from "./metadata.js";

/** What must hold of a field, all of it. A list meets a test if one of its values does. */
export interface FieldFilter {
  /** Equal. `null` is also what is missing. */
  eq?: MetadataValue;
  /** Not equal, or missing. */
  ne?: MetadataValue;
  /** Above: a number above a number, a string behind a string, as JavaScript orders them. */
  gt?: string | number;
  gte?: string | number;
  lt?: string | number;
  lte?: string | number;
  /** Equal to one of them. */
  in?: readonly MetadataValue[];
  /** Equal to none of them, or missing. */
  nin?: readonly MetadataValue[];
  /** Whether there is such a field (`null` is one). */
  exists?: boolean;
}

/**
 * Fields and what must hold of them, all together: a value that they equal, or tests. `and`, `or` and `not` join
 * filters.
 *
 * ```ts
 * { lang: "en", year: { gte: 2020, lt: 2024 }, or: [{ tags: "news" }, { source: { in: ["a", "b"] } }] }
 * ```
 */
export interface VectorFilter {
  readonly and?: readonly VectorFilter[];
  readonly or?: readonly VectorFilter[];
  readonly not?: VectorFilter;
  readonly [field: string]: MetadataValue | FieldFilter | VectorFilter | readonly VectorFilter[] | undefined;
}

const TESTS = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists"];
/** Tests of one filter, and filters in filters: beyond, it is no filter that somebody wrote. */
const MOST = 10_000;
const DEEPEST = 32;

/**
 * The filter as JSON.
 *
 * @throws {CandlewickError} `OPTION_INVALID`; `OPTION_UNKNOWN` for a test that there is not.
 */
export function encodeFilter(where: string, filter: VectorFilter): string {
  let left = MOST;
  const bad = (problem: string) => new CandlewickError("OPTION_INVALID", `${where}: filter ${problem}`);
  const value = (name: string, given: unknown, ordered = false): string => {
    if (--left < 0) throw bad(`has more than ${MOST} values`);
    const problem = ordered && typeof given !== "string" && typeof given !== "number" ? `must be a number or a string, got ${show(given)}` : checkValue(given);
    if (problem !== undefined) throw bad(`"${name.slice(0, 60)}" ${problem}`);
    return encode(given);
  };
  const test = (field: string, op: string, encoded: string) => `{"field":${JSON.stringify(field)},"op":"${op}","value":${encoded}}`;
  const ofField = (field: string, given: unknown): string[] => {
    if (!isPlainObject(given)) return [test(field, "in", `[${value(field, given)}]`)];
    const tests = Object.entries(given).filter(([, one]) => one !== undefined);
    if (tests.length === 0) throw bad(`"${field.slice(0, 60)}" has no test`);
    return tests.map(([op, one]) => {
      const name = `${field}.${op}`;
      if (op === "eq" || op === "ne") return test(field, op === "eq" ? "in" : "nin", `[${value(name, one)}]`);
      if (op === "in" || op === "nin") {
        if (!Array.isArray(one)) throw bad(`"${name.slice(0, 60)}" must be an array, got ${show(one)}`);
        return test(field, op, `[${Array.from(one, (each: unknown) => value(name, each)).join()}]`);
      }
      if (op === "exists") {
        if (typeof one !== "boolean") throw bad(`"${name.slice(0, 60)}" must be true or false, got ${show(one)}`);
        return test(field, op, String(one));
      }
      if (!TESTS.includes(op)) throw unknown(where, `test of the filter's "${field.slice(0, 60)}"`, op, TESTS);
      return test(field, op, value(name, one, true));
    });
  };
  const whole = (given: unknown, depth: number): string => {
    if (!isPlainObject(given)) throw bad(`must be a plain object, got ${show(given)}`);
    if (depth > DEEPEST) throw bad(`has more than ${DEEPEST} filters in each other`);
    const parts = Object.entries(given).flatMap(([name, one]): string[] => {
      if (one === undefined) return [];
      if (name === "not") return [`{"not":${whole(one, depth + 1)}}`];
      if (name !== "and" && name !== "or") return ofField(name, one);
      if (!Array.isArray(one)) throw bad(`"${name}" must be an array of filters, got ${show(one)}`);
      return [`{"${name}":[${Array.from(one, (each: unknown) => whole(each, depth + 1)).join()}]}`];
    });
    if (--left < 0) throw bad(`has more than ${MOST} values`);
    return `{"and":[${parts.join()}]}`;
  };
  return whole(filter, 0);
}
