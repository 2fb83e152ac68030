/** An evaluation for people: JSON, Markdown, and one HTML page that needs no other file. */
import { mkdir, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Task } from "../data/options.js";
import type { DataSource } from "../data/source.js";
import { CandlewickError } from "../errors.js";
import type { ClassificationMetrics, ClassScores, Metrics, RegressionMetrics, Sample } from "./metrics.js";
import { page } from "./page.js";
import { short } from "./plot.js";
import { readTrainingLog, TRAINING_LOG, type LogRow } from "./training-log.js";

export interface Report {
  readonly task: Task;
  readonly model: string;
  /** Paths, or that there were none. */
  readonly data: string;
  readonly created: string;
  readonly metrics: Metrics | RegressionMetrics;
  readonly training: readonly LogRow[];
}

interface Facts {
  task: Task;
  model: string;
  data: DataSource;
  metrics: Metrics | RegressionMetrics;
  trainingLog: string | undefined;
}

/** @throws {CandlewickError} `IO`: the folder cannot be written. `DATA_NOT_FOUND`: the log that was named is not there. */
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

/** Whole or not at all: somebody may be looking. */
async function write(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

const names: Readonly<Record<string, string>> = {
  mcc: "MCC",
  f1: "F1",
  chrf: "chrF",
  chrfPlusPlus: "chrF++",
  bitsPerByte: "bits per byte",
  characterF1: "F1 by characters",
  accuracyInterval: "accuracy, 95%",
  examples: "examples",
};

/** A metric's name in words. */
const words = (name: string): string => names[name] ?? name.replace(/[A-Z]/g, (c) => ` ${c.toLowerCase()}`);

/** Every number among the metrics with its name; BLEU and averages opened up. */
export function figures(metrics: object): [name: string, value: string][] {
  return Object.entries(metrics).flatMap(([name, value]): [string, string][] => {
    if (typeof value === "number") return [[words(name), name === "seconds" ? value.toFixed(1) : short(value)]];
    if (name === "accuracyInterval") return [[words(name), (value as number[]).map(short).join(" – ")]];
    if (name === "bleu") {
      const { score, tokenizer, precisions, brevityPenalty } = value as NonNullable<Metrics<"translation">["bleu"]>;
      const parts = `${precisions.map((p) => p.toFixed(1)).join("/")}, brevity penalty ${short(brevityPenalty)}, tokenizer ${tokenizer}`;
      return [["BLEU", `${short(score)} (${parts})`]];
    }
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return Object.entries(value as object).map(([part, number]) => [`${words(name)} ${words(part)}`, short(number)]);
    }
    return [];
  });
}

export const perClass = (metrics: object): readonly ClassScores[] => (metrics as Partial<ClassificationMetrics>).perClass ?? [];
export const samplesOf = (metrics: object): readonly Sample[] => (metrics as Partial<ClassificationMetrics>).samples ?? [];
export const confusion = (metrics: object): { labels: readonly string[]; matrix: readonly (readonly number[])[] } | undefined => {
  const { labels, confusionMatrix: matrix } = metrics as Partial<ClassificationMetrics>;
  return labels && matrix && { labels, matrix };
};

export const shown = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));

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
    const rows = samples.map(({ input, expected, predicted }) => [input, expected, predicted].map((value) => cell(shown(value))));
    sections.push("## Samples", table(["input", "expected", "predicted"], rows).replace("| --- | ---: | ---: |", "| --- | --- | --- |"));
  }
  return `${sections.join("\n\n")}\n`;
}
