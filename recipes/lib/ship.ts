/**
 * Puts a trained model into its package, `models/<name>/`, with weights as f16. Manifest and README there are written
 * by hand.
 */
import { existsSync } from "node:fs";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { halved } from "./half.js";

/** Where the packages of weights are, in a checkout. */
export const packageFolder = (name: string): string => join(__dirname, "../../models", name);

const WEIGHTS = ["model.safetensors", "adapter_model.safetensors"];
/** What is copied as it is, where it is there. */
const FILES = [
  "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
  "modules.json", "sentence_bert_config.json", "1_Pooling/config.json",
];

export interface Shipping {
  /** The classifier's logits are divided by it. Default 1. */
  temperature?: number;
  /** Put over keys of `config.json`. */
  config?: (config: Record<string, unknown>) => object;
}

export async function ship(from: string, name: string, { temperature = 1, config = () => ({}) }: Shipping = {}): Promise<void> {
  const to = packageFolder(name);
  console.log(to);
  await mkdir(to, { recursive: true });
  const scale = (tensor: string) => (/(^|\.)classifier\.(weight|bias)$/.test(tensor) ? 1 / temperature : 1);
  for (const file of WEIGHTS.filter((file) => existsSync(join(from, file)))) {
    await writeFile(join(to, file), halved(await readFile(join(from, file)), scale));
  }
  for (const file of FILES.filter((file) => existsSync(join(from, file)))) {
    if (file !== basename(file)) await mkdir(join(to, file, ".."), { recursive: true });
    await copyFile(join(from, file), join(to, file));
  }
  await rewrite(join(from, "config.json"), join(to, "config.json"), (before) => ({ dtype: "float16", ...config(before) }));
  // An adapter names the folder of its base; what ships names its package.
  await rewrite(join(from, "adapter_config.json"), join(to, "adapter_config.json"), ({ base_model_name_or_path: path }) => {
    const base = basename(path as string);
    return path === packageFolder(base) ? { base_model_name_or_path: `candlewick-model-${base}` } : {};
  });
}

async function rewrite(from: string, to: string, over: (before: Record<string, unknown>) => object): Promise<void> {
  if (!existsSync(from)) return;
  const before = JSON.parse(await readFile(from, "utf8")) as Record<string, unknown>;
  await writeFile(to, `${JSON.stringify({ ...before, ...over(before) }, undefined, 2)}\n`);
}
