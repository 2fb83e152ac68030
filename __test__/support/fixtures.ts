/** Reads the parity data; `tools/fixtures/README.md` describes it. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fixtures } from "./models.js";

export interface Greedy {
  name: string;
  prompt: number[];
  options: Record<string, unknown>;
  tokens: number[];
  logprobs: number[];
}
export interface Beams {
  name: string;
  prompt: number[];
  options: Record<string, unknown> & { eosTokenId?: number[] };
  sequences: { tokens: number[]; score: number; finish: "stop" | "length" }[];
}
export interface Expected {
  tolerance: { atol: number; rtol: number };
  architecture?: string;
  input_ids: number[][];
  attention_mask: number[][];
  token_type_ids: number[][];
  greedy?: Greedy[];
  beams?: Beams[];
}

export const fixturePath = (name: string): string => join(fixtures, name);
export const fixtureNames = (pattern: RegExp): string[] => readdirSync(fixtures).filter((name) => pattern.test(name));
export const readExpected = (name: string): Expected =>
  JSON.parse(readFileSync(join(fixtures, name, "expected.json"), "utf8"));

export function readTensors(name: string): Map<string, { shape: number[]; data: Float32Array }> {
  const file = readFileSync(join(fixtures, name, "expected.safetensors"));
  const length = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const [key, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (dtype !== "F32") continue;
    const [start, end] = data_offsets.map((offset) => 8 + length + offset) as [number, number];
    tensors.set(key, { shape, data: new Float32Array(Uint8Array.from(file.subarray(start, end)).buffer) });
  }
  return tensors;
}

/** The largest |ours − expected| ÷ (atol + rtol · |expected|): at most 1 within the tolerance. */
export function worst(ours: ArrayLike<number>, expected: ArrayLike<number>, { atol, rtol }: Expected["tolerance"]): number {
  if (ours.length !== expected.length) return Infinity;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const excess = Math.abs(ours[i]! - expected[i]!) / (atol + rtol * Math.abs(expected[i]!));
    if (!(excess <= worst)) worst = excess;
  }
  return worst;
}
