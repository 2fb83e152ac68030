// The packages in packages/, beside the one at the root: npm's workspaces.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { at } from "./paths.mjs";

/**
 * Of each package its `name`, its `folder` from the root, its `manifest`, and which packages it `uses`, in the order of
 * the folders' names.
 */
export function workspaces() {
  if (!existsSync(at("packages"))) return [];
  return readdirSync(at("packages")).toSorted().map((name) => join("packages", name)).filter((folder) => existsSync(at(folder, "package.json"))).map((folder) => {
    const manifest = JSON.parse(readFileSync(at(folder, "package.json"), "utf8"));
    return { name: manifest.name, folder, manifest, uses: Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies }) };
  });
}

/** Each of `packages` after those that it uses. */
export function inOrder(packages) {
  const done = new Map();
  const visit = (one) => {
    if (done.has(one.name)) return;
    // Before its uses are visited: packages that use each other come to an end too.
    done.set(one.name, undefined);
    for (const used of packages.filter(({ name }) => one.uses.includes(name))) visit(used);
    done.delete(one.name);
    done.set(one.name, one);
  };
  for (const one of packages) visit(one);
  return [...done.values()];
}
