/** An adapter's folder in PEFT's layout: what it holds, and where the model is that it was made for. */
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { CandlewickError } from "./errors.js";
import { resolveModel, type ResolveOptions } from "./hub.js";
import { ADAPTER_CONFIG, exists, hasAdapterWeights, missingWeights } from "./hub/files.js";
import { MODEL_PREFIX, modelFolder } from "./package.js";

/** An adapter's base. */
export interface AdapterBase {
  /** As `adapter_config.json` calls it; a path is made absolute. */
  readonly name: string;
  /** Its folder. */
  readonly path: string;
}

/**
 * The base of the adapter in `folder`; undefined if there is none: a folder with a model's weights, which needs no
 * base, or no folder.
 *
 * `base_model_name_or_path` is looked up as a path from the adapter's own folder, as an installed package of weights
 * (`candlewick-model-…`), as a path from the working directory, and as a hub id.
 *
 * @throws {CandlewickError} `MODEL_NOT_FOUND` (the message says where was looked), `CONFIG_INVALID`, and what the hub
 * answers with.
 */
export async function adapterBase(folder: string, options: ResolveOptions = {}): Promise<AdapterBase | undefined> {
  const file = join(folder, ADAPTER_CONFIG);
  if (!(await exists(file))) return undefined;
  // As in transformers an adapter comes before weights that lie beside it.
  const isAdapter = (await hasAdapterWeights(folder)) || (await missingWeights(folder)).length > 0;
  if (!isAdapter) return undefined;
  const { base_model_name_or_path: name, revision } = await readConfig(file);
  if (typeof name !== "string" || name === "") throw missing(folder, "its adapter_config.json does not name it (base_model_name_or_path)");
  const beside = resolve(folder, name);
  if (await exists(beside)) return { name: beside, path: beside };
  if (name.startsWith(MODEL_PREFIX)) return { name, path: modelFolder(name, folder) };
  const { localFilesOnly, signal, onProgress } = options;
  const here = resolve(name);
  if (await exists(here)) return { name: here, path: here };
  const asked = { localFilesOnly, signal, onProgress, ...(typeof revision === "string" && { revision }) };
  try {
    return { name, path: await resolveModel(name, asked) };
  } catch (error) {
    if (!(error instanceof CandlewickError) || error.code !== "MODEL_NOT_FOUND") throw error;
    throw missing(folder, `${name} is neither ${beside} nor ${here}, nor on the hub: ${error.message}`, error);
  }
}

async function readConfig(file: string): Promise<Record<string, unknown>> {
  try {
    const config: unknown = JSON.parse(await readFile(file, "utf8"));
    if (typeof config === "object" && config !== null) return config as Record<string, unknown>;
  } catch (cause) {
    const code = cause instanceof SyntaxError ? "CONFIG_INVALID" : "IO";
    throw new CandlewickError(code, `${file}: ${(cause as Error).message}`, { cause });
  }
  throw new CandlewickError("CONFIG_INVALID", `${file} is not an object`);
}

const missing = (folder: string, why: string, cause?: unknown): CandlewickError =>
  new CandlewickError("MODEL_NOT_FOUND", `The base of the adapter ${folder} was not found: ${why}`, { cause });
