/** The README's example, as it stands, with the real `ai`. */
import assert from "node:assert/strict";
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe } from "vitest";
import { announced, examplesOf, newReadersProject, runExample } from "../../../__test__/support/doc-examples.js";
import { testUnless } from "../../../__test__/support/skip.js";
import { clients } from "../../../scripts/lib/clients.mjs";

describe("the README", async () => {
  const installed = await clients();
  const examples = examplesOf("packages/ai-sdk/README.md").filter(({ language }) => language === "ts");
  for (const [name, from, to] of [["ai6", '"candlewick-ai-sdk"', '"candlewick-ai-sdk/v3"'], ["ai7", "", ""]] as const) {
    testUnless(!installed && "its packages could not be installed", `runs with ${name}`, async () => {
      const project = newReadersProject();
      symlinkSync(join(__dirname, ".."), join(project, "node_modules", "candlewick-ai-sdk"), "junction");
      symlinkSync(join(installed!.folder, "node_modules", name), join(project, "node_modules", "ai"), "junction");
      assert.equal(examples.length, 1);
      const example = { ...examples[0]!, code: examples[0]!.code.replace(from, to) };
      const { code, stdout, stderr } = await runExample(example, project, name === "ai6" ? process.execPath : installed!.node);
      assert.equal(code, 0, stderr);
      const expected = announced(example.code);
      assert.equal(expected.length, 1);
      assert.match(stdout.trimEnd(), expected[0]!);
      assert.ok(stdout.length > 80);
    });
  }
});
