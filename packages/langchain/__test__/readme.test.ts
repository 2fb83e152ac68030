/** The README's example, as it stands. */
import assert from "node:assert/strict";
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "vitest";
import { announced, examplesOf, newReadersProject, runExample } from "../../../__test__/support/doc-examples.js";

test("the README runs", async () => {
  const project = newReadersProject();
  symlinkSync(join(__dirname, ".."), join(project, "node_modules", "candlewick-langchain"), "junction");
  symlinkSync(join(__dirname, "..", "..", "..", "node_modules", "@langchain"), join(project, "node_modules", "@langchain"), "junction");
  const examples = examplesOf("packages/langchain/README.md").filter(({ language }) => language === "ts");
  assert.equal(examples.length, 1);
  const { code, stdout, stderr } = await runExample(examples[0]!, project);
  assert.equal(code, 0, stderr);
  const expected = announced(examples[0]!.code);
  assert.equal(expected.length, 2);
  for (const line of expected) assert.ok(stdout.split("\n").some((text) => line.test(text)), stdout);
});
