import { overMinilm } from "../lib/adapter.js";
import type { Trained } from "../lib/train.js";

export const trained: Trained = {
  ships: "topics",
  training: { ...overMinilm, task: "text-classification", epochs: 8, metricForBestModel: "macro.f1" },
};
