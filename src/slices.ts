/** Texts per native call. Converting so many, there and back, takes the JavaScript thread about a millisecond. */
const SLICE = 256;

/**
 * `run` over slices of `items`, so that many items never hold the JavaScript thread for long. The next slice is on its way
 * while one is computed. Results are in the items' order; they do not depend on what a slice has in it.
 */
export async function inSlices<T, R>(items: readonly T[], run: (slice: readonly T[]) => Promise<R[]>): Promise<R[]> {
  const results: R[] = [];
  const start = (from: number): Promise<R[]> => {
    const running = run(items.slice(from, from + SLICE));
    // Whichever fails second has nobody who waits for it, and must not end the process.
    running.catch(() => {});
    return running;
  };
  let current = start(0);
  for (let from = SLICE; from < items.length; from += SLICE) {
    const next = start(from);
    results.push(...(await current));
    current = next;
  }
  results.push(...(await current));
  return results;
}
