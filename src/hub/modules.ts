/**
 * What sentence-transformers' `modules.json` names: the folder of the model itself, and the files of the modules behind
 * it. `crates/models/src/files/modules.rs` reads it for what it means.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isPlainObject } from "../options.js";

export const MODULES = "modules.json";

/** At the root, whatever the layout. */
export const SENTENCE_FILES: readonly string[] = [MODULES, "config_sentence_transformers.json", "1_Pooling/config.json"];

/** With the transformer's files: today's name and the older ones. */
export const TRANSFORMER_FILES: readonly string[] = ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"].map(
  (kind) => `sentence_${kind}_config.json`,
);

export interface Module {
  /** The last part of its class's name; "" for a class of somebody's own. */
  readonly kind: string;
  /** Ends with a slash, unless it is the root. */
  readonly folder: string;
}

const TRANSFORMERS = new Set(["Transformer", "BERT", "RoBERTa", "DistilBERT", "ALBERT", "CamemBERT", "XLMRoBERTa"]);
/** Modules that are loaded, and whether they have weights. */
const WITH_FILES: Readonly<Record<string, boolean>> = { Pooling: false, Dense: true, LayerNorm: true };

/**
 * The modules that `folder` lists; none without such a list, or with one that cannot be read: the loader says what is
 * wrong with it. `check` throws for a name that leads out of the folder.
 */
export async function readModules(folder: string, check: (name: string) => void): Promise<Module[]> {
  let list: unknown;
  try {
    list = JSON.parse(await readFile(join(folder, MODULES), "utf8"));
  } catch {
    return [];
  }
  const modules: Module[] = [];
  for (const entry of Array.isArray(list) ? list : []) {
    if (!isPlainObject(entry) || typeof entry["type"] !== "string" || typeof entry["path"] !== "string") continue;
    const { type, path } = entry as { type: string; path: string };
    if (path !== "") check(path);
    const inside = path.split("/").filter((part) => part !== "" && part !== ".");
    const kind = type.startsWith("sentence_transformers.") ? type.slice(type.lastIndexOf(".") + 1) : "";
    modules.push({ kind, folder: inside.map((part) => `${part}/`).join("") });
  }
  return modules;
}

/** Where the model's own files are. */
export const transformerFolder = (modules: readonly Module[]): string =>
  modules.find(({ kind }) => TRANSFORMERS.has(kind))?.folder ?? "";

/** The files that the modules behind the transformer are loaded from; those of one list stand for each other. */
export function namedFiles(modules: readonly Module[]): string[][] {
  const loaded = modules.filter(({ kind, folder }) => Object.hasOwn(WITH_FILES, kind) && folder !== "");
  return loaded.flatMap(({ kind, folder }) => [
    [`${folder}config.json`],
    ...(WITH_FILES[kind] ? [[`${folder}model.safetensors`, `${folder}pytorch_model.bin`]] : []),
  ]);
}
