import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** The folder with Candlewick's own `package.json`, in a checkout (`src/`) and in an installation (`dist/src/`). */
export const packageRoot: string = findRoot(__dirname);

/** The folder of the model that ships. */
export const defaultModelPath: string = join(packageRoot, "models", "default");

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
