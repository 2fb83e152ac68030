import { trainedFolder, type Trained } from "../lib/train.js";

const NAME = "translation";

/** GPT-2, 4 layers and 256 wide, from scratch: the English, a line break, the Chinese; the loss is the Chinese's. */
export const trained: Trained = {
  ships: "translation-en-zh",
  tokenizer: { type: "byte-level-bpe", columns: ["source", "target"], vocabularySize: 8000 },
  training: {
    model: trainedFolder(NAME, "tokenizer"),
    task: "translation",
    fromScratch: true,
    config: { model_type: "gpt2", n_layer: 4, n_head: 4, n_embd: 256, n_positions: 256, bos_token_id: 0 },
    epochs: 5,
    // Messages are short: Muon, whose step costs the same for any batch, wants some thousand tokens in one.
    batchSize: 192,
    maxLength: 256,
    dropout: 0.1,
    labelSmoothing: 0.1,
    optimizer: "muon",
    learningRate: 4e-3,
    lrSchedulerType: "cosine",
    warmupRatio: 0.03,
    weightDecay: 0.1,
    adamBeta2: 0.98,
    metricForBestModel: "loss",
    seed: 1,
  },
  parameters: { separator: "\n", num_beams: 4, max_new_tokens: 96 },
  examples: [
    "File not found", "Could not open the file %s", "Are you sure you want to delete this folder?", "The connection to the server was lost.", "Show all commits",
    "The password is too short", "Please wait while the package is being installed.", "My order has not arrived yet.", "Thank you for your help!",
    "The weather is nice today, shall we go for a walk?",
  ],
  evaluation: { generation: { numBeams: 4, maxNewTokens: 96 } },
  request: { prompt: ({ source }) => `${source as string}\n`, maxNewTokens: 96 },
};
