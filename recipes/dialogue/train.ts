import { trainedFolder, type Trained } from "../lib/train.js";

/** The generator, which knows both languages a little, learns to answer. */
export const trained: Trained = {
  ships: "dialogue",
  training: {
    model: trainedFolder("generation"),
    task: "dialogue",
    epochs: 25,
    batchSize: 16,
    maxLength: 512,
    dropout: 0.1,
    learningRate: 1e-3,
    lrSchedulerType: "cosine",
    warmupRatio: 0.05,
    weightDecay: 0.1,
    // The held-out perplexity is best after a few epochs, when answers are word salad: of so little text a talker lives
    // by what it remembers.
    loadBestModelAtEnd: false,
    evalSteps: 500,
    saveSteps: 1000,
    seed: 1,
  },
  parameters: { do_sample: true, temperature: 0.5, top_k: 20, top_p: 0.9, repetition_penalty: 1.1, max_new_tokens: 64 },
  examples: [
    "Hello!", "What is your name?", "Tell me a joke.", "Do you like music?", "My order has not arrived yet.", "你好", "你是谁？", "我们很高兴能够与您合作！", "你喜欢什么？",
    "今天天气怎么样？",
  ],
  groups: ({ language }) => (language === "en" ? "English" : "Chinese"),
  request: { prompt: ({ messages }) => `${(messages as { content: string }[])[0]!.content}<|endoftext|>` },
};
