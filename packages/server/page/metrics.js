// Prometheus' text format, and what charts are made of: gauges, rates of counters, quantiles of histograms.

/** A name, its labels in braces, a value. Values of labels hold any character, three of them as `\\`, `\"` and `\n`. */
const LINE = /^([a-zA-Z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const unescaped = (text) => text.replaceAll(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));

/** By name the series: `{labels, value}`. */
export function parseMetrics(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    const [, name, labels = "", value] = LINE.exec(line) ?? [];
    if (name === undefined) continue;
    const series = { labels: Object.fromEntries(Array.from(labels.matchAll(LABEL), ([, name, value]) => [name, unescaped(value)])), value: Number(value.replace("Inf", "Infinity")) };
    if (!families.has(name)) families.set(name, []);
    families.get(name).push(series);
  }
  return families;
}

/** The sum of the series that have these labels; `null` if there are none. */
export function sumOf(families, name, labels = {}) {
  const wanted = Object.entries(labels).filter(([, value]) => value !== undefined);
  const series = (families.get(name) ?? []).filter((one) => wanted.every(([label, value]) => one.labels[label] === value));
  return series.length === 0 ? null : series.reduce((sum, { value }) => sum + value, 0);
}

/** The growth in a second of a counter; `null` after a restart of the server. */
export function rate(before, after, name, labels) {
  if (!before) return null;
  const [from, to] = [sumOf(before.families, name, labels) ?? 0, sumOf(after.families, name, labels)];
  return to === null || to < from ? null : (1_000 * (to - from)) / (after.at - before.at);
}

/**
 * A quantile of what a histogram has counted between two readings, as Prometheus' `histogram_quantile`: linear within a
 * bucket; what is beyond the last bound counts as that bound.
 */
export function quantile(before, after, name, share, labels) {
  if (!before) return null;
  const counts = bucketsOf(after.families, name, labels);
  const earlier = bucketsOf(before.families, name, labels);
  const bounds = Array.from(counts.keys()).sort((a, b) => a - b);
  const grown = bounds.map((bound) => counts.get(bound) - (earlier.get(bound) ?? 0));
  const total = grown.at(-1) ?? 0;
  if (total <= 0 || grown.some((count) => count < 0)) return null;
  const rank = share * total;
  const index = grown.findIndex((count) => count >= rank);
  const low = index === 0 ? 0 : bounds[index - 1];
  if (bounds[index] === Infinity) return low;
  const below = index === 0 ? 0 : grown[index - 1];
  return low + ((bounds[index] - low) * (rank - below)) / Math.max(1e-9, grown[index] - below);
}

function bucketsOf(families, name, { model } = {}) {
  const buckets = new Map();
  for (const { labels, value } of families.get(`${name}_bucket`) ?? []) {
    if (model !== undefined && labels.model !== model) continue;
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    buckets.set(bound, (buckets.get(bound) ?? 0) + value);
  }
  return buckets;
}
