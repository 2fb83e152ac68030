// Whether something built is still what its sources say: a hash of their contents, kept in a stamp file beside the
// result.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { root } from "./paths.mjs";

/** Every file under `path` (or the file itself), sorted, that `keep` accepts. */
export function filesUnder(path, keep = () => true) {
  if (!existsSync(path)) return [];
  if (statSync(path).isFile()) return keep(path) ? [path] : [];
  return readdirSync(path)
    .toSorted()
    .flatMap((name) => (name === "node_modules" || name === "target" ? [] : filesUnder(join(path, name), keep)));
}

/** A hash over names and contents of `files`, and over `extra`: compiler versions, flags. */
export function fingerprint(files, extra = []) {
  const hash = createHash("sha256").update(JSON.stringify(extra));
  for (const file of files) hash.update(`\0${relative(root, file)}\0`).update(readFileSync(file));
  return hash.digest("hex");
}

export const readStamp = (file) => (existsSync(file) ? readFileSync(file, "utf8") : undefined);

export function writeStamp(file, value) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, value);
}
