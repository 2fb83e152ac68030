// `candlewick evaluate`: a model measured on a data set.
import { Option, type Command } from "commander";
import type { EvaluateOptions, EvaluationProgress } from "../evaluate/evaluate.js";
import { confusion, figures, perClass, samplesOf, shown } from "../evaluate/report.js";
import { short } from "../evaluate/plot.js";
import { deviceOption, DTYPES, number } from "./arguments.js";
import { dataFlags, merged, readConfig, withDataOptions, type DataArguments } from "./config.js";
import { library } from "./library.js";
import { loading, Progress } from "./progress.js";
import { bold, dim, signal, write } from "./terminal.js";

interface Arguments extends DataArguments {
  model?: string;
  data?: string[];
  batchSize?: number;
  samples?: number;
  generate?: boolean;
  maxNewTokens?: number;
  numBeams?: number;
  bleuTokenizer?: string;
  seed?: number;
  report?: string;
  trainingLog?: string;
  dtype?: string;
  device?: string;
  threads?: number;
  json?: boolean;
}

export function addEvaluate(program: Command): void {
  const command = program
    .command("evaluate")
    .summary("measure a model on a data set")
    .description("Prints the metrics of the task: accuracy and F1, entity F1, exact match, perplexity, BLEU and chrF, rank correlation.")
    .argument("[config]", "a JSON file with the options that evaluate() takes; flags override it; paths are relative to where you are")
    .option("-m, --model <path>", "a model's folder or a hub id")
    .option("-d, --data <path...>", "files: JSON lines, CSV, TSV or plain text")
    .option("--report <folder>", "write report.json, report.md and report.html there")
    .option("--training-log <path>", "whose curves the report draws (default: training-log.jsonl beside the model)")
    .option("--batch-size <n>", "rows that the model sees at once (default: 32)", number)
    .option("--samples <n>", "rows to show with what the model said (default: 5; in a report 20)", number)
    .option("--generate", "have a generator write, and score what it writes (default, but not for a dialogue)")
    .option("--no-generate", "measure likelihoods alone")
    .option("--max-new-tokens <n>", "tokens that a generator writes at the most (default: 128)", number)
    .option("--num-beams <n>", "beams that it writes with (default: 1)", number)
    .addOption(new Option("--bleu-tokenizer <name>", "(default: by the references' language)").choices(["13a", "zh", "none"]))
    .option("--seed <n>", "for masks", number)
    .addOption(new Option("--dtype <type>", "how weights are held").choices(DTYPES))
    .addOption(deviceOption())
    .option("--threads <n>", "how many threads compute (default: one for each core)", number)
    .option("--json", "print the metrics as one JSON object")
    .addHelpText("after", "\nFor instance: candlewick evaluate -m ./tuned -t text-classification -d test.jsonl --report ./report");
  withDataOptions(command).action(run);
}

async function run(config: string | undefined, given: Arguments): Promise<void> {
  const { json, data, maxNewTokens, numBeams, model, batchSize, samples, generate, bleuTokenizer, seed, report, trainingLog } = given;
  const { dtype, device, threads } = given;
  const generation = maxNewTokens === undefined && numBeams === undefined ? undefined : { maxNewTokens, numBeams };
  const flags = { ...dataFlags(given), model, data, batchSize, samples, generate, generation, bleuTokenizer, seed, report, trainingLog, dtype, device, threads };
  const options = merged(await readConfig(config), flags);
  if (options["samples"] === undefined && options["report"] === undefined) options["samples"] = 5;
  const watch = progress();
  try {
    const metrics = await library().evaluate({ ...options, signal, onProgress: watch.onProgress } as EvaluateOptions);
    watch.stop();
    await write(json ? `${JSON.stringify(metrics)}\n` : text(metrics));
    if (options["report"] !== undefined && !json) await write(dim(`\nThe report: ${String(options["report"])}/report.html\n`));
  } finally {
    watch.stop();
  }
}

/** Bars for the load and for the rows. */
function progress(): { onProgress(progress: EvaluationProgress): void; stop(): void } {
  const load = loading();
  let rows: Progress | undefined;
  return {
    onProgress(progress) {
      if (progress.stage !== "evaluate") return load?.(progress);
      rows ??= new Progress(progress.total, "rows");
      rows.update(progress.done);
    },
    stop() {
      rows?.stop();
      rows = undefined;
    },
  };
}

/** Classes and matrices beyond what a terminal shows are for the report. */
const [MOST_CLASSES, MOST_COLUMNS] = [30, 10];

function text(metrics: object): string {
  const { notes = [] } = metrics as { notes?: readonly string[] };
  const parts = [`${notes.map((note) => `${dim(note)}\n`).join("")}${table(figures(metrics))}`];
  const classes = perClass(metrics);
  if (classes.length > 0) {
    const rows = classes.slice(0, MOST_CLASSES).map(({ label, precision, recall, f1, support }) => [label, ...[precision, recall, f1, support].map(short)]);
    parts.push(table([["class", "precision", "recall", "F1", "support"], ...rows]));
  }
  const matrix = confusion(metrics);
  if (matrix && matrix.labels.length <= MOST_COLUMNS) {
    parts.push(table([["said →", ...matrix.labels], ...matrix.matrix.map((row, i) => [matrix.labels[i]!, ...row.map(String)])]));
  }
  for (const { input, expected, predicted, score } of samplesOf(metrics)) {
    parts.push(`${shown(input)}\n${dim("  expected  ")}${shown(expected)}\n${dim("  predicted ")}${shown(predicted)}${score === undefined ? "" : dim(` ${score.toFixed(2)}`)}\n`);
  }
  return parts.join("\n");
}

/** Columns side by side; all but the first are numbers. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) => row.map((cell, i) => (i === 0 ? bold(cell.padEnd(widths[0]!)) : row.length === 2 ? cell : cell.padStart(widths[i]!))).join("  ");
  return rows.map((row) => `${line(row).trimEnd()}\n`).join("");
}
