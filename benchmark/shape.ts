/** What a model asks of the machine, from its config.json: bytes to read, operations to do. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Dtype } from "./types.js";

/** Of a weight, its share of the block's scale included. */
const bytesPerWeight: Record<Dtype, number> = { f32: 4, f16: 2, bf16: 2, int8: 33 / 32, q8_0: 34 / 32, q4_0: 18 / 32 , binary: 1 / 8};

export interface Shape {
  layers: number;
  hidden: number;
  inner: number;
  vocabulary: number;
  positions: number;
  /** Weights of the layers' matrices. */
  layerWeights: number;
}

export function shapeOf(folder: string): Shape {
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, number>;
  const layers = (config["n_layer"] ?? config["num_hidden_layers"])!;
  const hidden = (config["n_embd"] ?? config["hidden_size"])!;
  const inner = config["n_inner"] ?? config["intermediate_size"] ?? 4 * hidden;
  const positions = (config["n_positions"] ?? config["max_position_embeddings"])!;
  const layerWeights = layers * (4 * hidden * hidden + 2 * hidden * inner);
  return { layers, hidden, inner, positions, vocabulary: config["vocab_size"]!, layerWeights };
}

/** Gigabytes of weights that a token needs: every layer and the head. */
export const weightGB = ({ layerWeights, hidden, vocabulary }: Shape, dtype: Dtype): number =>
  ((layerWeights + hidden * vocabulary) * bytesPerWeight[dtype]) / 1e9;

/** Gigabytes of keys and values of `context` positions in f16. */
export const cacheGB = ({ layers, hidden }: Shape, context: number): number => (layers * 2 * hidden * context * 2) / 1e9;

/** Billions of operations of the layers' products for `tokens` tokens, and of the head for `heads` of them. */
export const gigaflops = ({ layerWeights, hidden, vocabulary }: Shape, tokens: number, heads = 0): number =>
  (2 * (layerWeights * tokens + hidden * vocabulary * heads)) / 1e9;
