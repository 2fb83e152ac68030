// `candlewick train`: a model fine-tuned, or trained from nothing, with checkpoints that a later run goes on from.
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { CandlewickError } from "../errors.js";
import type { FinetuneOptions } from "../train/options.js";
import { number } from "./arguments.js";
import { dataFlags, merged, readConfig, settings, withDataOptions, type DataArguments } from "./config.js";
import { library } from "./library.js";
import { signal, write } from "./terminal.js";
import { duration, TrainingProgress } from "./training-progress.js";

interface Arguments extends DataArguments {
  model?: string;
  data?: string[];
  validation?: string[];
  output?: string;
  epochs?: number;
  maxSteps?: number;
  batchSize?: number;
  gradientAccumulationSteps?: number;
  learningRate?: number;
  warmupRatio?: number;
  seed?: number;
  loraRank?: number;
  precision?: string;
  fromScratch?: boolean;
  resume?: boolean;
  overwrite?: boolean;
  threads?: number;
  set?: Record<string, unknown>;
  json?: boolean;
}

export function addTrain(program: Command): void {
  const command = program
    .command("train")
    .summary("fine-tune a model, or train one from nothing")
    .description("Trains on a data set, measures on another, and keeps checkpoints. Ctrl-C writes a checkpoint and ends; --resume goes on from it.")
    .argument("[config]", "a JSON file with the options that finetune() takes; flags override it; paths are relative to where you are")
    .option("-m, --model <path>", "a model's folder or a hub id")
    .option("-d, --data <path...>", "what to train on: JSON lines, CSV, TSV or plain text")
    .option("--validation <path...>", "what to measure on")
    .option("-o, --output <folder>", "for the model, the checkpoints and training-log.jsonl")
    .option("--epochs <n>", "how often the data is seen (default: 3)", number)
    .option("--max-steps <n>", "steps of the optimiser, instead of epochs", number)
    .option("--batch-size <n>", "examples in a batch (default: 8)", number)
    .option("--gradient-accumulation-steps <n>", "batches in a step (default: 1)", number)
    .option("--learning-rate <x>", "at its peak (default: 5e-5)", number)
    .option("--warmup-ratio <x>", "share of the steps until then (default: 0)", number)
    .option("--lora-rank <n>", "train low-rank adapters of this rank instead of all weights", number)
    .addOption(new Option("--precision <type>", "of the inputs of products: bf16 is faster where the processor has it, auto takes it there (default: f32)").choices(["f32", "bf16", "auto"]))
    .option("--from-scratch", "draw the weights: the model's folder needs its configuration and tokenizer alone")
    .option("--resume", "go on from the output's newest checkpoint, if there is one")
    .option("--overwrite", "write over an output that holds a finished run")
    .option("--seed <n>", "of the order, the masks, dropout and new weights (default: 42)", number)
    .option("--threads <n>", "how many threads compute (default: one for each core)", number)
    .option("--set <option=value>", "any other option of finetune(): weightDecay=0.1, lora.alpha=32; may be repeated", settings)
    .option("--json", "print every event as a line of JSON")
    .addHelpText(
      "after",
      "\nFor instance:\n  candlewick train -m ./bert -t text-classification -d train.jsonl --validation dev.jsonl -o ./tuned --epochs 3\n  candlewick train recipe.json --resume",
    );
  withDataOptions(command).action(run);
}

async function run(config: string | undefined, given: Arguments): Promise<void> {
  const { json, data, loraRank, set = {}, model, validation, output, epochs, maxSteps, batchSize, gradientAccumulationSteps, learningRate, warmupRatio } = given;
  const { seed, precision, fromScratch, resume, threads, overwrite } = given;
  const lora = loraRank === undefined ? undefined : { rank: loraRank };
  const optimiser = { epochs, maxSteps, batchSize, gradientAccumulationSteps, learningRate, warmupRatio, precision, lora, seed };
  const flags = { ...dataFlags(given), ...optimiser, model, train: data, validation, output, fromScratch, resume, threads };
  const options = merged(merged(await readConfig(config), flags), set);
  if (!overwrite && options["resume"] !== true) await refuseFinished(options["output"]);
  const training = library().finetune(options as unknown as FinetuneOptions);
  // The first Ctrl-C ends the run with a checkpoint; a second one ends the process, as it always does.
  const stop = () => void training.cancel();
  signal.addEventListener("abort", stop, { once: true });
  const progress = new TrainingProgress();
  try {
    for await (const event of training) await (json ? write(`${JSON.stringify(event)}\n`) : progress.show(event));
    const result = await training.result;
    if (result.finishReason === "cancelled") {
      progress.stop();
      const made = result.step > 0 ? `A checkpoint was written after step ${result.step}; --resume goes on from there.` : "Nothing was trained yet.";
      console.error(made);
      throw new CandlewickError("ABORTED", "Interrupted");
    }
    if (json) return;
    const best = result.bestStep === null || result.bestStep === undefined ? "" : ` The best was step ${result.bestStep}.`;
    await write(`Done after ${result.step} steps, ${duration(result.seconds)}.${best}\n${result.output}\n`);
  } finally {
    progress.stop();
    signal.removeEventListener("abort", stop);
  }
}

/** A model that a run has finished is not written over by accident. */
async function refuseFinished(output: unknown): Promise<void> {
  if (typeof output !== "string") return;
  const model = join(output, "model.safetensors");
  if (!existsSync(model)) return;
  const { mtime } = await stat(model);
  throw new CandlewickError("OUTPUT_EXISTS", `${output} holds the model of a run that was finished on ${mtime.toLocaleString()}`);
}
