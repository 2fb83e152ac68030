/** An evaluation for people: JSON, Markdown, and one HTML page that needs no other file. */
import { mkdir, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Task } from "../data/options.js";
import type { DataSource } from "../data/source.js";
import { CandlewickError } from "../errors.js";
import type { ClassScores, Metrics, RegressionMetrics } from "./metrics.js";
import { page } from "./page.js";
import { short } from "./plot.js";
import { confusion, figures, perClass, samplesOf, shown, type Report } from "./report.js";
import { readTrainingLog, TRAINING_LOG, type LogRow } from "./training-log.js";

interface Facts {
  task: Task;
  model: string;
  data: DataSource;
  metrics: Metrics | RegressionMetrics;
  trainingLog: string | undefined;
}

/**
 * @throws {CandlewickError} `IO`: the folder cannot be written. `DATA_NOT_FOUND`: the log that was named is not there.
 */
export async function writeReport(folder: string, { task, model, data, metrics, trainingLog }: Facts): Promise<void> {
  const beside = join(model, TRAINING_LOG);
  const log = trainingLog ?? ((await isFile(beside)) ? beside : undefined);
  const training = log === undefined ? [] : await readTrainingLog(log);
  const source = typeof data === "string" ? data : Array.isArray(data) && typeof data[0] === "string" ? data.join(", ") : "rows of a program";
  const report: Report = { task, model, data: source, created: new Date().toISOString(), metrics, training };
  const { training: _, ...result } = report;
  try {
    await mkdir(folder, { recursive: true });
    await write(join(folder, "report.json"), `${JSON.stringify(result, undefined, 2)}\n`);
    await write(join(folder, "report.md"), markdown(report));
    await write(join(folder, "report.html"), page(report));
  } catch (cause) {
    throw new CandlewickError("IO", `The report cannot be written to ${folder}: ${(cause as Error).message}`, { cause });
  }
}

const isFile = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isFile() ?? false;

/** Writes the file atomically: another program may be reading it. */
async function write(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

/** Markdown's own characters, and what would end a cell. */
const cell = (text: string): string => text.replace(/[\\|`*_[\]#]/g, "\\$&").replaceAll("<", "&lt;").replace(/\s+/g, " ");
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");

/** Classes in a table beyond these are for the JSON. */
const MOST_CLASSES = 50;

function markdown(report: Report): string {
  const { metrics, task, model, data, created, training } = report;
  const sections = [
    `# ${task}: ${cell(model)}`,
    `Data: ${cell(data)}. ${created}.`,
    table(["metric", "value"], figures(metrics).map((row) => row.map(cell))),
  ];
  const classes = perClass(metrics);
  if (classes.length > 0) {
    const row = ({ label, precision, recall, f1, support }: ClassScores) => [cell(label), ...[precision, recall, f1, support].map(short)];
    sections.push("## Classes", table(["class", "precision", "recall", "F1", "support"], classes.slice(0, MOST_CLASSES).map(row)));
  }
  const matrix = confusion(metrics);
  if (matrix && matrix.labels.length <= MOST_CLASSES) {
    const rows = matrix.matrix.map((row, i) => [`**${cell(matrix.labels[i]!)}**`, ...row.map(String)]);
    sections.push("## Confusion matrix", "Row: the class. Column: what was said.", table(["", ...matrix.labels.map(cell)], rows));
  }
  if (training.length > 0) {
    const row = ({ step, loss }: LogRow) => [String(step), short(loss)];
    const evaluations = training.filter(({ type }) => type === "evaluation");
    const last = training.filter(({ type }) => type === "step").at(-1);
    sections.push("## Training");
    if (evaluations.length > 0) sections.push(table(["step", "validation loss"], evaluations.map(row)));
    if (last) sections.push(`Training loss at step ${last.step}: ${short(last.loss)}.`);
  }
  const samples = samplesOf(metrics);
  if (samples.length > 0) {
    const scored = samples.some(({ score }) => score !== undefined);
    const rows = samples.map(({ input, expected, predicted, score }) => [
      ...[input, expected, predicted].map((value) => cell(shown(value))),
      ...(scored ? [score?.toFixed(2) ?? ""] : []),
    ]);
    const head = ["input", "expected", "predicted", ...(scored ? ["score"] : [])];
    sections.push("## Samples", table(head, rows).replace("| --- | ---: | ---: |", "| --- | --- | --- |"));
  }
  return `${sections.join("\n\n")}\n`;
}
