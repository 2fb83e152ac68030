/**
 * `npm run bench -- decode|prefill|encode|batch|serving|context|lag|load|memory|pipelines|train|vectors|all`:
 * Candlewick and its peers, measured in turns. `prepare` installs the peers and makes the models; `draw FILE…`
 * draws the plots of earlier runs. docs/benchmarks/README.md explains.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { encode } from "./cases/encode.js";
import { batch, context, decode, prefill } from "./cases/generation.js";
import { lag } from "./cases/lag.js";
import { load } from "./cases/load.js";
import { pipelines } from "./cases/pipelines.js";
import { memory } from "./cases/memory.js";
import { serving } from "./cases/serving.js";
import { train } from "./cases/train.js";
import { vectors } from "./cases/vectors.js";
import { writePage } from "./cuda/page.js";
import { compareWith, Contenders, contenderNames, limitsProcess } from "./contenders.js";
import { type Context, measureLimits } from "./measure.js";
import { buildNative, prepare } from "./prepare.js";
import { makeModels } from "./prepare/models.js";
import { merge, setLimits, writeDocs } from "./report.js";
import { benchServe } from "./serve/serve.js";
import { figures, goalsTable, heading } from "./table.js";
import type { Dtype, Report } from "./types.js";

const benches: Record<string, (context: Context) => Promise<void>> = { decode, prefill, encode, batch, serving, context, lag, load, memory, pipelines, train, vectors };
const dtypes: readonly Dtype[] = ["f32", "f16", "bf16", "int8", "q8_0", "q4_0"];

const USAGE = `npm run bench -- WHAT… [options]

WHAT: ${Object.keys(benches).join(", ")}, all; or prepare (installs peers, makes models); or draw FILE… (plots and tables of one
run, or of several as one); or serve [PART…] (the server under load); or cuda FILE… (docs/benchmarks/cuda.md, from reports of the CUDA kit: npm run test:cuda)
  --json FILE     write the figures there
  --quick         one short round of each: whether it works, not how fast it is
  --only A,B      these contenders alone: ${contenderNames.join(", ")}
  --dtype A,B     these dtypes alone: ${dtypes.join(", ")}
  --case TEXT     cases that contain it alone: "32x128", "8 streams" (not of lag, load and pipelines' lag)
  --threads N     for everybody; default 2
  --before FOLDER another checkout, built, takes part as "before": what a change costs or gains, measured in turns
  --no-build      measure the package as it was last built
  --complete      exit code 1 if a contender was skipped, a share of a limit is empty, or outputs differ`;

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: "string" },
      quick: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      dtype: { type: "string", default: dtypes.join(",") },
      case: { type: "string", default: "" },
      threads: { type: "string", default: "2" },
      "no-build": { type: "boolean", default: false },
      complete: { type: "boolean", default: false },
      before: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const list = (text: string, known: readonly string[], option: string) => {
    const items = text.split(",").filter(Boolean);
    const unknown = items.find((item) => !known.includes(item));
    if (unknown !== undefined) throw new Error(`${option}: there is no ${unknown}`);
    return items;
  };
  const threads = Number(values.threads);
  if (!Number.isInteger(threads) || threads < 1) throw new Error(`--threads: not a number of threads: ${values.threads}`);
  return {
    ...values,
    positionals,
    threads,
    only: new Set(list(values.only, contenderNames, "--only")),
    dtypes: list(values.dtype, dtypes, "--dtype") as Dtype[],
  };
}

async function main(): Promise<void> {
  const { positionals, json, quick, only, dtypes, threads, help, case: part, "no-build": noBuild, complete, before } = options();
  const [first] = positionals;
  if (help || first === undefined) return console.log(USAGE);
  if (first === "prepare") return prepare();
  if (first === "draw") {
    const report = merge(positionals.slice(1).map((file) => JSON.parse(readFileSync(file, "utf8")) as Report));
    print(report);
    return draw(report, true);
  }
  if (first === "serve") {
    if (!noBuild) {
      const { build, orExplain } = await import("../scripts/build.mjs");
      await orExplain(build);
    }
    makeModels();
    return benchServe(positionals.slice(1), quick);
  }
  if (first === "cuda") return console.log(`wrote ${writePage(positionals.slice(1))}`);
  const wanted = positionals.includes("all") ? Object.keys(benches) : positionals;
  const unknown = wanted.find((name) => !(name in benches));
  if (unknown !== undefined) throw new Error(`there is no bench ${unknown}\n\n${USAGE}`);

  if (before !== undefined) compareWith(before);
  if (!noBuild) {
    const { build, orExplain } = await import("../scripts/build.mjs");
    await orExplain(build);
    if (!buildNative()) throw new Error("benchmark/native did not build; cargo's message is above");
  }
  makeModels();
  const report: Report = { machine: machine(threads), rows: [], limits: [], skipped: [], notes: [] };
  const context = contextOf(report, { threads, quick, only, dtypes, part });
  try {
    await measureLimits(context);
    for (const name of wanted) {
      try {
        await benches[name]!(context);
      } catch (error) {
        context.skip(name, (error as Error).message);
      }
      // After each, for a run that does not come to its end.
      setLimits(report);
      if (json) writeFileSync(json, `${JSON.stringify(report, null, 1)}\n`);
    }
  } finally {
    await context.contenders.end();
    context.limits.kill();
    process.stderr.write("\r\x1b[K");
  }
  report.machine.isa = context.isa;
  setLimits(report);
  if (json) writeFileSync(json, `${JSON.stringify(report, null, 1)}\n`);
  print(report);
  if (complete) {
    for (const problem of incomplete(report, only)) {
      console.error(`INCOMPLETE: ${problem}`);
      process.exitCode = 1;
    }
  }
  if (!quick && only.size === 0 && part === "") draw(report, positionals.includes("all"));
}

function contextOf(report: Report, given: { threads: number; quick: boolean; only: Set<string>; dtypes: Dtype[]; part: string }): Context {
  const clear = process.stderr.isTTY ? "\r\x1b[K" : "";
  const progress = (text: string) => void process.stderr.write(`${clear}${text}${clear ? "" : "\n"}`);
  const skip = (what: string, reason: string) => {
    // Paths are those of this machine, and no use to others.
    const short = reason.replaceAll(/\/[^\s:,]*\/(?=[^/\s:,]+)/g, "");
    report.skipped.push({ what, reason: short });
    progress(`${what} skipped: ${reason}\n`);
  };
  return {
    ...given,
    contenders: new Contenders(given.threads, given.only, skip),
    limits: limitsProcess(given.threads),
    seen: report.limits,
    isa: null,
    rows: report.rows,
    exact: new Map(),
    skip,
    note: (text) => void report.notes.push(text),
    progress,
  };
}

function machine(threads: number): Report["machine"] {
  const cpu = `${cpus()[0]?.model.trim() ?? process.arch}, ${cpus().length} cores`;
  const date = new Date().toISOString().slice(0, 10);
  const unknown = { bandwidthGBs: null, fmaGflops: null, bandwidthRange: null, fmaRange: null, isa: null };
  return { cpu, threads, ...unknown, node: process.version, date, load: loadavg()[0]! };
}

/** What a run that should have measured everything has not. */
function incomplete({ rows, skipped, notes }: Report, only: ReadonlySet<string>): string[] {
  const absent = [...only].filter((name) => !rows.some((row) => row.contender === name));
  const empty = rows.filter(({ shareOfLimit }) => shareOfLimit === null || !(shareOfLimit > 0));
  return [
    ...(rows.length === 0 ? ["nothing was measured"] : []),
    ...absent.map((name) => `${name} has no figure`),
    ...skipped.map(({ what, reason }) => `${what}: ${reason}`),
    ...empty.map((row) => `${row.case} ${row.dtype}, ${row.contender}: no share of the limit`),
    ...notes,
  ];
}

function print(report: Report): void {
  console.log(`\n${heading(report)}\n\n${figures(report.rows)}`);
  const goals = goalsTable(report.rows);
  if (goals) console.log(`\n${goals}`);
  for (const { what, reason } of report.skipped) console.log(`skipped: ${what}: ${reason}`);
  for (const note of report.notes) console.log(`NOTE: ${note}`);
}

function draw(report: Report, tables: boolean): void {
  for (const name of writeDocs(report, tables)) console.error(`wrote ${name}`);
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
