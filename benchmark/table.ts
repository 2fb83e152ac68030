/** A run as text: figures with ratios to the peers, then the goals. Markdown, which reads well in a terminal too. */
import { outcomes } from "./goals.js";
import type { Report, Row } from "./types.js";

export const number = (value: number): string =>
  value >= 1000 ? Math.round(value).toLocaleString("en-US") : value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2);

/** "3.1×": how many times better than `peer`'s ours is; below one it is worse. */
export function ratioTo(ours: Row | undefined, peer: Row): string {
  if (!ours || ours === peer) return "";
  const lower = ours.unit === "ms" || ours.unit === "MB";
  return `${(lower ? peer.median / ours.median : ours.median / peer.median).toFixed(2)}×`;
}

export function figures(rows: readonly Row[]): string {
  const ours = (row: Row) =>
    rows.find((other) => other.contender === "candlewick" && other.case === row.case && other.dtype === row.dtype);
  return table(
    ["case", "dtype", "contender", "median", "p10–p90", "unit", "of limit", "least cosine to f32", "Candlewick to it"],
    rows.map((row) => [
      row.case,
      row.dtype,
      row.contender,
      number(row.median),
      `${number(row.p10)}–${number(row.p90)}`,
      row.unit,
      row.shareOfLimit === null ? "" : `${(100 * row.shareOfLimit).toFixed(0)}%`,
      row.cosine === undefined ? "" : row.cosine.min.toFixed(5),
      ratioTo(ours(row), row),
    ]),
    "lllrrlrrr",
  );
}

export function goalsTable(rows: readonly Row[]): string {
  const all = outcomes(rows);
  if (all.length === 0) return "";
  return table(
    ["goal", "to reach", "measured", ""],
    all.map(({ what, goal, value, reached }) => [what, goal, value, reached ? "reached" : "**not reached**"]),
    "lrrl",
  );
}

export function heading({ machine }: Report): string {
  const between = (range: [number, number] | null) => (range ? ` (${number(range[0])}–${number(range[1])})` : "");
  const limits =
    machine.bandwidthGBs === null || machine.fmaGflops === null
      ? "limits not measured"
      : `reads ${number(machine.bandwidthGBs)} GB/s${between(machine.bandwidthRange)}, f32 multiply-adds ` +
        `${number(machine.fmaGflops)} GFLOP/s${between(machine.fmaRange)}, ${machine.isa}`;
  return `${machine.cpu}, ${machine.threads} threads: ${limits}. Node ${machine.node}, ${machine.date}, load ${machine.load.toFixed(1)} at the start.`;
}

/** `align`: l or r for each column. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], align: string): string {
  const widths = head.map((cell, i) => Math.max(cell.length, 3, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => (align[i] === "r" ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!))).join(" | ")} |`;
  const rule = `|${widths.map((width, i) => (align[i] === "r" ? `${"-".repeat(width + 1)}:` : "-".repeat(width + 2))).join("|")}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}
