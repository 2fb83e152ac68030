/** Before the first step: what the run is about to do. */
export interface StartEvent {
  readonly type: "start";
  /** Optimiser steps in all, and those that were done before this run went on. */
  readonly totalSteps: number;
  readonly step: number;
  readonly stepsPerEpoch: number;
  readonly parameters: number;
  readonly trainableParameters: number;
  /** Of the training set. */
  readonly examples: number;
  /** What the inputs of products are rounded to; of `precision: "auto"`, what it came to. */
  readonly precision: "f32" | "bf16";
  /** What products are computed with, such as `"avx512bf16"` or `"avx2"`. */
  readonly instructionSet: string;
  /**
   * Share of the training set's tokens that the tokenizer does not know, in a sample; `null` for a vocabulary that
   * knows every text.
   */
  readonly unknownTokens: number | null;
  /** Parameters that the checkpoint had not: a new head's. */
  readonly newParameters: readonly string[];
  /** What was inferred from the data, in a line each: which classes its labels are, and which problem. */
  readonly notes: readonly string[];
  /** The checkpoint that the run goes on from. */
  readonly resumedFrom: string | null;
  /** Checkpoints that are damaged, and why. */
  readonly skipped: readonly { readonly path: string; readonly reason: string }[];
}

/** After an optimiser step. */
export interface StepEvent {
  readonly type: "step";
  /** From 1. */
  readonly step: number;
  readonly totalSteps: number;
  /** Passes over the data so far. */
  readonly epoch: number;
  /** The mean over the step's tokens or rows. */
  readonly loss: number;
  readonly learningRate: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  /** Input tokens of the step. */
  readonly tokens: number;
  readonly seconds: number;
}

export interface EvaluationEvent {
  readonly type: "evaluation";
  readonly step: number;
  readonly epoch: number;
  readonly loss: number;
  /** Those of {@link evaluate} on the validation set, but for what a model writes. */
  readonly metrics: Readonly<Record<string, unknown>>;
  /** It is the best so far. */
  readonly best: boolean;
  readonly seconds: number;
}

/** A checkpoint is on the disk, whole. */
export interface CheckpointEvent {
  readonly type: "checkpoint";
  readonly step: number;
  readonly path: string;
}

/** The last event, and the run's result. */
export interface DoneEvent {
  readonly type: "done";
  readonly step: number;
  readonly epoch: number;
  /** `"cancelled"`: there is a checkpoint to go on from, unless no step was made, but no model in the output yet. */
  readonly finishReason: "completed" | "early-stopping" | "cancelled";
  /** The mean over the last hundred steps; null if this run made none. */
  readonly loss: number | null;
  readonly bestStep: number | null;
  readonly bestMetric: number | null;
  readonly output: string;
  /** Since the first step, interruptions not counted. */
  readonly tokens: number;
  readonly seconds: number;
}

export type FinetuneEvent = StartEvent | StepEvent | EvaluationEvent | CheckpointEvent | DoneEvent;
