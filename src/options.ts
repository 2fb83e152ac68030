import { CandlewickError } from "./errors.js";

/** Says what is wrong with a value ("must be …"), or nothing. */
export type Check = (value: unknown) => string | undefined;
export type OptionTable<T> = { readonly [K in keyof T]-?: Check };

/**
 * Throws `OPTION_UNKNOWN` for a key that `table` lacks and `OPTION_INVALID` for a value that its check refuses. A value
 * of `undefined` is an option that was not given.
 */
export function checkOptions<T extends object>(
  where: string,
  options: unknown,
  table: OptionTable<T>,
): asserts options is T {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw invalid(where, "options", "must be an object", options);
  }
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(table, name)) throw unknownOption(where, name, Object.keys(table));
    if (value === undefined) continue;
    const problem = table[name as keyof T](value);
    if (problem) throw invalid(where, name, problem, value);
  }
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
    const fits = typeof signal?.aborted === "boolean" && typeof signal.addEventListener === "function";
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
  /** One value or a list of them. */
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

function unknownOption(where: string, name: string, known: readonly string[]): CandlewickError {
  const close = closeNames(name, known);
  const hint = close.length > 0 ? `did you mean ${close.join(" or ")}?` : `known options: ${known.join(", ")}`;
  return new CandlewickError("OPTION_UNKNOWN", `${where}: unknown option "${name}"; ${hint}`);
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

function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  return String(value);
}
