// Where things are, from the root of the checkout.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const at = (...parts) => join(root, ...parts);
/** A tool from node_modules, run with this Node: the same on every platform, where .bin differs. */
export const tool = {
  oxlint: at("node_modules", "oxlint", "bin", "oxlint"),
  tsc: at("node_modules", "typescript", "bin", "tsc"),
};
