/** Puts a trained model into its package, `models/<name>/`, with weights as f16. Manifest and README there are written by hand. */
import { existsSync } from "node:fs";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { halved } from "./half.js";

/** Where the packages of weights are, in a checkout. */
export const packageFolder = (name: string): string => join(__dirname, "../../models", name);

const WEIGHTS = ["model.safetensors", "adapter_model.safetensors"];
/** What is copied as it is, where it is there. */
const FILES = [
  "config.json", "generation_config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
  "modules.json", "sentence_bert_config.json", "1_Pooling/config.json",
];

/** With a temperature, the classifier's logits are divided by it. */
export async function ship(from: string, name: string, temperature = 1): Promise<void> {
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
  const path = join(to, "config.json");
  const config = JSON.parse(await readFile(path, "utf8")) as object;
  await writeFile(path, `${JSON.stringify({ ...config, dtype: "float16" }, undefined, 2)}\n`);
  // An adapter names the folder of its base; what ships names its package.
  const adapter = join(to, "adapter_config.json");
  if (!existsSync(adapter)) return;
  const lora = JSON.parse(await readFile(adapter, "utf8")) as { base_model_name_or_path: string };
  const base = basename(lora.base_model_name_or_path);
  if (lora.base_model_name_or_path === packageFolder(base)) lora.base_model_name_or_path = `candlewick-model-${base}`;
  await writeFile(adapter, `${JSON.stringify(lora, undefined, 2)}\n`);
}
