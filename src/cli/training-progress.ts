/** A training as a terminal shows it: a bar on a terminal, a line now and then in a pipe. */
import { short } from "../evaluate/plot.js";
import type { FinetuneEvent } from "../train/events.js";
import { Progress } from "./progress.js";
import { dim, write } from "./terminal.js";

type Step = Extract<FinetuneEvent, { type: "step" }>;

/** Milliseconds between two lines in a pipe. */
const PAUSE = 10_000;
/** Share of the past in the means that are shown: some 20 steps. */
const MEMORY = 0.95;

export class TrainingProgress {
  #bar: Progress | undefined;
  #interactive = false;
  #last = -Infinity;
  /** Seconds and tokens of a step, and its loss, smoothed. */
  #seconds: number | undefined;
  #tokens = 0;
  #loss = 0;

  /** Shows what happened; waits while the pipe is full. */
  async show(event: FinetuneEvent): Promise<void> {
    switch (event.type) {
      case "start": {
        const { totalSteps, step, examples, parameters, trainableParameters, precision, resumedFrom, skipped, notes } = event;
        for (const { path, reason } of skipped) await this.#row(`${path} cannot be used: ${reason}`);
        const share = trainableParameters < parameters ? ` (${((100 * trainableParameters) / parameters).toFixed(2)}% of them are trained)` : "";
        await this.#row(dim(`${examples} examples, ${totalSteps} steps, ${(parameters / 1e6).toFixed(1)} million parameters${share}${precision === "f32" ? "" : `, ${precision}`}`));
        for (const note of notes) await this.#row(dim(note));
        if (resumedFrom) await this.#row(`Going on from step ${step}: ${resumedFrom}`);
        this.#bar = new Progress(totalSteps, "steps", "loss {loss}  {rate} tokens/s  {left} left");
        this.#interactive = process.stdout.isTTY || process.stderr.isTTY;
        this.#bar.update(step, `${step}/${totalSteps}`, { loss: "…", rate: "…", left: "…" });
        return;
      }
      case "step":
        return this.#step(event);
      case "evaluation": {
        const numbers = Object.entries(event.metrics).filter((entry): entry is [string, number] => typeof entry[1] === "number" && !["loss", "examples", "seconds"].includes(entry[0]));
        const metrics = [["loss", event.loss] as const, ...numbers].map(([name, value]) => `${name} ${short(value)}`);
        return this.#row(`step ${event.step}  validation: ${metrics.slice(0, 6).join("  ")}${event.best ? "  (best so far)" : ""}`);
      }
      case "checkpoint":
        return this.#row(dim(`step ${event.step}  checkpoint: ${event.path}`));
      case "done":
        return this.stop();
    }
  }

  async #step({ step, totalSteps, epoch, loss, learningRate, tokens, seconds }: Step): Promise<void> {
    const first = this.#seconds === undefined;
    const mean = (before: number, now: number) => (first ? now : MEMORY * before + (1 - MEMORY) * now);
    this.#tokens = mean(this.#tokens, tokens);
    this.#loss = mean(this.#loss, loss);
    this.#seconds = mean(this.#seconds ?? 0, seconds);
    const rate = (this.#tokens / Math.max(this.#seconds, 1e-9)).toFixed(0);
    const left = duration((totalSteps - step) * this.#seconds);
    this.#bar?.update(step, `${step}/${totalSteps}`, { loss: this.#loss.toFixed(3), rate, left });
    if (this.#interactive) return;
    if (performance.now() - this.#last < PAUSE && step < totalSteps) return;
    this.#last = performance.now();
    await write(`step ${step}/${totalSteps}  epoch ${epoch.toFixed(2)}  loss ${this.#loss.toFixed(4)}  learning rate ${short(learningRate)}  ${rate} tokens/s  ${left} left\n`);
  }

  async #row(text: string): Promise<void> {
    await (this.#bar ? this.#bar.row(text) : write(`${text}\n`));
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}

/** 59 s, 12 min 5 s, 3 h 10 min. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}
