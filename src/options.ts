import { CandlewickError } from "./errors.js";
import { otherLibrary } from "./option-synonyms.js";

/** Says what is wrong with a value ("must be …"), or nothing. */
export type Check = (value: unknown) => string | undefined;
export type OptionTable<T> = { readonly [K in keyof T]-?: Check };

/**
 * The options that were given, checked and copied: each is read once, so what was checked is what is used. A value of
 * `undefined` is an option that was not given.
 *
 * Throws `OPTION_UNKNOWN` for a key that `table` lacks, and `OPTION_INVALID` for a value that its check refuses and for
 * options that are no plain object.
 */
export function checkOptions<T extends object>(where: string, options: T, table: OptionTable<T>): T {
  if (!isPlainObject(options)) throw invalid(where, "options", "must be a plain object", options);
  const given: Record<string, unknown> = {};
  for (const [name, original] of Object.entries(options)) {
    if (!Object.hasOwn(table, name)) throw unknown(where, "option", name, Object.keys(table));
    if (original === undefined) continue;
    const value = copy(original);
    const problem = table[name as keyof T](value);
    if (problem) throw invalid(where, name, problem, value);
    given[name] = value;
  }
  return given as T;
}

/**
 * Not a `Map`, nor any object whose keys are not its own properties. Objects of other realms are accepted.
 */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || (Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype as object, "isPrototypeOf"));
}

/**
 * Lists and plain objects one level deep, a list without its holes; the rest as it is, signals above all: they change.
 */
function copy(value: unknown): unknown {
  if (Array.isArray(value)) return Array.from(value);
  return isPlainObject(value) && checks.signal(value) ? { ...value } : value;
}

export function invalid(where: string, name: string, problem: string, value: unknown): CandlewickError {
  return new CandlewickError("OPTION_INVALID", `${where}: ${name} ${problem}, got ${show(value)}`);
}

export const checks = {
  boolean: (value: unknown) => (typeof value === "boolean" ? undefined : "must be true or false"),
  string: (value: unknown) =>
    typeof value === "string" && value !== "" ? undefined : "must be a string that is not empty",
  function: (value: unknown) => (typeof value === "function" ? undefined : "must be a function"),
  /** Anything that behaves like one: test runners and polyfills have an `AbortSignal` of their own. */
  signal: (value: unknown) => {
    const signal = value as Partial<AbortSignal> | null;
    const fits =
      typeof signal?.aborted === "boolean" &&
      typeof signal.addEventListener === "function" &&
      typeof signal.removeEventListener === "function";
    return fits ? undefined : "must be an AbortSignal";
  },
  oneOf:
    (...values: readonly unknown[]): Check =>
    (value) =>
      values.includes(value) ? undefined : `must be one of ${values.map(show).join(", ")}`,
  integer:
    (least: number, most: number = Number.MAX_SAFE_INTEGER): Check =>
    (value) =>
      Number.isInteger(value) && (value as number) >= least && (value as number) <= most
        ? undefined
        : `must be an integer ${most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`}`,
  /** A finite number for which `inside` holds; `range` says so in words. */
  number:
    (range: string, inside: (value: number) => boolean): Check =>
    (value) =>
      typeof value === "number" && Number.isFinite(value) && inside(value)
        ? undefined
        : `must be a number ${range}`.trimEnd(),
  /** One value or a list of them, which has no holes: `checkOptions` copies it. */
  oneOrMore:
    (check: Check): Check =>
    (value) => {
      if (!Array.isArray(value)) return check(value);
      const problem = value.map(check).find(Boolean);
      return problem && `${problem}, or an array of such`;
    },
};

/** Token ids: what a model's vocabulary is indexed by. */
export const TOKEN_ID = checks.integer(0, 0xffff_ffff);

/** `OPTION_UNKNOWN` for a name that is no `kind` (an option, a key of something). */
export function unknown(where: string, kind: string, name: string, known: readonly string[]): CandlewickError {
  const theirs = otherLibrary(name, known);
  const close = theirs === undefined ? closeNames(name, known) : [];
  const hint = theirs ?? (close.length > 0 ? `did you mean ${close.join(" or ")}?` : `known: ${known.join(", ")}`);
  return new CandlewickError("OPTION_UNKNOWN", `${where}: unknown ${kind} "${name}"; ${hint}`);
}

/** Names within two edits of `name` once case and underscores are gone (`max_new_tokens`), or that contain it. */
function closeNames(name: string, known: readonly string[]): string[] {
  const plain = (text: string) => text.replace(/[_-]/g, "").toLowerCase();
  const wanted = plain(name);
  return known
    .map((candidate) => ({ candidate, distance: distance(wanted, plain(candidate)) }))
    .filter(
      ({ candidate, distance }) =>
        distance <= Math.min(2, wanted.length / 2) || (wanted.length > 3 && plain(candidate).includes(wanted)),
    )
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ candidate }) => candidate);
}

/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  return String(value);
}
