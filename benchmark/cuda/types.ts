/** What the kit writes: `report.json`. */

export type KitDtype = "f32" | "f16" | "bf16";

/** `example`: crates/models/examples/cuda.rs, which is Candlewick without Node. */
export type Who =
  | "candlewick"
  | "example"
  | "PyTorch eager"
  | "PyTorch graph"
  | "PyTorch generate"
  | "PyTorch compiled"
  | "sentence-transformers";

export interface Figure {
  case: string;
  dtype: KitDtype;
  who: Who;
  median: number;
  p10: number;
  p90: number;
  unit: "tok/s" | "texts/s" | "ms" | "s" | "MiB";
  /** Of what the device can do at best: bytes that must be read ÷ copy bandwidth, or operations ÷ the bf16 peak. */
  share?: number;
  /** How it was measured, where that differs from run to run. */
  note?: string;
}

/** What is right or wrong; `passed` is null where there is nothing to test. */
export interface Check {
  what: string;
  dtype?: KitDtype;
  passed: boolean | null;
  detail: string;
}

export interface StepResult {
  name: string;
  status: "done" | "failed" | "out of time";
  seconds: number;
  reason?: string;
}

export interface KitReport {
  format: 1;
  /** Year, month and day of the run. */
  date: string;
  device: "cuda" | "cpu";
  /** As PyTorch and the driver name it. */
  gpu: { name: string; capability: string; driver: string; bytes: number } | null;
  cpu: string;
  cores: number;
  node: string;
  candlewick: string;
  /** The addon's SHA-256, its first 16 digits. */
  addon: string;
  pytorch: { torch: string; transformers: string } | null;
  /** Bytes read and written a second by a copy on the device; operations a second of a bf16 product. */
  limits: { copyBytes: number; bf16Flops: number } | null;
  steps: StepResult[];
  figures: Figure[];
  checks: Check[];
  skipped: { what: string; reason: string }[];
}
