/**
 * Small GPT-2s that tests train in seconds: what they learn by heart they say, if prompts reach them as in training.
 */
import { finetune, trainTokenizer, type FinetuneOptions } from "../../index.js";
import { newFolder } from "./models.js";

export const pairs = [
  ["open the file", "打开文件"],
  ["close the window", "关闭窗口"],
  ["file not found", "找不到文件"],
  ["the disk is full", "磁盘已满"],
  ["save all changes?", "保存所有更改吗？"],
] as const;

export const conversations = [
  ["hello", "good morning", "how are you?", "very well"],
  ["你好", "你好，很高兴认识你。", "再见", "明天见"],
  ["who are you?", "a candle", "are you lit?", "not yet"],
] as const;

type Training = Partial<FinetuneOptions>;

async function apprentice(texts: readonly string[], training: Pick<FinetuneOptions, "task" | "train"> & Training): Promise<string> {
  const model = newFolder("apprentice");
  await trainTokenizer({ type: "byte-level-bpe", texts, output: model, vocabularySize: 264, minFrequency: 1 });
  const { config, ...more } = training;
  const output = newFolder("trained");
  await finetune({
    model,
    output,
    fromScratch: true,
    config: { model_type: "gpt2", n_positions: 96, n_embd: 64, n_layer: 2, n_head: 4, resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0, ...(config as object) },
    batchSize: 5,
    maxSteps: 150,
    learningRate: 3e-3,
    warmupRatio: 0.1,
    saveSteps: 1000,
    seed: 3,
    ...more,
  }).result;
  return output;
}

export function translator(training: Training = {}): Promise<string> {
  const train = pairs.map(([source, target]) => ({ source, target }));
  return apprentice(pairs.flat(), { task: "translation", train, ...training });
}

export function speaker(training: Training = {}): Promise<string> {
  const train = conversations.map((messages) => ({ messages }));
  return apprentice(conversations.flat(), { task: "dialogue", train, ...training });
}
