/** What the project set out to reach, as questions to a run's rows. */
import type { ContenderName, Dtype, Row } from "./types.js";

export interface Goal {
  what: string;
  /** Reached when the value is at least this; or at most, where `most` says so. */
  target: number;
  most?: true;
  format: "share" | "times" | "ms" | "s";
  value(rows: Rows): number | undefined;
}

/** NaN, which makes a goal unmeasured, where a row is missing. */
export class Rows {
  constructor(readonly rows: readonly Row[]) {}

  find(label: string, dtype: Dtype, contender: ContenderName = "candlewick"): Row | undefined {
    return this.rows.find((row) => row.case.startsWith(label) && row.dtype === dtype && row.contender === contender);
  }

  median(label: string, dtype: Dtype, contender: ContenderName = "candlewick"): number {
    return this.find(label, dtype, contender)?.median ?? NaN;
  }

  share(label: string, dtype: Dtype): number {
    return this.find(label, dtype)?.shareOfLimit ?? NaN;
  }

  /** How many times a peer's speed ours is. */
  times(label: string, dtype: Dtype, peer: ContenderName): number {
    return this.median(label, dtype) / this.median(label, dtype, peer);
  }
}

const share = (label: string, dtype: Dtype, target: number, limit: string): Goal => ({
  what: `${label} ${dtype}: share of ${limit}`,
  target,
  format: "share",
  value: (rows) => rows.share(label, dtype),
});

const times = (label: string, dtype: Dtype, peer: ContenderName, target: number): Goal => ({
  what: `${label} ${dtype}: to ${peer}`,
  target,
  format: "times",
  value: (rows) => rows.times(label, dtype, peer),
});

const within = (label: string, one: string, other: string, dtype: Dtype, target: number): Goal => ({
  what: `${label} ${dtype}`,
  target,
  format: "times",
  value: (rows) => rows.median(one, dtype) / rows.median(other, dtype),
});

const lag = (phase: string): Goal => ({
  what: `event loop lag p99 during ${phase}`,
  target: 5,
  most: true,
  format: "ms",
  value: (rows) => rows.median(`lag during ${phase}, p99`, "f32"),
});

export const goals: readonly Goal[] = [
  share("decode", "f32", 0.85, "bandwidth"),
  share("decode", "f16", 0.85, "bandwidth"),
  share("decode", "q8_0", 0.85, "bandwidth"),
  share("decode", "q4_0", 0.75, "bandwidth"),
  times("decode", "f32", "candle", 2.2),
  times("decode", "f16", "node-llama-cpp", 1.8),
  times("decode", "q8_0", "node-llama-cpp", 1.8),
  times("decode", "q4_0", "node-llama-cpp", 3),
  ...(["f32", "f16", "q8_0"] as const).map(
    (dtype): Goal => ({
      what: `decode at context 1000 to context 32 ${dtype}, bytes of keys and values counted`,
      target: 0.8,
      format: "share",
      value: (rows) => rows.share("context 1000", dtype) / rows.share("context 32", dtype),
    }),
  ),
  within("8 streams to one", "batch, 8 streams", "batch, 1 stream", "f32", 4.5),
  within("8 streams to one", "batch, 8 streams", "batch, 1 stream", "q8_0", 3.5),
  within("32 streams to one", "batch, 32 streams", "batch, 1 stream", "q8_0", 6),
  ...(["f32", "q8_0"] as const).flatMap((dtype): Goal[] => {
    const cold = "serving, first token after a beginning of 512, cold";
    return [
      within("first token after a beginning of 512, cold to warm,", cold, cold.replace("cold", "warm"), dtype, 15),
      within("guesses on repetitive text", "serving, repetitive text, guesses", "serving, repetitive text, no guesses", dtype, 1.6),
      within("guesses on greedy text", "serving, greedy text of the shipped model, guesses", "serving, greedy text of the shipped model, no guesses", dtype, 1.6),
      within("guesses on free text", "serving, free text of the shipped model, guesses", "serving, free text of the shipped model, no guesses", dtype, 0.97),
    ];
  }),
  share("prefill 512", "f32", 0.75, "FMA peak"),
  times("prefill 512", "f32", "candle", 2.5),
  times("prefill 512", "f32", "pytorch", 2),
  ...["minilm", "bert-base"].flatMap((model) =>
    ["1x16", "32x128"].map((size) => times(`encode ${model} ${size}`, "f32", "onnxruntime-node", 1.5)),
  ),
  times("encode minilm, 256 mixed texts", "f32", "transformers.js", 2.5),
  {
    what: "embed 2,560 mixed texts, to encoding 256",
    target: 0.9,
    format: "share",
    value: (rows) => rows.median("pipelines embed minilm, 2560 mixed texts", "f32") / rows.median("encode minilm, 256 mixed texts", "f32"),
  },
  { what: "load f16 to first token", target: 0.5, most: true, format: "s", value: (rows) => rows.median("load to first token", "f16") / 1000 },
  {
    what: "load f16: peak memory, beyond that of an empty process, to weights",
    target: 1.2,
    most: true,
    format: "times",
    value: (rows) => rows.median("load, peak memory beyond an empty process", "f16") / rows.median("load, weights", "f16"),
  },
  ...(["f32", "bf16", "int8"] as const).flatMap((dtype) =>
    ["minilm", "bert-base"].flatMap((model) => [
      times(`encode ${model} 1x16`, dtype, "openvino", 1.15),
      ...["1x128", "32x16", "32x128"].map((size) => times(`encode ${model} ${size}`, dtype, "openvino", dtype === "f32" ? 1.05 : 1.1)),
    ]),
  ),
  ...([
    ["prefill 512", "bf16", 1.85],
    ["prefill 512", "int8", 3.2],
    ["encode minilm, 256 mixed texts", "bf16", 1.8],
    ["encode minilm, 256 mixed texts", "int8", 2.6],
  ] as const).map(
    ([what, dtype, target]): Goal => ({
      what: `${what} ${dtype}: to f32`,
      target,
      format: "times",
      value: (rows) => rows.median(what, dtype) / rows.median(what, "f32"),
    }),
  ),
  times("prefill 512", "int8", "ctranslate2", 1.3),
  share("decode", "bf16", 0.9, "bandwidth"),
  share("decode", "int8", 0.9, "bandwidth"),
  ...["gpt2 124M", "gpt2 10M", "bert-base"].map((model) => times(`train ${model}`, "f32", "pytorch", 1.5)),
  ...["gpt2 124M", "gpt2 10M", "bert-base"].map((model) => share(`train ${model}`, "f32", 0.7, "FMA peak")),
  ...["gpt2 124M", "gpt2 10M", "bert-base"].map((model) => times(`train ${model}`, "bf16", "pytorch", 1.25)),
  ...["prefill", "decode", "encode", "tokenise", "load", "embed"].map(lag),
];

export interface Outcome {
  what: string;
  goal: string;
  value: string;
  reached: boolean;
}

const formats = {
  share: (value: number) => `${(100 * value).toFixed(0)}%`,
  times: (value: number) => `${value.toFixed(2)}×`,
  ms: (value: number) => `${value.toFixed(1)} ms`,
  s: (value: number) => `${value.toFixed(2)} s`,
};

/** Those that the rows can answer. */
export function outcomes(rows: readonly Row[]): Outcome[] {
  const all = new Rows(rows);
  return goals.flatMap(({ what, target, most, format, value: valueOf }) => {
    const value = valueOf(all) ?? NaN;
    if (!Number.isFinite(value)) return [];
    const reached = most ? value <= target : value >= target;
    return [{ what, goal: `${most ? "≤" : "≥"} ${formats[format](target)}`, value: formats[format](value), reached }];
  });
}
