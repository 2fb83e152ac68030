/** How a recipe trains, from nothing to a model in the cache; an interrupted run goes on where it was. */
import { createReadStream, existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { finetune, trainTokenizer, type EvaluateOptions, type FinetuneOptions, type TrainTokenizerOptions } from "../../index.js";
import { TrainingProgress } from "../../src/cli/training-progress.js";
import { dataFile } from "./data.js";
import { cache } from "./packages.js";

/** What a recipe says of a run; data, output and resuming are the same for all. */
export type Training = Omit<FinetuneOptions, "train" | "validation" | "output" | "resume" | "signal" | "onDownload">;

export interface Trained {
  /** The package that it ships in, `models/<name>/`. */
  readonly ships: string;
  /** Of a model from scratch: of these columns of the training set. Written to `trainedFolder(…, "tokenizer")`. */
  readonly tokenizer?: Omit<TrainTokenizerOptions, "files" | "texts" | "output" | "column"> & { columns: readonly string[] };
  /** Runs before the last one, on the same texts; their models are in `trainedFolder(…, "before-1")` and so on. */
  readonly before?: readonly Training[];
  readonly training: Training;
  /** What its pipeline takes by default: `task_specific_params[task]` of `config.json`. */
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** How its held-out figures are measured, beside what follows from the task. */
  readonly evaluation?: Pick<EvaluateOptions, "batchSize" | "generation" | "maxLength">;
  /** Rows that are measured apart: a row's language. Default: all are one group. */
  readonly groups?: (row: Readonly<Record<string, unknown>>) => string;
  /** What a generator's card shows it going on from, answering, or translating. */
  readonly examples?: readonly string[];
  /** Of a generator: what one request is made of. */
  readonly request?: { readonly prompt: (row: Readonly<Record<string, unknown>>) => string; readonly maxNewTokens?: number };
}

/** Where `tools/fetch-models.sh` puts what it fetches. */
export const fetched = (name: string): string => join(cache, "..", "models", name);
export const trainedFolder = (name: string, part = "model"): string => join(cache, "trained", name, part);

export async function train(name: string, { tokenizer, before = [], training }: Trained, signal: AbortSignal): Promise<void> {
  const folder = trainedFolder(name, "tokenizer");
  if (tokenizer && !existsSync(join(folder, "tokenizer.json"))) {
    const { columns, ...options } = tokenizer;
    await trainTokenizer({ ...options, texts: texts(dataFile(name, "train"), columns), output: folder, signal });
  }
  for (const [i, one] of before.entries()) await run(name, one, trainedFolder(name, `before-${i + 1}`), signal);
  await run(name, training, trainedFolder(name), signal);
}

async function* texts(file: string, columns: readonly string[]): AsyncGenerator<string> {
  for await (const line of createInterface(createReadStream(file))) {
    const row = JSON.parse(line) as Record<string, string>;
    for (const column of columns) yield row[column]!;
  }
}

async function run(name: string, training: Training, output: string, signal: AbortSignal): Promise<void> {
  if (existsSync(join(output, "model.safetensors"))) return;
  const run = finetune({
    ...training,
    train: dataFile(name, "train"),
    validation: dataFile(name, "validation"),
    output,
    resume: true,
    signal,
  });
  const progress = new TrainingProgress();
  try {
    for await (const event of run) await progress.show(event);
    await run.result;
  } finally {
    progress.stop();
  }
  console.log(output);
}
