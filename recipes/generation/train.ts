import { trainedFolder, type Trained } from "../lib/train.js";

const NAME = "generation";

/** GPT-2, 4 layers and 256 wide, from scratch: the shape of the first version, which PyTorch trained. */
export const trained: Trained = {
  ships: "default",
  tokenizer: { type: "byte-level-bpe", columns: ["text"], vocabularySize: 8192 },
  training: {
    model: trainedFolder(NAME, "tokenizer"),
    task: "text-generation",
    fromScratch: true,
    config: { model_type: "gpt2", n_layer: 4, n_head: 4, n_embd: 256, n_positions: 512, bos_token_id: 0 },
    epochs: 1.25,
    batchSize: 8,
    maxLength: 512,
    dropout: 0,
    optimizer: "muon",
    learningRate: 5e-3,
    lrSchedulerType: "cosine",
    warmupRatio: 0.02,
    weightDecay: 0.1,
    adamBeta2: 0.98,
    evalSteps: 400,
    saveSteps: 400,
    // For benchmark/learning/generator.ts.
    saveTotalLimit: 10,
    seed: 1,
  },
  examples: ["It is a truth universally acknowledged", "She had never in her life", "And it came to pass", "这家酒店的服务", "这本书", "春风", "床前明月光，"],
  groups: ({ source }) => (["austen", "kjv"].includes(source as string) ? "English" : "Chinese"),
  request: { prompt: ({ text }) => (text as string).slice(0, 40) },
};
