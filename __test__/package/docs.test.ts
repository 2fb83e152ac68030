// What the documents point at exists.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "vitest";

const root = join(__dirname, "..", "..");
const documents = execFileSync("git", ["ls-files", "*.md"], { cwd: root, encoding: "utf8" }).trim().split("\n");
const ours = /^(src|crates|scripts|tools|docs|__test__|examples|models|npm|\.ci|benchmark)\/[\w./-]+$/;

/** Relative links; and code spans that are paths from the root, in the documents that send the reader to files. */
function pointsAt(document: string): string[] {
  const text = readFileSync(join(root, document), "utf8").replaceAll(/```[^]*?```/g, "");
  const links = [...text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!);
  const files = links.filter((link) => !/^[a-z]+:/.test(link)).map((link) => join(dirname(document), link));
  const spans = [...text.matchAll(/`([^`\n]+)`/g)].map((match) => match[1]!).filter((span) => ours.test(span));
  return /^[A-Z]+\.md$/.test(document) ? [...files, ...spans] : files;
}

for (const document of documents.filter((name) => !name.startsWith("__test__/fixtures/"))) {
  test(`${document} points at what exists`, () => {
    const missing = pointsAt(document).filter((path) => !existsSync(join(root, path)));
    assert.deepEqual(missing, []);
  });
}
