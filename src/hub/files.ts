/** Which of a repository's files a model is loaded from, and which names are no names of files in a repository. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { CandlewickError } from "../errors.js";
import { MODULES, namedFiles, SENTENCE_FILES, TRANSFORMER_FILES, transformerFolder, type Module } from "./modules.js";

/** Every file that a model may have beside its weights. */
const SIDE_FILES: readonly string[] = [
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
  ...TRANSFORMER_FILES,
];

/** Each stands for the shards that it names. */
const SHARD_INDEXES = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];

/** An adapter in PEFT's layout, which may be all that there is: its base is another model. */
export const ADAPTER_CONFIG = "adapter_config.json";
/** In the order in which the loader looks for them. */
export const ADAPTER_WEIGHTS: readonly string[] = ["adapter_model.safetensors", "adapter_model.bin"];

/** Vocabularies that are read, and SentencePiece's own, which are not. */
const VOCABULARIES = ["tokenizer.json", "vocab.json", "vocab.txt"];
const SENTENCE_PIECE = ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "spm.model", "sentencepiece.model"];

/** In the order in which the loader looks for them. */
const WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/** Every file that a model whose `modules.json` lists `modules` may have, weights not counted. */
export function sideFiles(modules: readonly Module[]): string[] {
  const inner = transformerFolder(modules);
  const configs = namedFiles(modules).flat().filter((name) => name.endsWith(".json"));
  return [...new Set([...SENTENCE_FILES, ...SIDE_FILES.map((name) => inner + name), ...configs])];
}

/**
 * The files of `listed` that a model is loaded from, the small ones first: they fail sooner if access is denied. If an
 * index of shards is among them, so are the shards that {@link chooseShards} finds in it.
 */
export function chooseFiles(listed: readonly string[], model: string, modules: readonly Module[]): string[] {
  const there = new Set(listed);
  const inner = transformerFolder(modules);
  const side = sideFiles(modules).filter((name) => there.has(name));
  // Of a module's weights in two formats the first that is there.
  const heavy = namedFiles(modules).filter(([name]) => !name!.endsWith(".json"));
  side.push(...heavy.flatMap((names) => names.find((name) => there.has(name)) ?? []));
  const adapter = ADAPTER_WEIGHTS.find((name) => there.has(name));
  if (there.has(ADAPTER_CONFIG) && adapter) return [...side, ADAPTER_CONFIG, adapter];
  const weights = WEIGHTS.map((name) => inner + name).find((file) => there.has(file));
  if (!there.has(`${inner}config.json`) || !weights) {
    const lacks = weights ? `${inner}config.json` : "model.safetensors, pytorch_model.bin or the index of shards of either";
    throw new CandlewickError("MODEL_NOT_FOUND", `The hub's model "${model}" has no ${lacks}${inner && ` in ${inner}, which ${MODULES} names`}`);
  }
  const pieces = SENTENCE_PIECE.find((name) => there.has(inner + name));
  if (pieces !== undefined && !VOCABULARIES.some((name) => there.has(inner + name))) {
    // Before some hundred megabytes of weights are downloaded for it.
    throw new CandlewickError(
      "TOKENIZER_INVALID",
      `The hub's model "${model}" has ${pieces} and no tokenizer.json: save both once in Python, AutoTokenizer.from_pretrained("${model}").save_pretrained(folder), and load that folder`,
    );
  }
  return [...side, weights];
}

/**
 * The shards that the indexes among `names`, files of `folder`, name. Names with a backslash are other names on
 * Windows.
 */
export async function chooseShards(folder: string, names: readonly string[]): Promise<string[]> {
  const all: string[] = [];
  for (const index of names.filter((name) => SHARD_INDEXES.some((end) => name.endsWith(end)))) {
    const shards = (await shardsOf(join(folder, index))) ?? [];
    for (const name of shards) if (name.includes("\\")) throw escape(name);
    all.push(...shards.map((name) => index.slice(0, index.lastIndexOf("/") + 1) + name));
  }
  return all;
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

/** The files that a model whose `modules.json` lists `modules` cannot be loaded without, and `folder` lacks. */
export async function missingFrom(folder: string, modules: readonly Module[]): Promise<string[]> {
  const lacking: string[] = [];
  for (const names of namedFiles(modules)) {
    const found = await Promise.all(names.map((name) => exists(join(folder, name))));
    if (!found.includes(true)) lacking.push(names[0]!);
  }
  if (await exists(join(folder, ADAPTER_CONFIG))) {
    return (await hasAdapterWeights(folder)) ? lacking : [...lacking, ADAPTER_WEIGHTS[0]!];
  }
  const inner = transformerFolder(modules);
  const config = (await exists(join(folder, inner, "config.json"))) ? [] : [`${inner}config.json`];
  return [...config, ...lacking, ...(await missingWeights(join(folder, inner))).map((name) => inner + name)];
}

export async function hasAdapterWeights(folder: string): Promise<boolean> {
  return (await Promise.all(ADAPTER_WEIGHTS.map((file) => exists(join(folder, file))))).includes(true);
}

/** Of the weights of a model alone. */
export async function missingWeights(folder: string): Promise<string[]> {
  for (const file of WEIGHTS) {
    if (!(await exists(join(folder, file)))) continue;
    if (!SHARD_INDEXES.includes(file)) return [];
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
