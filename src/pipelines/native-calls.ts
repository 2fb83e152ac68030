/** Texts through the engine in slices: what each task's `run` calls. */
import type { BERT, TextPair } from "../bert.js";
import type { NativeEncoder, NativeEncodeOptions, NativeTexts, PackedOutputs } from "../native.js";
import { unpack } from "../inputs.js";
import { abortable, mailbox, type Cancel } from "../runtime.js";
import { inSlices } from "../slices.js";
import type { TaskOptions } from "./task.js";

/** What a native call takes beside a task's own: in this order, before and after the texts. */
export type Start = (native: NativeEncoder, id: number, options: NativeEncodeOptions, cancel: Cancel) => void;

interface Slices<T> {
  readonly options: TaskOptions;
  /** Tokens per text, where the task's options do not say. */
  readonly maxLength: number;
  readonly truncation?: NativeEncodeOptions["truncation"];
  /** Items per native call, where 256 would come back as too many objects. */
  readonly size?: number;
  readonly weigh: (item: T) => number;
}

/** `items` through a native call that answers with `P`, which `unpackSlice` makes the slice's results of. */
export function inCalls<T, P, R>(
  model: BERT,
  items: readonly T[],
  { options, maxLength, truncation, size, weigh }: Slices<T>,
  start: (slice: readonly T[]) => Start,
  unpackSlice: (packed: P, slice: readonly T[]) => R[],
): Promise<R[]> {
  const { signal, onProgress, truncate } = options;
  const { native } = model;
  const limits = { maxLength: options.maxLength ?? maxLength, truncate, truncation, progress: onProgress !== undefined };
  return inSlices(
    items,
    async (slice, report) => {
      const run = start(slice);
      const packed = await abortable<P>(signal, (id, cancel) => run(native, id, limits, cancel), report);
      report?.(1, 1);
      return unpackSlice(packed, slice);
    },
    { size, weigh, onProgress },
  );
}

export const weighText = (text: string | TextPair): number =>
  typeof text === "string" ? text.length : text.text.length + text.textPair.length;

/** Texts or pairs as columns; a text beside pairs has no second text, which is another thing than an empty one. */
export function columns(texts: readonly (string | TextPair)[]): NativeTexts {
  if (texts.every((text) => typeof text === "string")) return { texts: texts.slice() as string[] };
  return {
    texts: texts.map((text) => (typeof text === "string" ? text : text.text)),
    pairs: texts.map((text) => (typeof text === "string" ? undefined : text.textPair)),
  };
}

const LOGITS = { lastHiddenState: false, hiddenStates: false, attentions: false, pooled: false, logits: true };

/** What `convert` makes of the head's logits of texts or pairs. */
export function fromLogits<R>(
  model: BERT,
  texts: readonly (string | TextPair)[],
  options: TaskOptions,
  convert: (logits: Float32Array) => R,
  truncation?: NativeEncodeOptions["truncation"],
): Promise<R[]> {
  return inCalls<string | TextPair, PackedOutputs, R>(
    model,
    texts,
    { options, maxLength: model.info.maxLength, truncation, weigh: weighText },
    (slice) => {
      const given = columns(slice);
      return (native, id, limits, cancel) => native.run(mailbox, id, given, limits, LOGITS, cancel);
    },
    (packed) => unpack(packed.logits).map(convert),
  );
}

/** exp(x) over its sum. */
export function softmax(logits: ArrayLike<number>): number[] {
  const row = Array.from(logits);
  const largest = Math.max(...row);
  const powers = row.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

export const sigmoid = (logit: number): number => 1 / (1 + Math.exp(-logit));
