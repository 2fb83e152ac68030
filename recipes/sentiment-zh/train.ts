import { trainedFolder, type Trained, type Training } from "../lib/train.js";

const NAME = "sentiment-zh";

const common = { batchSize: 32, maxLength: 160, weightDecay: 0.01, seed: 1 } satisfies Partial<Training>;
const masked = { ...common, task: "fill-mask", warmupRatio: 0.05, loadBestModelAtEnd: false } satisfies Partial<Training>;

/**
 * A small BERT over characters, from scratch: it learns the reviews' language first, then what they say of the thing.
 */
export const trained: Trained = {
  ships: "sentiment-zh",
  tokenizer: { type: "characters", columns: ["text"], vocabularySize: 4500 },
  before: [
    {
      ...masked,
      model: trainedFolder(NAME, "tokenizer"),
      fromScratch: true,
      config: {
        model_type: "bert", hidden_size: 192, num_hidden_layers: 3, num_attention_heads: 6, intermediate_size: 768, max_position_embeddings: 160,
      },
      epochs: 12,
      masking: 0.25,
      dropout: 0.05,
      optimizer: "muon",
      learningRate: 3e-3,
    },
  ],
  training: {
    ...common,
    model: trainedFolder(NAME, "before-1"),
    task: "sentiment-analysis",
    epochs: 5,
    learningRate: 2e-4,
    dropout: 0.2,
    labelSmoothing: 0.1,
    warmupRatio: 0.1,
    metricForBestModel: "accuracy",
  },
};
