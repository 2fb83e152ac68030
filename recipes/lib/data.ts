/** A recipe's data: where it comes from, and its three files in the cache. */
import { createHash } from "node:crypto";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cache } from "./packages.js";
import { SPLITS, type Counts, type Split } from "./split.js";

export interface Source {
  /** A package, with its version. */
  readonly package: string;
  readonly what: string;
  readonly license: string;
}

export interface Recipe {
  readonly sources: readonly Source[];
  /** The rows of each split, and what was left out. */
  read(): Promise<{ splits: Record<Split, object[]>; counts: Counts }>;
}

export interface Prepared extends Counts {
  /** Rows and SHA-256 of each file: what makes a figure comparable. */
  files: Record<Split, { rows: number; sha256: string }>;
}

export const dataFolder = (name: string): string => join(cache, "data", name);
export const dataFile = (name: string, split: Split): string => join(dataFolder(name), `${split}.jsonl`);

/** Reads a recipe's sources and writes its splits, as JSON lines. */
export async function prepare(name: string, recipe: Recipe): Promise<Prepared> {
  const { splits, counts } = await recipe.read();
  await mkdir(dataFolder(name), { recursive: true });
  const files = {} as Prepared["files"];
  for (const split of SPLITS) {
    const text = splits[split].map((row) => `${JSON.stringify(row)}\n`).join("");
    const path = dataFile(name, split);
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
    files[split] = { rows: splits[split].length, sha256: createHash("sha256").update(text).digest("hex") };
  }
  const prepared = { ...counts, files };
  await writeFile(join(dataFolder(name), "prepared.json"), `${JSON.stringify({ sources: recipe.sources, ...prepared }, undefined, 2)}\n`);
  return prepared;
}
