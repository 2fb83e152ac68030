/** Every block of code in the README and in docs/api.md runs as it stands, and prints what it says that it prints. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { announced, examplesOf, newReadersProject, runExample } from "../support/doc-examples.js";

const root = join(__dirname, "..", "..");

/** Commands that install or test the package itself; each is run whole elsewhere. */
const elsewhere: readonly [RegExp, string][] = [
  [/^npm install candlewick\b/, "package.test.ts"],
  [/^npm ci && npm start\b/, ".ci/run"],
  [/^npx candlewick-server\b/, "packages/server/__test__/cli.test.ts"],
];

for (const document of ["README.md", "docs/api.md", "docs/errors.md"]) {
  describe(document, () => {
    const examples = examplesOf(document).filter(({ code }) => !elsewhere.some(([command]) => command.test(code)));
    const project = newReadersProject();

    for (const example of examples) {
      test(`line ${example.line} runs`, async () => {
        const { code, stdout, stderr } = await runExample(example, project);
        assert.equal(code, 0, `${stderr}\n${stdout}`);
        if (example.output !== undefined) assert.equal(stdout.trimEnd(), example.output);
        if (/^export default /m.test(example.code)) assert.match(stdout, /^200 ./);
        const lines = stdout.split("\n");
        let from = 0;
        for (const line of announced(example.code)) {
          const found = lines.slice(from).findIndex((text) => line.test(text));
          assert.ok(found >= 0, `it says that it prints ${line}; it printed:\n${stdout}`);
          from += found + 1;
        }
      });
    }

    test("the examples have the types that they are written with", () => {
      const files = examples.filter(({ language }) => /^[jt]s$/.test(language)).map(({ code, line }) => {
        const name = `types-${line}.mts`;
        writeFileSync(join(project, name), code);
        return name;
      });
      const options = { target: "es2023", lib: ["es2023", "esnext.disposable", "dom", "dom.asynciterable"], module: "nodenext", strict: true, noEmit: true, types: ["node"], skipLibCheck: true };
      writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files }));
      const { status, stdout } = spawnSync(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", project], { encoding: "utf8" });
      assert.equal(status, 0, stdout);
    });
  });
}

test("the README has at most 120 lines", () => {
  assert.ok(readFileSync(join(root, "README.md"), "utf8").trimEnd().split("\n").length <= 120);
});
