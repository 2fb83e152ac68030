import { trainedFolder, type Trained, type Training } from "../lib/train.js";

const NAME = "translation";

const common = {
  task: "translation",
  epochs: 12,
  batchSize: 64,
  maxLength: 256,
  dropout: 0.1,
  labelSmoothing: 0.1,
  lrSchedulerType: "cosine",
  warmupRatio: 0.05,
  weightDecay: 0.1,
  adamBeta2: 0.98,
  metricForBestModel: "loss",
  seed: 1,
} satisfies Partial<Training>;

/**
 * GPT-2, 4 layers and 256 wide, from scratch: the English, a line break, the Chinese; the loss is the Chinese's. After the first cosine it was
 * still learning with every epoch, so there is a second, with Muon.
 */
export const trained: Trained = {
  ships: "translation-en-zh",
  tokenizer: { type: "byte-level-bpe", columns: ["source", "target"], vocabularySize: 6000 },
  before: [
    {
      ...common,
      model: trainedFolder(NAME, "tokenizer"),
      fromScratch: true,
      config: { model_type: "gpt2", n_layer: 4, n_head: 4, n_embd: 256, n_positions: 256, bos_token_id: 0 },
      learningRate: 2e-3,
    },
  ],
  training: { ...common, model: trainedFolder(NAME, "before-1"), optimizer: "muon", learningRate: 1.5e-3, epochs: 5, batchSize: 128, seed: 2 },
  parameters: { separator: "\n", num_beams: 4, max_new_tokens: 96 },
  examples: [
    "File not found", "Could not open the file %s", "Are you sure you want to delete this folder?", "The connection to the server was lost.", "Show all commits",
    "The password is too short", "Please wait while the package is being installed.", "My order has not arrived yet.", "Thank you for your help!",
    "The weather is nice today, shall we go for a walk?",
  ],
  evaluation: { generation: { numBeams: 4, maxNewTokens: 96 } },
  request: { prompt: ({ source }) => `${source as string}\n`, maxNewTokens: 96 },
};
