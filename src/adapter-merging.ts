import { resolve } from "node:path";
import { adapterBase } from "./adapter.js";
import { CandlewickError } from "./errors.js";
import { required } from "./evaluate/evaluate.js";
import { resolveModel, type DownloadProgress } from "./hub.js";
import type { LoadProgress } from "./load.js";
import { native } from "./native.js";
import { checkOptions, checks, type OptionTable } from "./options.js";
import { abortable, mailbox } from "./runtime.js";

export interface MergeAdapterOptions {
  /**
   * What the adapter is merged into: a folder, a package of weights or a hub id. Default: the base that the adapter
   * names.
   */
  model?: string;
  /** A folder in PEFT's layout, or a hub id. */
  adapter: string;
  /**
   * A folder: the merged model in Hugging Face's layout. Files that are there are overwritten; it cannot be the model's
   * or the adapter's.
   */
  output: string;
  /** How weights are written. Default: each as the model has it. */
  dtype?: "f32" | "f16";
  /** Never use the network. Default false. */
  localFilesOnly?: boolean;
  /** Aborting it ends the download or the merging, with `ABORTED`; a folder that was made for it is removed. */
  signal?: AbortSignal;
  /** In bytes. */
  onProgress?: (progress: LoadProgress) => void;
}

export interface UnmergeAdapterOptions extends MergeAdapterOptions {
  /** A merged model: a folder or a hub id. */
  model: string;
}

export interface MergedAdapter {
  /** Absolute. */
  readonly output: string;
  /** Matrices that were changed. */
  readonly modules: number;
  /** Tensors that the adapter holds whole, which took the place of the model's. */
  readonly replaced: number;
  /** Of the weights. */
  readonly bytes: number;
}

const mergeOptions: OptionTable<MergeAdapterOptions> = {
  model: checks.string,
  adapter: checks.string,
  output: checks.string,
  dtype: checks.oneOf("f32", "f16"),
  localFilesOnly: checks.boolean,
  signal: checks.signal,
  onProgress: checks.function,
};

/**
 * Writes a model of its own out of an adapter and its base: W + scale · B A (of a DoRA, scaled to its lengths),
 * computed in f32, as PEFT's `merge_and_unload` does; modules that the adapter holds whole take the place of the
 * base's. Loading an adapter's folder gives the same model without writing it.
 *
 * ```ts
 * await mergeAdapter({ adapter: "./tuned/adapter", output: "./merged" });
 * ```
 *
 * @throws {CandlewickError} `OPTION_UNKNOWN`, `OPTION_INVALID`, `MODEL_NOT_FOUND`, `UNSUPPORTED_MODEL` (what is not
 *   LoRA or DoRA), `CONFIG_INVALID` (a configuration that says other than the weights), `TENSOR_MISSING`,
 *   `TENSOR_SHAPE` (an adapter of another model), `IO` (the output), `ABORTED`, and what can be wrong with a model's
 *   files.
 */
export function mergeAdapter(options: MergeAdapterOptions): Promise<MergedAdapter> {
  return run("mergeAdapter", options, false);
}

/**
 * Takes an adapter out of a model that it was merged into: W - scale · B A, which gives the base's weights up to the
 * rounding of f32 (of a model in f16, of f16). Modules that the adapter holds whole stay: what they took the place of
 * is in the base alone. A DoRA cannot be taken out (`UNSUPPORTED_MODEL`): it changes the lengths of rows.
 *
 * @throws {CandlewickError} As {@link mergeAdapter}.
 */
export function unmergeAdapter(options: UnmergeAdapterOptions): Promise<MergedAdapter> {
  return run("unmergeAdapter", options, true);
}

async function run(where: string, options: MergeAdapterOptions, unmerge: boolean): Promise<MergedAdapter> {
  const checked = checkOptions(where, options, mergeOptions);
  required(where, checked, unmerge ? ["model", "adapter", "output"] : ["adapter", "output"]);
  const { output, dtype, localFilesOnly, signal, onProgress } = checked;
  const resolving = {
    localFilesOnly,
    signal,
    onProgress: onProgress && ((progress: DownloadProgress) => onProgress({ stage: "download", ...progress })),
  };
  const adapter = await resolveModel(checked.adapter, resolving);
  const model = checked.model === undefined ? (await adapterBase(adapter, resolving))?.path : await resolveModel(checked.model, resolving);
  if (model === undefined) throw new CandlewickError("MODEL_NOT_FOUND", `${adapter} holds no adapter in PEFT's layout`);
  const request = JSON.stringify({ model, adapter, output: resolve(output), unmerge, dtype });
  const merged = await abortable<string>(
    signal,
    (id, cancel) => native.mergeAdapter(mailbox, id, request, cancel, onProgress !== undefined),
    onProgress && ((loaded, total) => onProgress({ stage: "load", loaded, total })),
  );
  return JSON.parse(merged);
}
