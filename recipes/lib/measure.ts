/**
 * What a shipped model's card says in figures: measured on the held-out texts, written into
 * `docs/models/<name>.{json,md}`.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { evaluate, type FinetuneOptions } from "../../index.js";
import { curves } from "../../src/evaluate/plot.js";
import { readTrainingLog } from "../../src/evaluate/training-log.js";
import { dataFile } from "./data.js";
import { latency, type Latency } from "./latency.js";
import { samples } from "./samples.js";
import { packageFolder } from "./ship.js";
import type { Trained } from "./train.js";

/** How often the held-out texts are cut into parts for an interval: row i is in part i % TENTHS. */
export const TENTHS = 10;
/** Student's t for a two-sided 95% with nine degrees of freedom. */
const T = 2.262;

export interface Figure {
  value: number;
  /**
   * 95%, from the spread over the parts: it says how far other held-out texts would move the figure, not another
   * training.
   */
  interval?: [low: number, high: number];
  parts?: number[];
}

/** Of each group of rows (a language), or of `all`. */
export type Figures = Record<string, { examples: number } & Record<string, Figure | number>>;

export interface Measured {
  weights: string;
  heldout: string;
  figures: Figures;
  latency: Latency;
}

type Row = Record<string, unknown>;

/** Where a metric is in what `evaluate()` gives; and whether a part of the rows says anything of it. */
const METRICS: Partial<Record<FinetuneOptions["task"], Record<string, { path: string; whole?: true }>>> = {
  "text-generation": { "bits per byte": { path: "bitsPerByte" }, perplexity: { path: "perplexity" } },
  translation: {
    BLEU: { path: "bleu.score" }, chrF: { path: "chrf" }, "exact match": { path: "exactMatch" }, perplexity: { path: "perplexity" },
  },
  dialogue: { perplexity: { path: "perplexity" }, "bits per byte": { path: "bitsPerByte" } },
  "sentiment-analysis": {
    accuracy: { path: "accuracy" }, "macro F1": { path: "macro.f1" }, "calibration error": { path: "calibrationError", whole: true },
  },
  "text-classification": {
    "macro F1": { path: "macro.f1" }, accuracy: { path: "accuracy" }, "calibration error": { path: "calibrationError", whole: true },
  },
};

const sha256 = (content: Buffer | string): string => createHash("sha256").update(content).digest("hex");
const at = (metrics: object, path: string): number => path.split(".").reduce<any>((value, key) => value[key], metrics) as number;

export async function shippedWeights(ships: string): Promise<Buffer> {
  const files = ["model.safetensors", "adapter_model.safetensors"].map((file) => join(packageFolder(ships), file));
  return readFile(files.find((file) => existsSync(file))!);
}

export async function heldout(name: string): Promise<{ rows: Row[]; sha256: string }> {
  const text = await readFile(dataFile(name, "heldout"), "utf8");
  return { rows: text.split("\n").filter(Boolean).map((line) => JSON.parse(line) as Row), sha256: sha256(text) };
}

export const part = (rows: readonly Row[], index: number): Row[] => rows.filter((_, i) => i % TENTHS === index);

export function groups({ groups: of }: Trained, rows: readonly Row[]): Map<string, Row[]> {
  const grouped = new Map<string, Row[]>();
  for (const row of rows) {
    const group = of?.(row) ?? "all";
    if (!grouped.has(group)) grouped.set(group, []);
    grouped.get(group)!.push(row);
  }
  return grouped;
}

/** The metrics that the card has, of some rows. */
export async function metricsOf({ ships, training, evaluation }: Trained, rows: readonly Row[], signal?: AbortSignal): Promise<Record<string, number>> {
  const metrics = await evaluate({ ...evaluation, model: packageFolder(ships), task: training.task, data: rows, samples: 0, signal });
  return Object.fromEntries(Object.entries(METRICS[training.task]!).map(([name, { path }]) => [name, at(metrics, path)]));
}

/** Everything that the card has. */
export async function measure(name: string, trained: Trained, signal: AbortSignal): Promise<void> {
  const held = await heldout(name);
  const figures: Figures = {};
  for (const [group, rows] of groups(trained, held.rows)) {
    const whole = await metricsOf(trained, rows, signal);
    const parts: Record<string, number>[] = [];
    for (let index = 0; index < TENTHS; index++) parts.push(await metricsOf(trained, part(rows, index), signal));
    const rowsFigures = Object.entries(METRICS[trained.training.task]!).map(([metric, { whole: alone }]): [string, Figure] => {
      const value = whole[metric]!;
      if (alone) return [metric, { value }];
      const values = parts.map((one) => one[metric]!);
      return [metric, { value, interval: metric === "perplexity" ? spread(value, values, Math.log, Math.exp) : spread(value, values), parts: values }];
    });
    figures[group] = { examples: rows.length, ...Object.fromEntries(rowsFigures) };
  }
  const measured = { weights: sha256(await shippedWeights(trained.ships)), heldout: held.sha256, figures, latency: await latency(trained, held.rows, signal) };
  await write(trained.ships, measured, `\n${await samples(trained, held.rows, signal)}\n\n`);
}

const same = (x: number): number => x;

/** Student's interval from the parts, on a scale on which they spread evenly. */
function spread(value: number, parts: readonly number[], scale = same, back = same): [low: number, high: number] {
  const values = parts.map(scale);
  const mean = values.reduce((sum, x) => sum + x, 0) / TENTHS;
  const half = (T * Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (TENTHS - 1))) / Math.sqrt(TENTHS);
  return [back(scale(value) - half), back(scale(value) + half)];
}

/** The latency alone, anew: on a machine that does nothing else. */
export async function measureLatency(name: string, trained: Trained, signal: AbortSignal): Promise<void> {
  const before = JSON.parse(await readFile(card(trained.ships, "json"), "utf8")) as Measured;
  await write(trained.ships, { ...before, latency: await latency(trained, (await heldout(name)).rows, signal) });
}

const card = (ships: string, ending: string): string => join(__dirname, "../../docs/models", `${ships}.${ending}`);

async function write(ships: string, measured: Measured, said?: string): Promise<void> {
  await writeFile(card(ships, "json"), `${JSON.stringify(measured, undefined, 1)}\n`);
  const table = markdown(measured);
  console.log(table);
  let text = await readFile(card(ships, "md"), "utf8");
  for (const [name, content] of [["figures", table], ["samples", said]] as const) {
    if (content === undefined) continue;
    const place = new RegExp(`(<!-- ${name} -->\n)[^]*(<!-- end of ${name} -->)`);
    text = text.replace(place, (_, begin: string, end: string) => begin + content + end);
  }
  await writeFile(card(ships, "md"), text);
}

const short = (value: number): string => value.toPrecision(Math.abs(value) < 0.1 ? 2 : 4).replace(/^(\d{3,})\..*/, "$1");

function markdown({ figures, latency }: Measured): string {
  const several = Object.keys(figures).length > 1;
  const lines = ["", "| held-out | value | 95% |", "|---|---|---|"];
  for (const [group, { examples, ...metrics }] of Object.entries(figures)) {
    lines.push(`| ${several ? `**${group}**, ` : ""}rows | ${examples} | |`);
    for (const [metric, figure] of Object.entries(metrics)) {
      const { value, interval } = figure as Figure;
      lines.push(`| ${several ? `${group}, ` : ""}${metric} | ${short(value)} | ${interval ? interval.map(short).join(" – ") : ""} |`);
    }
  }
  lines.push("", "| on 2 cores, one request at a time | median | p90 |", "|---|---|---|");
  for (const [what, { median, p90, unit }] of Object.entries(latency)) lines.push(`| ${what} | ${short(median)} ${unit} | ${short(p90)} ${unit} |`);
  return `${lines.join("\n")}\n\n`;
}

/** Loss of training and validation by step, for the card. */
export async function drawCurve(log: string, ships: string): Promise<void> {
  const rows = await readTrainingLog(log);
  const points = (type: string) => rows.filter((row) => row.type === type).map(({ step, loss }) => [step, loss] as const);
  const svg = curves({
    title: `${ships}: loss`,
    x: "step",
    series: [
      { name: "training", colour: "#4c78a8", points: points("step") },
      { name: "validation", colour: "#c92a2a", points: points("evaluation"), marks: true },
    ],
  });
  await writeFile(join(__dirname, "../../docs/models", `${ships}-curve.svg`), svg);
}
