import { trainedFolder, type Trained } from "../lib/train.js";

const NAME = "sentiment-zh";

/** A small BERT over characters, from scratch: it learns the reviews' language first, then what they say of the thing. */
export const trained: Trained = {
  ships: "sentiment-zh",
  tokenizer: { type: "characters", columns: ["text"], vocabularySize: 4500 },
  pretraining: {
    model: trainedFolder(NAME, "tokenizer"),
    task: "fill-mask",
    fromScratch: true,
    config: {
      model_type: "bert", hidden_size: 192, num_hidden_layers: 3, num_attention_heads: 6, intermediate_size: 768, max_position_embeddings: 160,
    },
    epochs: 4,
    batchSize: 32,
    maxLength: 160,
    learningRate: 1e-3,
    warmupRatio: 0.05,
    weightDecay: 0.01,
    loadBestModelAtEnd: false,
    seed: 1,
  },
  training: {
    model: trainedFolder(NAME, "pretrained"),
    task: "sentiment-analysis",
    epochs: 4,
    batchSize: 32,
    maxLength: 160,
    learningRate: 3e-4,
    warmupRatio: 0.1,
    weightDecay: 0.01,
    metricForBestModel: "accuracy",
    seed: 1,
  },
};
