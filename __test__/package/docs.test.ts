// What the documents point at is in the repository: a file that lies on this disk alone is in nobody's clone.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "vitest";

const root = join(__dirname, "..", "..");
const tracked = execFileSync("git", ["ls-files"], { cwd: root, encoding: "utf8" }).trim().split("\n");
const known = new Set(tracked.flatMap((path) => [path, ...foldersOf(path)]));
const ours = /^(src|crates|scripts|tools|docs|__test__|examples|models|npm|\.ci|benchmark|recipes|packages)\/[\w./-]+$/;

function foldersOf(path: string): string[] {
  const folder = dirname(path);
  return folder === "." ? [] : [folder, ...foldersOf(folder)];
}

/** Relative links; and code spans that are paths from the root, or from one of the folders that a reader is in. */
function pointsAt(document: string): string[] {
  const text = readFileSync(join(root, document), "utf8").replaceAll(/```[^]*?```/g, "");
  const links = [...text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!);
  const files = links.filter((link) => !/^[a-z]+:/.test(link)).map((link) => join(dirname(document), link));
  const spans = [...text.matchAll(/`([^`\n]+)`/g)].map((match) => match[1]!).filter((span) => ours.test(span));
  return [...files, ...spans].map((path) => path.replace(/\/$/, ""));
}

for (const document of tracked.filter((name) => name.endsWith(".md") && !name.startsWith("__test__/fixtures/"))) {
  test(`${document} points at what is committed`, () => {
    assert.deepEqual(pointsAt(document).filter((path) => !known.has(path)), []);
  });
}

test("the flows of ARCHITECTURE.md name files that exist: `engine/x.rs` is crates/engine/src/x.rs", () => {
  const blocks = [...readFileSync(join(root, "ARCHITECTURE.md"), "utf8").matchAll(/```([^]*?)```/g)].map((match) => match[1]!);
  const files = blocks.flatMap((block) => [...block.matchAll(/(?<![\w/])[\w-]+(?:\/[\w-]+)+\.(?:rs|ts)/g)].map((match) => match[0]));
  const paths = files.map((file) => file.replace(/^(kernels|models|engine|train|node)\//, "crates/$1/src/"));
  assert.ok(paths.length >= 20, `${paths.length} paths`);
  assert.deepEqual(paths.filter((path) => !known.has(path)), []);
});
