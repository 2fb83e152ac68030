/** The log that a training leaves beside its checkpoints, read back. */
import { readFile } from "node:fs/promises";
import { CandlewickError } from "../errors.js";

/** A row of `training-log.jsonl`. */
export interface LogRow {
  readonly type: "step" | "evaluation";
  readonly step: number;
  readonly loss: number;
  readonly learningRate?: number;
  readonly metrics?: Readonly<Record<string, unknown>>;
}

export const TRAINING_LOG = "training-log.jsonl";

/**
 * The rows of a log, sorted by step. A training that was killed and resumed writes some steps twice: the later row
 * counts. What is no row, the last line of a crash, is left out.
 *
 * @throws {CandlewickError} `DATA_NOT_FOUND`, `IO`.
 */
export async function readTrainingLog(path: string): Promise<LogRow[]> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    throw new CandlewickError(missing ? "DATA_NOT_FOUND" : "IO", `${path}: ${(cause as Error).message}`, { cause });
  }
  const rows = new Map<string, LogRow>();
  for (const line of text.split("\n")) {
    const row = parse(line);
    if (row) rows.set(`${row.type} ${row.step}`, row);
  }
  return [...rows.values()].sort((a, b) => a.step - b.step);
}

function parse(line: string): LogRow | undefined {
  try {
    const row = JSON.parse(line) as Partial<LogRow> | null;
    const fits = (row?.type === "step" || row?.type === "evaluation") && typeof row.step === "number" && typeof row.loss === "number";
    return fits ? (row as LogRow) : undefined;
  } catch {
    return undefined;
  }
}
