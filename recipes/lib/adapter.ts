import { packageFolder } from "./ship.js";
import type { Training } from "./train.js";

/**
 * An adapter for all-MiniLM-L6-v2, with a head of its own: the encoder ships once, for embeddings, sentiment and
 * topics.
 */
export const overMinilm = {
  model: packageFolder("minilm"),
  lora: { rank: 16, alpha: 32, dropout: 0.05, targetModules: ["query", "key", "value", "dense"] },
  batchSize: 32,
  maxLength: 128,
  learningRate: 1e-3,
  warmupRatio: 0.1,
  weightDecay: 0.01,
  seed: 1,
} satisfies Partial<Training>;
