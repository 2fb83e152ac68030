import { trainedFolder, type Trained } from "../lib/train.js";

const NAME = "translation";

/** GPT-2, 4 layers and 256 wide, from scratch: the English, a line break, the Chinese; the loss is the Chinese's. */
export const trained: Trained = {
  ships: "translation-en-zh",
  tokenizer: { type: "byte-level-bpe", columns: ["source", "target"], vocabularySize: 6000 },
  training: {
    model: trainedFolder(NAME, "tokenizer"),
    task: "translation",
    fromScratch: true,
    config: { model_type: "gpt2", n_layer: 4, n_head: 4, n_embd: 256, n_positions: 256 },
    epochs: 12,
    batchSize: 64,
    maxLength: 256,
    dropout: 0.1,
    labelSmoothing: 0.1,
    learningRate: 2e-3,
    lrSchedulerType: "cosine",
    warmupRatio: 0.05,
    weightDecay: 0.1,
    adamBeta2: 0.98,
    metricForBestModel: "loss",
    seed: 1,
  },
  parameters: { separator: "\n", num_beams: 4, max_new_tokens: 96 },
  evaluation: { generation: { numBeams: 4, maxNewTokens: 96 } },
  request: { prompt: ({ source }) => `${source as string}\n`, maxNewTokens: 96 },
};
