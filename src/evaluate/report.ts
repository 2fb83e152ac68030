/**
 * What a report of an evaluation shows, and how its values are written: what its Markdown and its page have in common.
 */
import type { Task } from "../data/options.js";
import type { ClassificationMetrics, ClassScores, Metrics, RegressionMetrics, Sample } from "./metrics.js";
import { short } from "./plot.js";
import type { LogRow } from "./training-log.js";

export interface Report {
  readonly task: Task;
  readonly model: string;
  /** Paths, or that there were none. */
  readonly data: string;
  readonly created: string;
  readonly metrics: Metrics | RegressionMetrics;
  readonly training: readonly LogRow[];
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
