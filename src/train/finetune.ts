import { resolve } from "node:path";
import { adapterBase } from "../adapter.js";
import { dataOptions, pickDataOptions, refuseUseless } from "../data/options.js";
import { openData, type OpenData } from "../data/source.js";
import { abortError } from "../errors.js";
import { required } from "../evaluate/evaluate.js";
import { resolveModel } from "../hub.js";
import { native } from "../native.js";
import { checkOptions } from "../options.js";
import { readTaskParameters, separatorOf } from "../task-parameters.js";
import { finetuneOptions, loraOptions, type FinetuneOptions } from "./options.js";
import { TrainingRun, type Opened } from "./run.js";

export type { FinetuneOptions } from "./options.js";

/**
 * Trains a GPT-2, a BERT or another encoder of its family on a task, from a pretrained model or from scratch, on
 * threads of its own: the event loop stays free.
 *
 * ```ts
 * const data = { train: "train.jsonl", validation: "validation.jsonl" };
 * const run = finetune({ model: "./bert", task: "text-classification", ...data, output: "./tuned" });
 * for await (const event of run) if (event.type === "step") console.log(event.step, event.loss);
 * const { bestMetric } = await run.result;
 * ```
 *
 * What it makes loads into {@link loadGPT2}, {@link loadBERT} and Python's transformers. Checkpoints are folders
 * written aside and renamed: whatever interrupts a run, the last one is whole, and `resume` goes on from it with the
 * same bits.
 *
 * @throws {CandlewickError} at once: `OPTION_UNKNOWN`, `OPTION_INVALID`. Through the run, before its first step:
 *   `OPTION_INVALID` (what depends on the model), `DATA_NOT_FOUND`, `DATA_EMPTY`, `DATA_INVALID`, `COLUMN_UNKNOWN`,
 *   `LABEL_UNKNOWN`, `TOKENIZER_MISSING`, `CHECKPOINT_MISMATCH`, `CHECKPOINT_CORRUPT` (no checkpoint is whole), `IO`,
 *   and what can be wrong with a model's files; later: `LOSS_NOT_FINITE`, `IO` (a full disk), `ABORTED`.
 */
export function finetune(options: FinetuneOptions): TrainingRun {
  const checked = checkOptions("finetune", options, finetuneOptions);
  required("finetune", checked, ["model", "task", "train", "output"]);
  const lora = checked.lora && checkOptions("finetune: lora", checked.lora, loraOptions);
  refuseUseless("finetune", checked.task, checked);
  const output = resolve(checked.output);
  const opening = new AbortController();
  const signal = AbortSignal.any([opening.signal, ...(checked.signal ? [checked.signal] : [])]);
  const opened = open({ ...checked, lora, output, signal });
  // The reader of the run gets the error.
  opened.catch(() => {});
  return new TrainingRun({ opened, opening, output, signal: checked.signal });
}

async function open(options: FinetuneOptions): Promise<Opened> {
  const { model, task, train, validation, output, signal, onDownload } = options;
  if (signal?.aborted) throw abortError(signal);
  const resolving = { signal, onProgress: onDownload };
  const path = await resolveModel(model, resolving);
  const base = await adapterBase(path, resolving);
  // Of a hub model or a package the name, which is good on any machine.
  const named = path === resolve(model) ? path : model;
  // A model that was trained for the task goes on as it was; without weights there is nothing to go on from.
  const learned = options.fromScratch ? undefined : separatorOf(await readTaskParameters(base ? [path, base.path] : [path]), task);
  const separator = options.separator ?? learned;
  const data: OpenData[] = [];
  const close = async () => {
    for (const each of data) await each[Symbol.asyncDispose]();
  };
  try {
    data.push(await openData("finetune", train, options));
    if (validation !== undefined) data.push(await openData("finetune", validation, options));
    if (signal?.aborted) throw abortError(signal);
    const request = {
      ...pickTrainingOptions(options),
      model: path,
      base: base?.path,
      baseName: base?.name ?? named,
      task,
      train: data[0]!.paths,
      validation: data[1]?.paths ?? [],
      output,
      options: { ...pickDataOptions(options), separator },
    };
    return { native: new native.Finetune(JSON.stringify(request)), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The addon's `FinetuneOptions`, without those that say what and where. */
function pickTrainingOptions(options: FinetuneOptions): Partial<FinetuneOptions> {
  const elsewhere = new Set([...Object.keys(dataOptions), "signal", "onDownload"]);
  return Object.fromEntries(Object.entries(options).filter(([name]) => !elsewhere.has(name)));
}
