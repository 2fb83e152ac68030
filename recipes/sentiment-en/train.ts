import { packageFolder } from "../lib/ship.js";
import type { Trained } from "../lib/train.js";

/** An adapter for all-MiniLM-L6-v2, with a head of its own: the encoder ships once, for embeddings, sentiment and topics. */
export const trained: Trained = {
  ships: "sentiment-en",
  training: {
    model: packageFolder("minilm"),
    task: "sentiment-analysis",
    lora: { rank: 16, alpha: 32, dropout: 0.05, targetModules: ["query", "key", "value", "dense"] },
    epochs: 4,
    batchSize: 32,
    maxLength: 128,
    learningRate: 1e-3,
    warmupRatio: 0.1,
    weightDecay: 0.01,
    metricForBestModel: "accuracy",
    seed: 1,
  },
};
