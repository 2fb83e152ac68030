// Where things are, from the root of the checkout.
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const at = (...parts) => join(root, ...parts);
/** What outlives the checkout: toolchains, models for tests. */
export const cache = process.env.CANDLEWICK_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "candlewick");
/** A tool from node_modules, run with this Node: the same on every platform, where .bin differs. */
export const tool = {
  oxlint: at("node_modules", "oxlint", "bin", "oxlint"),
  tsc: at("node_modules", "typescript", "bin", "tsc"),
  vitest: at("node_modules", "vitest", "vitest.mjs"),
};
