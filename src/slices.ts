/** Texts per native call. Converting so many, there and back, takes the JavaScript thread about a millisecond. */
const SLICE = 256;

/**
 * `run` over slices of `items`, so that many items never hold the JavaScript thread for long. The next slice is on its way
 * while one is computed. Results are in the items' order; they do not depend on what a slice has in it.
 */
export async function inSlices<T, R>(items: readonly T[], run: (slice: readonly T[]) => Promise<R[]>): Promise<R[]> {
  const results: R[] = [];
  let current = run(items.slice(0, SLICE));
  for (let start = SLICE; start < items.length; start += SLICE) {
    const next = run(items.slice(start, start + SLICE));
    // If the current one fails, nobody is told about the next.
    next.catch(() => {});
    results.push(...(await current));
    current = next;
  }
  results.push(...(await current));
  return results;
}
