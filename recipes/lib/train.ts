/** How a recipe trains, from nothing to a model in the cache; an interrupted run goes on where it was. */
import { join } from "node:path";
import { finetune, type FinetuneOptions } from "../../index.js";
import { dataFile } from "./data.js";
import { cache } from "./packages.js";

/** What a recipe says of its training; data, output and resuming are the same for all. */
export type Training = Omit<FinetuneOptions, "train" | "validation" | "output" | "resume" | "signal" | "onDownload">;

/** Where `tools/fetch-models.sh` puts what it fetches. */
export const fetched = (name: string): string => join(cache, "..", "models", name);
export const trainedFolder = (name: string): string => join(cache, "trained", name);

export async function train(name: string, training: Training, signal: AbortSignal): Promise<void> {
  const run = finetune({
    ...training,
    train: dataFile(name, "train"),
    validation: dataFile(name, "validation"),
    output: trainedFolder(name),
    resume: true,
    signal,
  });
  let shown = 0;
  for await (const event of run) {
    if (event.type === "start") {
      console.log(`${event.totalSteps} steps, ${event.examples} examples, ${event.parameters} parameters${event.resumedFrom ? `, from ${event.resumedFrom}` : ""}`);
    }
    if (event.type === "step" && Date.now() - shown > 10_000) {
      shown = Date.now();
      console.log(`step ${event.step} of ${event.totalSteps}  loss ${event.loss.toFixed(4)}  ${Math.round(event.tokens / event.seconds)} tokens/s`);
    }
    if (event.type === "evaluation") {
      console.log(`step ${event.step}  validation loss ${event.loss.toFixed(4)}  ${JSON.stringify(event.metrics)}${event.best ? "  best" : ""}`);
    }
  }
  console.log((await run.result).output);
}
