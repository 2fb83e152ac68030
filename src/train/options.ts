/**
 * What may be asked of a training run. Names are those of transformers' `TrainingArguments`, defaults those of
 * `crates/train/src/trainer/options.rs`.
 */
import { dataOptions, TASKS, type DataOptions, type Task } from "../data/options.js";
import type { DataSource } from "../data/source.js";
import type { DownloadProgress } from "../hub.js";
import { checks, isPlainObject, type Check, type OptionTable } from "../options.js";

/** LoRA: small matrices beside the weights are trained, the weights are not. */
export interface LoraOptions {
  /** Default 8. */
  rank?: number;
  /** The delta is scaled by `alpha / rank`. Default: twice the rank. */
  alpha?: number;
  /** Of the adapters' input, from 0 to below 1. Default 0. */
  dropout?: number;
  /**
   * Which layers get them, as PEFT's `target_modules`: the last parts of names, a regular expression over whole names
   * (`transformer.h.0.attn.c_attn`, `bert.encoder.layer.0.output.dense`), or `"all-linear"`. Regular expressions are
   * Python's without look-around and back-references. Default: `["c_attn"]` for a GPT-2, else queries and values:
   * `["query", "value"]`, `["q_lin", "v_lin"]` for a DistilBERT, `["q", "v"]` for an MPNet.
   */
  targetModules?: string | readonly string[];
  /** Of those, which get none: the last parts of names, or a regular expression over whole names. */
  excludeModules?: string | readonly string[];
  /** Numbers of the layers that get them. Default: all. Not with a `targetModules` that is one string. */
  layersToTransform?: number | readonly number[];
  /** What comes before a layer's number in a name, a regular expression: `"h"`. Default: anything. */
  layersPattern?: string | readonly string[];
  /** Other ranks: by regular expressions that match the last parts of names. The first that matches counts. */
  rankPattern?: Readonly<Record<string, number>>;
  /** Other values of `alpha`, as `rankPattern`. */
  alphaPattern?: Readonly<Record<string, number>>;
}

export interface FinetuneOptions extends DataOptions {
  /**
   * A folder or a hub id. That of an adapter in PEFT's layout is trained on: its matrices, and the modules that it
   * holds whole.
   */
  model: string;
  task: Task;
  train: DataSource;
  /** Measured at the end of each epoch, or every `evalSteps`. */
  validation?: DataSource;
  /** A folder: the trained model in Hugging Face's layout, `checkpoint-<step>` folders, `training-log.jsonl`. */
  output: string;
  /**
   * Begin with random weights: the model's folder needs a tokenizer and a `config.json`, or `config`. Default false.
   */
  fromScratch?: boolean;
  /** Keys over those of `config.json`; all of them if there is none. `vocab_size` is the tokenizer's by default. */
  config?: Readonly<Record<string, unknown>>;
  /** Passes over the training set; may be a fraction. Default 3. */
  epochs?: number;
  /** Optimiser steps, instead of `epochs`. */
  maxSteps?: number;
  /** Rows of a batch. Default 8. */
  batchSize?: number;
  /** Batches of an optimiser step; the loss is the mean over all their tokens or rows. Default 1. */
  gradientAccumulationSteps?: number;
  /**
   * `"muon"` (Jordan et al. 2024; scaled as by Liu et al. 2025, so that learning rates and decay are AdamW's) takes the
   * matrices inside the layers, AdamW the rest: models from scratch learn more from as much text, for a tenth more time
   * a step. Default `"adamw"`.
   */
  optimizer?: "adamw" | "muon";
  /**
   * What the inputs of the layers' products are rounded to, forward and backward. Weights, gradients, moments, norms,
   * the softmax and the loss are f32 in all. `"bf16"`: over half as fast again where the processor has AVX-512 BF16,
   * the same results elsewhere, slower, with a warning of Node's (`CANDLEWICK_BF16_SLOW`) once. `"auto"`: bf16 there,
   * f32 elsewhere; a run that goes on keeps what it began with. Default `"f32"`.
   */
  precision?: "f32" | "bf16" | "auto";
  /** The highest. Default 5e-5. */
  learningRate?: number;
  /** Of matrices and embeddings, not of biases and norms. Default 0. */
  weightDecay?: number;
  /** Default 0.9. */
  adamBeta1?: number;
  /** Default 0.999. */
  adamBeta2?: number;
  /** Default 1e-8. */
  adamEpsilon?: number;
  /** Gradients are scaled down to this norm; 0: never. Default 1. */
  maxGradNorm?: number;
  /**
   * What the learning rate does after the warm-up: `linear` and `cosine` fall to 0 at the last step. Default
   * `"linear"`.
   */
  lrSchedulerType?: "linear" | "cosine" | "constant";
  /** Steps in which the learning rate rises from 0. Default 0. */
  warmupSteps?: number;
  /** The same as a share of all steps. Default 0. */
  warmupRatio?: number;
  /** From 0 to below 1. Default 0. */
  labelSmoothing?: number;
  /** All of the model's dropout probabilities. Default: those of its configuration, 0.1 where it has none. */
  dropout?: number;
  /** Less memory (a layer keeps its input alone), a third more time. Default false. */
  gradientCheckpointing?: boolean;
  /** The embeddings and so many layers stay as they are. Default 0. */
  freezeLayers?: number;
  /**
   * Train adapters. The output then holds them in PEFT's format in `adapter/`, and the model with them merged. Where
   * the model is an adapter, which keeps its shape, nothing but `dropout` may differ from it.
   */
  lora?: LoraOptions;
  /** Of the order of the data, dropout, new weights. Default 42. */
  seed?: number;
  /** Default: as many as the machine lets this process run at once. */
  threads?: number;
  /** Steps between evaluations. Default: an epoch's. */
  evalSteps?: number;
  /** Steps between checkpoints. Default: an epoch's. */
  saveSteps?: number;
  /** Checkpoints that are kept, beside the best. Default 2. */
  saveTotalLimit?: number;
  /**
   * The output is the model of the best evaluation, not of the last step. Default: true if there is a validation set.
   */
  loadBestModelAtEnd?: boolean;
  /** What makes an evaluation the best, among its metrics: `"loss"`, `"accuracy"`, `"macro.f1"`, … Default `"loss"`. */
  metricForBestModel?: string;
  /** Default: not for a loss, a perplexity or an error. */
  greaterIsBetter?: boolean;
  /** End after so many evaluations without an improvement. */
  earlyStoppingPatience?: number;
  /**
   * Go on from the last checkpoint in `output` that is whole; begin if there is none. With the same options and data
   * the weights end up the same bits as those of a run that was never interrupted. Default false.
   */
  resume?: boolean;
  /** Aborting it writes a checkpoint and ends the run with code `ABORTED`. */
  signal?: AbortSignal;
  /** Called as a hub model is downloaded. */
  onDownload?: (progress: DownloadProgress) => void;
}

const share = checks.number("of at least 0 and below 1", (x) => x >= 0 && x < 1);
const positive = checks.number("above 0", (x) => x > 0);
const notNegative = checks.number("of at least 0", (x) => x >= 0);
const object: Check = (value) => (isPlainObject(value) ? undefined : "must be an object");
/** Looked at when it is opened. */
const data: Check = () => undefined;

const layer = checks.integer(0);
const each =
  (check: Check): Check =>
  (value) =>
    isPlainObject(value) ? Object.values(value).map(check).find(Boolean) : "must be an object of numbers";
const names: Check = (value) =>
  Array.isArray(value) && value.length === 0 ? "must be a string, or an array of strings that is not empty" : checks.oneOrMore(checks.string)(value);

export const loraOptions: OptionTable<LoraOptions> = {
  rank: checks.integer(1, 4096),
  alpha: positive,
  dropout: share,
  targetModules: names,
  excludeModules: names,
  layersToTransform: checks.oneOrMore(layer),
  layersPattern: names,
  rankPattern: each(checks.integer(1, 4096)),
  alphaPattern: each(positive),
};

export const finetuneOptions: OptionTable<FinetuneOptions> = {
  ...dataOptions,
  model: checks.string,
  task: checks.oneOf(...TASKS),
  train: data,
  validation: data,
  output: checks.string,
  fromScratch: checks.boolean,
  config: object,
  epochs: positive,
  maxSteps: checks.integer(1),
  batchSize: checks.integer(1, 65_536),
  gradientAccumulationSteps: checks.integer(1, 65_536),
  optimizer: checks.oneOf("adamw", "muon"),
  precision: checks.oneOf("f32", "bf16", "auto"),
  learningRate: positive,
  weightDecay: notNegative,
  adamBeta1: share,
  adamBeta2: share,
  adamEpsilon: positive,
  maxGradNorm: notNegative,
  lrSchedulerType: checks.oneOf("linear", "cosine", "constant"),
  warmupSteps: checks.integer(0),
  warmupRatio: checks.number("from 0 to 1", (x) => x >= 0 && x <= 1),
  labelSmoothing: share,
  dropout: share,
  gradientCheckpointing: checks.boolean,
  freezeLayers: checks.integer(0),
  lora: object,
  seed: checks.integer(0),
  threads: checks.integer(1, 1024),
  evalSteps: checks.integer(1),
  saveSteps: checks.integer(1),
  saveTotalLimit: checks.integer(1),
  loadBestModelAtEnd: checks.boolean,
  metricForBestModel: checks.string,
  greaterIsBetter: checks.boolean,
  earlyStoppingPatience: checks.integer(1),
  resume: checks.boolean,
  signal: checks.signal,
  onDownload: checks.function,
};
