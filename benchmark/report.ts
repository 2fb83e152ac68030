/** docs/benchmarks: the plots, and the tables inside its README. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./paths.js";
import { type Plot, svg } from "./plot.js";
import { figures, goalsTable, heading } from "./table.js";
import { median } from "./stats.js";
import type { Limits, Report } from "./types.js";

const folder = join(root, "docs", "benchmarks");

/** Of the rows whose case begins with the file's name. */
const plots: Omit<Plot, "rows" | "subtitle">[] = [
  { file: "decode", title: "Decoding, GPT-2 124M, one stream" },
  { file: "context", title: "Decoding at short and long context, GPT-2 124M" },
  { file: "batch", title: "One stream and eight, GPT-2 124M, all tokens" },
  { file: "prefill", title: "Reading a prompt, GPT-2 124M" },
  { file: "encode", title: "Encoding texts with BERT" },
  { file: "lag", title: "How long the JavaScript thread is held" },
  { file: "load", title: "Loading GPT-2 124M in f16" },
];

const better = { "tok/s": "longer is better", "texts/s": "longer is better", "queries/s": "longer is better", "%": "longer is better", ms: "shorter is better", MB: "shorter is better" };

/** Draws what the run has rows for; with `tables` it also replaces the README's figures and results.json. */
export function writeDocs(report: Report, tables: boolean): string[] {
  mkdirSync(folder, { recursive: true });
  const written: string[] = [];
  const write = (name: string, content: string) => {
    writeFileSync(join(folder, name), content);
    written.push(`docs/benchmarks/${name}`);
  };
  for (const plot of plots) {
    const rows = report.rows.filter((row) => row.case.startsWith(plot.file));
    if (rows.length === 0) continue;
    const limit = rows.some((row) => row.shareOfLimit !== null) ? "; dashed: what the machine allows" : "";
    const subtitle = `${report.machine.cpu}, ${report.machine.threads} threads; ${better[rows[0]!.unit]}; line: p10 to p90${limit}`;
    write(`${plot.file}.svg`, svg({ ...plot, subtitle, rows }));
  }
  const readme = join(folder, "README.md");
  if (tables && existsSync(readme)) {
    write("README.md", replaceBetween(readFileSync(readme, "utf8"), tablesOf(report)));
    write("results.json", `${JSON.stringify(report, null, 1)}\n`);
  }
  return written;
}

const BEGIN = "<!-- figures: npm run bench -- all -->";
const END = "<!-- end of figures -->";

function replaceBetween(text: string, middle: string): string {
  const [before, rest] = text.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error("docs/benchmarks/README.md has lost the marks around its figures");
  return `${before}${BEGIN}\n\n${middle}\n\n${END}${after}`;
}

function tablesOf(report: Report): string {
  const list = (items: string[]) => items.map((item) => `- ${item}`).join("\n");
  return [
    heading(report),
    `### Goals\n\n${goalsTable(report.rows)}`,
    `### All figures\n\n${figures(report.rows)}`,
    report.skipped.length > 0 && `### Skipped\n\n${list(report.skipped.map(({ what, reason }) => `${what}: ${reason}`))}`,
    report.notes.length > 0 && `### Notes\n\n${list(report.notes)}`,
  ]
    .filter(Boolean)
    .join("\n\n");
}

/** Fills in the machine's limits from all that were measured. */
export function setLimits({ machine, limits }: Report): void {
  if (limits.length === 0) return;
  const digits = (value: number) => Number(value.toPrecision(4));
  const of = (key: keyof Limits) => limits.map((limit) => limit[key]);
  const range = (values: number[]): [number, number] => [digits(Math.min(...values)), digits(Math.max(...values))];
  machine.bandwidthGBs = digits(median(of("bandwidthGBs")));
  machine.fmaGflops = digits(median(of("fmaGflops")));
  machine.bandwidthRange = range(of("bandwidthGBs"));
  machine.fmaRange = range(of("fmaGflops"));
}

/** Several runs on one machine as one: each row as the last run that has it says. */
export function merge(reports: readonly Report[]): Report {
  const [first, ...others] = reports;
  if (!first) throw new Error("no report to draw");
  const nameOf = ({ case: name, dtype, contender }: Report["rows"][number]) => `${name} ${dtype} ${contender}`;
  const rows = new Map(reports.flatMap((report) => report.rows).map((row) => [nameOf(row), row]));
  const skipped = new Map(reports.flatMap((report) => report.skipped).map((entry) => [entry.what, entry]));
  if (others.some(({ machine }) => machine.cpu !== first.machine.cpu || machine.threads !== first.machine.threads)) {
    throw new Error("runs on different machines");
  }
  const merged: Report = {
    machine: { ...first.machine, load: Math.max(...reports.map(({ machine }) => machine.load)) },
    rows: [...rows.values()],
    limits: reports.flatMap((report) => report.limits),
    skipped: [...skipped.values()],
    notes: [...new Set(reports.flatMap((report) => report.notes))],
  };
  setLimits(merged);
  return merged;
}
