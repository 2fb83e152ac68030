/** Which of a repository's files a model is loaded from, and which names are no names of files in a repository. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { CandlewickError } from "../errors.js";

/** Every file that a model may have beside its weights. */
export const SIDE_FILES: readonly string[] = [
  "config.json",
  "generation_config.json",
  "tokenizer_config.json",
  "chat_template.jinja",
  "chat_template.json",
  "tokenizer.json",
  "vocab.json",
  "merges.txt",
  "vocab.txt",
  "special_tokens_map.json",
  "added_tokens.json",
  "modules.json",
  "sentence_bert_config.json",
  "config_sentence_transformers.json",
  "1_Pooling/config.json",
];

/** Stands for the shards that it names. */
export const SHARD_INDEX = "model.safetensors.index.json";

/** An adapter in PEFT's layout, which may be all that there is: its base is another model. */
export const ADAPTER_CONFIG = "adapter_config.json";
/** In the order in which the loader looks for them. */
export const ADAPTER_WEIGHTS: readonly string[] = ["adapter_model.safetensors", "adapter_model.bin"];

/** In the order in which the loader looks for them. */
const WEIGHTS = ["model.safetensors", SHARD_INDEX, "pytorch_model.bin"];

/**
 * The files of `listed` that a model is loaded from, the small ones first: they fail sooner if access is denied. If the
 * shard index is among them, so are the shards that {@link chooseShards} finds in it.
 */
export function chooseFiles(listed: readonly string[], model: string): string[] {
  for (const name of listed) assertInside(name);
  const there = new Set(listed);
  const sideFiles = SIDE_FILES.filter((name) => there.has(name));
  const adapter = ADAPTER_WEIGHTS.find((file) => there.has(file));
  if (there.has(ADAPTER_CONFIG) && adapter !== undefined) return [...sideFiles, ADAPTER_CONFIG, adapter];
  const weights = WEIGHTS.find((file) => there.has(file));
  if (!there.has("config.json") || !weights) {
    const lacks = weights ? "config.json" : "model.safetensors, its shard index or pytorch_model.bin";
    throw new CandlewickError("MODEL_NOT_FOUND", `The hub's model "${model}" has no ${lacks}`);
  }
  return [...sideFiles, weights];
}

/** The shards of `folder`'s index, if it has one. Names with a backslash are other names on Windows. */
export async function chooseShards(folder: string): Promise<string[]> {
  const shards = (await shardsOf(join(folder, SHARD_INDEX))) ?? [];
  for (const name of shards) if (name.includes("\\")) throw escape(name);
  return shards;
}

/**
 * Throws if `name`, joined to a folder here or on Windows, could leave it. No commit can hold such a name, so a listing
 * with one was not made by a hub, and nothing in it is used. (`onnx\model.onnx` is a name that commits do hold.)
 */
export function assertInside(name: string): void {
  const parts = name.split(/[/\\]/);
  const anchored = parts[0] === "" || parts.some((part) => /^[A-Za-z]:/.test(part));
  if (anchored || parts.includes("..") || /\p{Cc}/u.test(name)) throw escape(name);
}

const escape = (name: string): CandlewickError =>
  new CandlewickError("PATH_ESCAPE", `The file name ${JSON.stringify(name)} leads out of the model's folder`);

/** The files that a model cannot be loaded without and `folder` lacks. */
export async function missingFrom(folder: string): Promise<string[]> {
  if (await exists(join(folder, ADAPTER_CONFIG))) return (await hasAdapterWeights(folder)) ? [] : [ADAPTER_WEIGHTS[0]!];
  const config = (await exists(join(folder, "config.json"))) ? [] : ["config.json"];
  return [...config, ...(await missingWeights(folder))];
}

export async function hasAdapterWeights(folder: string): Promise<boolean> {
  return (await Promise.all(ADAPTER_WEIGHTS.map((file) => exists(join(folder, file))))).includes(true);
}

/** Of the weights of a model alone. */
export async function missingWeights(folder: string): Promise<string[]> {
  for (const file of WEIGHTS) {
    if (!(await exists(join(folder, file)))) continue;
    if (file !== SHARD_INDEX) return [];
    const named = await shardsOf(join(folder, file));
    if (!named) return [file];
    const found = await Promise.all(named.map((name) => exists(join(folder, name))));
    return named.filter((_, i) => !found[i]);
  }
  return ["model.safetensors"];
}

/** The shards that an index names; undefined if it is no index. */
async function shardsOf(index: string): Promise<string[] | undefined> {
  try {
    const { weight_map: map } = JSON.parse(await readFile(index, "utf8"));
    const names = new Set(Object.values(map as object).map(String));
    if (names.size === 0) return undefined;
    for (const name of names) assertInside(name);
    return [...names];
  } catch (error) {
    if (error instanceof CandlewickError) throw error;
    return undefined;
  }
}

/** Whether something is there, a link's target included. */
export const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );
