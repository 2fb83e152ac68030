import { fetched, type Trained } from "../lib/train.js";

/** all-MiniLM-L6-v2, whole, with a new head. */
export const trained: Trained = {
  training: {
    model: fetched("minilm"),
    task: "sentiment-analysis",
    epochs: 3,
    batchSize: 32,
    maxLength: 128,
    learningRate: 5e-5,
    warmupRatio: 0.1,
    weightDecay: 0.01,
    metricForBestModel: "accuracy",
    seed: 1,
  },
};
