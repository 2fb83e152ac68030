import { adapterBase } from "./adapter.js";
import { DEVICE, NOT_A_DEVICE, type Device } from "./device.js";
import { resolveModel, type DownloadProgress } from "./hub.js";
import type { native } from "./native.js";
import { checkOptions, checks, invalid, type OptionTable } from "./options.js";
import { abortable, mailbox } from "./runtime.js";

export type Dtype = "f32" | "f16" | "bf16" | "int8" | "q8_0" | "q4_0";
export type { Device };

export interface LoadOptions {
  /**
   * How weights are held in memory. Default: as the checkpoint has them, f32 or f16 (a checkpoint in bf16 in f32, which
   * holds it exactly); of a GGUF file Q8_0 and Q4_0 too, its other quantised types as q8_0. `"bf16"`: products take
   * their inputs in bf16 too, with sums in f32; twice as fast as f32 where the processor has AVX-512 BF16, the same
   * results elsewhere at the speed of f32, with a warning of Node's (`CANDLEWICK_BF16_SLOW`) once. `"int8"`: weights
   * and inputs in int8, with exact sums; half as fast again as bf16 where the processor has AVX-512 VNNI, an encoder's
   * vectors within a cosine of 0.999 of those in f32. On a GPU `"int8"`, `"q8_0"`, `"q4_0"` and a GGUF file's quantised
   * weights are held as f16, and `info.dtype` says so.
   */
  dtype?: Dtype;
  /**
   * Default `"auto"`: the first GPU where CUDA is installed and can hold the model, and no adapters are asked for; else
   * the CPU. A GPU that is not there is refused with `UNSUPPORTED_DEVICE`.
   */
  device?: Device;
  /** Threads that compute. Default: as many as the machine lets this process run at once. */
  threads?: number;
  /** Aborting it ends the download or the load, which is then rejected with code `ABORTED`. */
  signal?: AbortSignal;
  /**
   * Called now and then as files are downloaded and weights are read. What it throws ends the load,
   * which is rejected with it once nothing of it runs any more.
   */
  onProgress?: (progress: LoadProgress) => void;
  /** A hub model's branch, tag or commit. Default `"main"`. With a path it throws `OPTION_INVALID`. */
  revision?: string;
  /** Never use the network: a hub model must be in the cache. Default false. */
  localFilesOnly?: boolean;
  /**
   * Most tokens that may wait for the model: of a GPT-2 those of prompts that have not started, of a BERT those of
   * texts that have not run. What is beyond is refused at once with `QUEUE_FULL`. Default 4,194,304.
   */
  maxQueuedTokens?: number;
  /** Most requests that may wait for the model; what is beyond is refused at once with `QUEUE_FULL`. Default 16,384. */
  maxQueuedRequests?: number;
  /**
   * Milliseconds that a step of the model may take while others wait or decode: long prompts and batches are divided by
   * the speed that was measured. What cannot be divided, such as one long text of a BERT, may take longer. Default 50.
   */
  maxStepMs?: number;
}

export const loadOptions: OptionTable<LoadOptions> = {
  dtype: checks.oneOf("f32", "f16", "bf16", "int8", "q8_0", "q4_0"),
  device: (value) => (typeof value === "string" && DEVICE.test(value) ? undefined : NOT_A_DEVICE),
  threads: checks.integer(1, 1024),
  signal: checks.signal,
  onProgress: checks.function,
  revision: checks.string,
  localFilesOnly: checks.boolean,
  maxQueuedTokens: checks.integer(1),
  maxQueuedRequests: checks.integer(1),
  maxStepMs: checks.number("from 1 to 60,000", (value) => value >= 1 && value <= 60_000),
};

/** @internal The names of {@link LoadOptions}, and of what a GPT-2 takes beside them. */
export const LOAD_OPTION_NAMES: readonly string[] = [...Object.keys(loadOptions), "kvCacheBytes"];

/** Progress of a load, in bytes. */
export type LoadProgress =
  /** One of the hub's files; several may be on their way. */
  | { readonly stage: "download"; readonly file: string; readonly loaded: number; readonly total: number }
  /** All weights. */
  | { readonly stage: "load"; readonly loaded: number; readonly total: number };

type Loader = typeof native.loadGenerator | typeof native.loadEncoder;

/**
 * Finds the model's files, downloads them if need be, and has `loader` load them; `folders` is where they are, an
 * adapter's before its base's.
 */
export async function load<T, Options extends LoadOptions & { adapters?: Readonly<Record<string, string>>; kvCacheBytes?: number }>(
  where: string,
  loader: Loader,
  source: string,
  options: Options,
  table: OptionTable<Options>,
): Promise<{ model: T; folders: readonly string[] }> {
  const problem = checks.string(source);
  if (problem) throw invalid(where, "the model", problem, source);
  const checked = checkOptions(where, options, table);
  const { dtype, device, threads, signal, onProgress, revision, localFilesOnly, adapters, kvCacheBytes } = checked;
  const { maxQueuedTokens, maxQueuedRequests, maxStepMs } = checked;
  const resolving = {
    localFilesOnly,
    signal,
    onProgress: onProgress && ((progress: DownloadProgress) => onProgress({ stage: "download", ...progress })),
  };
  const path = await resolveModel(source, { ...resolving, revision });
  const base = await adapterBase(path, resolving);
  const request = {
    path,
    base: base?.path,
    dtype,
    device,
    threads,
    adapters: adapters && Object.entries(adapters),
    kvCacheBytes,
    maxQueuedTokens,
    maxQueuedRequests,
    maxStepMs,
    progress: onProgress !== undefined,
  };
  const model = await abortable<T>(
    signal,
    (id, cancel) => loader(mailbox, id, request, cancel),
    onProgress && ((loaded, total) => onProgress({ stage: "load", loaded, total })),
  );
  return { model, folders: base ? [path, base.path] : [path] };
}
