import { overMinilm } from "../lib/adapter.js";
import type { Trained } from "../lib/train.js";

export const trained: Trained = {
  ships: "sentiment-en",
  training: { ...overMinilm, task: "sentiment-analysis", epochs: 4, metricForBestModel: "accuracy" },
};
