import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { CandlewickError } from "./errors.js";

/** The folder with Candlewick's own `package.json`, in a checkout (`src/`) and in an installation (`dist/src/`). */
export const packageRoot: string = findRoot(__dirname);

/** The folder of the model that ships. */
export const defaultModelPath: string = join(packageRoot, "models", "default");

/** The models that Candlewick has, by the names of their folders; `default` is in the main package. */
const SHIPPED_NAMES: readonly string[] = ["default", "dialogue", "minilm", "sentiment-en", "sentiment-zh", "topics", "translation-en-zh"];

export const isShippedName = (name: string): boolean => SHIPPED_NAMES.includes(name);

/** What the names of packages of weights begin with. */
export const MODEL_PREFIX = "candlewick-model-";

/**
 * The folder of a package of weights, by its name or by what comes after `candlewick-model-`: from the folder `from`
 * (of a package that depends on it), where the program runs or lies, beside Candlewick, and in a checkout under
 * `models/`.
 */
export function findModel(name: string, from?: string): string | undefined {
  const short = name.startsWith(MODEL_PREFIX) ? name.slice(MODEL_PREFIX.length) : name;
  if (!/^[a-z0-9][a-z0-9-]*$/.test(short)) return undefined;
  const program = process.argv[1];
  const paths = [...(from === undefined ? [] : [from]), process.cwd(), ...(program ? [dirname(program)] : []), packageRoot];
  try {
    // A `require` of its own: bundlers leave this one alone.
    return dirname(createRequire(join(packageRoot, "package.json")).resolve(`${MODEL_PREFIX}${short}/package.json`, { paths }));
  } catch {
    const folder = join(packageRoot, "models", short);
    // Skips a folder that has a package.json but no weights yet.
    return ["config.json", "adapter_config.json"].some((file) => existsSync(join(folder, file))) ? folder : undefined;
  }
}

/** {@link findModel}; throws `MODEL_NOT_FOUND`, with the command that installs it. */
export function modelFolder(name: string, from?: string): string {
  const folder = findModel(name, from);
  if (folder !== undefined) return folder;
  const full = name.startsWith(MODEL_PREFIX) ? name : `${MODEL_PREFIX}${name}`;
  throw new CandlewickError("MODEL_NOT_FOUND", `The package ${full} is not installed: npm install ${full}`);
}

function findRoot(folder: string): string {
  try {
    if (JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).name === "candlewick") return folder;
  } catch {
    // Not here.
  }
  const parent = dirname(folder);
  // A bundler has moved this file out of the package; what needs the root fails with a model that is not found.
  return parent === folder ? __dirname : findRoot(parent);
}
