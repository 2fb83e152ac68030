/** docs/benchmarks/cuda.md: its tables, from reports of the kit. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../paths.js";
import { number, table } from "../table.js";
import { goalsTable } from "./goals.js";
import type { Figure, KitDtype, KitReport, Who } from "./types.js";

const BEGIN = "<!-- figures: npm run bench -- cuda FILE… -->";
const END = "<!-- end of figures -->";

/**
 * Puts what the reports say between the page's marks; what is written around them stays. Without a report every goal is
 * "not measured". Returns the path.
 *
 * @throws What is no report of the kit; reports of different GPUs.
 */
export function writePage(files: readonly string[]): string {
  const path = join(root, "docs", "benchmarks", "cuda.md");
  const text = readFileSync(path, "utf8");
  const [before, rest] = text.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error("docs/benchmarks/cuda.md has lost the marks around its figures");
  writeFileSync(path, `${before}${BEGIN}\n\n${middle(merged(files.map(read)))}\n\n${END}${after}`);
  return "docs/benchmarks/cuda.md";
}

function read(file: string): KitReport {
  const report = JSON.parse(readFileSync(file, "utf8")) as KitReport;
  if (report.format !== 1) throw new Error(`${file} is no report of the CUDA kit`);
  return report;
}

/** Several runs on one GPU as one: each figure and check as the last run that has it says. */
export function merged(reports: readonly KitReport[]): KitReport | undefined {
  const last = reports.at(-1);
  if (!last) return undefined;
  if (reports.some(({ gpu, device }) => gpu?.name !== last.gpu?.name || device !== last.device)) throw new Error("reports of different devices");
  const each = <T>(of: (report: KitReport) => readonly T[], key: (entry: T) => string) =>
    [...new Map(reports.flatMap(of).map((entry) => [key(entry), entry])).values()];
  return {
    ...last,
    limits: last.limits ?? reports.findLast(({ limits }) => limits)?.limits ?? null,
    figures: each(({ figures }) => figures, (figure) => `${figure.case} ${figure.dtype} ${figure.who}`),
    checks: each(({ checks }) => checks, (check) => `${check.what} ${check.dtype}`),
    skipped: each(({ skipped }) => skipped, ({ what }) => what),
  };
}

function middle(report: KitReport | undefined): string {
  const parts = [report ? heading(report) : "No run of the kit yet.", `### Goals\n\n${goalsTable(report)}`];
  if (report) {
    parts.push(`### Figures\n\n${figures(report.figures)}`, `### Checks\n\n${checks(report)}`);
    if (report.skipped.length > 0) parts.push(`### Skipped\n\n${report.skipped.map(({ what, reason }) => `- ${what}: ${reason}`).join("\n")}`);
  }
  return parts.join("\n\n");
}

function heading({ gpu, date, pytorch, limits, cpu, cores, node, candlewick }: KitReport): string {
  const device = gpu ? `${gpu.name} (driver ${gpu.driver}), ${cores} cores` : `No GPU: ${cpu}, ${cores} cores`;
  const peer = pytorch ? `; PyTorch ${pytorch.torch}, transformers ${pytorch.transformers}` : "";
  const best = limits ? ` The device copied ${(limits.copyBytes / 1e12).toFixed(2)} TB/s and multiplied ${(limits.bf16Flops / 1e12).toFixed(0)} TFLOP/s in bf16.` : "";
  return wrapped(`${device}, ${date}; Candlewick ${candlewick}, Node ${node}${peer}.${best}`);
}

/** Prose in lines of at most 120 columns. */
function wrapped(text: string): string {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line !== "" && line.length + 1 + word.length > 120) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines.join("\n");
}

const peers: readonly Who[] = ["PyTorch graph", "PyTorch compiled", "PyTorch generate", "PyTorch eager", "sentence-transformers"];

/** A row for each case and dtype, with the peers beside it. */
function figures(all: readonly Figure[]): string {
  const shown = (figure: Figure) => `${number(figure.median)} (${number(figure.p10)}–${number(figure.p90)})`;
  const rows = all.filter(({ who }) => who === "candlewick" || who === "example").map((ours) => {
    const of = (who: Who) => all.find((other) => other.case === ours.case && other.dtype === ours.dtype && other.who === who);
    const lower = ours.unit === "ms" || ours.unit === "s" || ours.unit === "MiB";
    const beside = peers.flatMap((who) => {
      const theirs = of(who);
      if (!theirs) return [];
      const ratio = lower ? theirs.median / ours.median : ours.median / theirs.median;
      return [`${who.replace("PyTorch ", "")} ${number(theirs.median)}: ${ratio.toFixed(2)}×`];
    });
    const name = ours.note ? `${ours.case} (${ours.note})` : ours.case;
    return [name, ours.dtype, shown(ours), ours.unit, ours.share === undefined ? "" : `${(100 * ours.share).toFixed(0)}%`, beside.join(", ")];
  });
  return table(["case", "dtype", "median (p10–p90)", "unit", "of limit", "PyTorch: times as fast"], rows, "llrlrl");
}

function checks({ checks: all }: KitReport): string {
  const order: Record<KitDtype | "", number> = { "": 0, f32: 1, f16: 2, bf16: 3 };
  const rows = all
    .toSorted((a, b) => a.what.localeCompare(b.what) || order[a.dtype ?? ""] - order[b.dtype ?? ""])
    .map(({ what, dtype, passed, detail }) => [what, dtype ?? "", passed === null ? "no test" : passed ? "holds" : "**does not**", detail.replaceAll("|", "/")]);
  return table(["check", "dtype", "", ""], rows, "llll");
}
