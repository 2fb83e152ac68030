/** Reads the parity data; `tools/fixtures/README.md` describes it. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
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

export const readTensors = (name: string): Map<string, { shape: number[]; data: Float32Array }> =>
  readSafetensors(join(fixtures, name, "expected.safetensors"));

export function readSafetensors(path: string): Map<string, { shape: number[]; data: Float32Array }> {
  const file = readFileSync(path);
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

/** A folder of real weights under the cache, or a line that says why a test on it is skipped. */
export function realModel(name: string): { path: string; skip: string | false } {
  const cache = process.env["CANDLEWICK_CACHE"] ?? join(homedir(), ".cache", "candlewick");
  const path = join(cache, "models", name);
  return { path, skip: !existsSync(path) && `${path} is absent; tools/fetch-models.sh fetches it` };
}
