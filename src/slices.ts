/** Many inputs as several native calls, one after the other, so that none holds the JavaScript thread for long. */
import { withPlaces } from "./errors.js";

/** Texts per native call. Converting so many, there and back, takes the JavaScript thread about a millisecond. */
const SLICE = 256;

/**
 * Maximum characters of one native call's texts: copying more would block the JavaScript thread for longer.
 */
const SLICE_WEIGHT = 1 << 19;

export interface Slicing<T> {
  /** Items per slice at most. Default 256. */
  readonly size?: number;
  /** An item's size, in characters. Default: not counted. */
  readonly weigh?: (item: T) => number;
  /** Called with the number of finished items, with a fraction while a long item is running. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** Progress of a call, in texts. */
export interface Progress {
  /** May have a fraction, while one long text is read in windows. */
  readonly done: number;
  readonly total: number;
}

/** Progress within a slice: finished parts, and all parts. */
export type Report = (done: number, total: number) => void;

/**
 * `run` over slices of `items`, so that many items never hold the JavaScript thread for long. The next slice is on its
 * way while one is computed. Results are in the items' order; they do not depend on what a slice has in it.
 */
export async function inSlices<T, R>(
  items: readonly T[],
  run: (slice: readonly T[], report: Report | undefined) => Promise<R[]>,
  { size = SLICE, weigh, onProgress }: Slicing<T> = {},
): Promise<R[]> {
  const results: R[] = [];
  const parts: number[] = [];
  const start = (from: number, to: number): Promise<R[]> => {
    const part = parts.push(0) - 1;
    const report: Report | undefined =
      onProgress &&
      ((done, total) => {
        parts[part] = ((to - from) * done) / total;
        onProgress({ done: parts.reduce((sum, done) => sum + done, 0), total: items.length });
      });
    const running = withPlaces(run(items.slice(from, to), report), (index) => (items.length === 1 ? undefined : from + index));
    // Whichever fails second has nobody who waits for it, and must not end the process.
    running.catch(() => {});
    return running;
  };
  const end = (from: number): number => {
    let to = from;
    for (let weight = 0; to < items.length && to - from < size; to++) {
      weight += weigh?.(items[to]!) ?? 0;
      if (weight > SLICE_WEIGHT && to > from) break;
    }
    return to;
  };
  let to = end(0);
  let current = start(0, to);
  while (to < items.length) {
    const from = to;
    to = end(from);
    const next = start(from, to);
    for (const result of await current) results.push(result);
    current = next;
  }
  for (const result of await current) results.push(result);
  return results;
}

/**
 * `items.map(convert)`, in the meantime of which the event loop turns: 256 conversions of a few microseconds are a
 * millisecond.
 */
export async function mapInTurns<T, R>(items: readonly T[], convert: (item: T, index: number) => R): Promise<R[]> {
  const results: R[] = [];
  for (const [index, item] of items.entries()) {
    if (index % SLICE === SLICE - 1) await new Promise((resolve) => setImmediate(resolve));
    results.push(convert(item, index));
  }
  return results;
}
