/** Medians with their spread. */
export interface Spread {
  median: number;
  p10: number;
  p90: number;
}

/** Interpolated between the two nearest of the sorted values. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)] ?? NaN;
  const high = sorted[Math.ceil(at)] ?? NaN;
  return low + (high - low) * (at - Math.floor(at));
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

export const spread = (values: readonly number[]): Spread => ({
  median: median(values),
  p10: quantile(values, 0.1),
  p90: quantile(values, 0.9),
});

/**
 * Tokens per second over spans of `span` tokens, from times in milliseconds: single intervals would be as jumpy as the
 * timer.
 */
export function ratesOf(times: readonly number[], span: number): number[] {
  const rates: number[] = [];
  const width = Math.min(span, times.length - 1);
  if (width < 1) return rates;
  for (let i = width; i < times.length; i += width) rates.push((1000 * width) / (times[i]! - times[i - width]!));
  return rates;
}

/** Different numbers with the same seed: ids that are the same for every contender, and new in every round. */
export function randomIds(count: number, vocabulary: number, seed: number): number[] {
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabulary);
  });
}
