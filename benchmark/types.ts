/** What a run writes, and what a case is. */
/** `before`: Candlewick as another checkout has built it (`--before`). */
export type ContenderName = "candlewick" | "before" | "candle" | "node-llama-cpp" | "onnxruntime-node" | "transformers.js" | "fastembed" | "openvino" | "ctranslate2" | "pytorch" | "faiss";
/** `binary`: a bit, of vectors that are searched. */
export type Dtype = "f32" | "f16" | "bf16" | "int8" | "q8_0" | "q4_0" | "binary";
export type Unit = "tok/s" | "texts/s" | "queries/s" | "%" | "ms" | "MB";

export interface Row {
  /** Begins with the bench's name. */
  case: string;
  contender: ContenderName;
  version: string;
  dtype: Dtype;
  median: number;
  p10: number;
  p90: number;
  unit: Unit;
  /**
   * A fraction of what the machine could do at best, by its limits as measured in turns with the case; null where there
   * is no such limit.
   */
  shareOfLimit: number | null;
  /** Cosines of its vectors to Candlewick's in f32, where both were measured. */
  cosine?: { min: number; mean: number };
}

export interface Limits {
  /** Reads of 1 GiB with all threads. */
  bandwidthGBs: number;
  /** f32 multiply-adds from registers with all threads, two operations each. */
  fmaGflops: number;
  /** As above, of bf16 products with f32 sums. */
  bf16Gflops: number;
  /** As above, of int8 products with int32 sums. */
  int8Gops: number;
}

export interface Report {
  machine: {
    cpu: string;
    threads: number;
    /** Medians over the run; null if the limits could not be measured. */
    bandwidthGBs: number | null;
    fmaGflops: number | null;
    /** Lowest and highest that were measured: how quiet the machine was. */
    bandwidthRange: [number, number] | null;
    fmaRange: [number, number] | null;
    /** Instruction set that the limits and Candlewick use. */
    isa: string | null;
    node: string;
    date: string;
    /** Tasks that waited for a core when the run began, over a minute. */
    load: number;
  };
  rows: Row[];
  /** Every time that the machine was measured. */
  limits: Limits[];
  /** Contenders and cases that did not run, each with its reason. */
  skipped: { what: string; reason: string }[];
  /** What the run found to be wrong with itself: outputs that differ between contenders. */
  notes: string[];
}
