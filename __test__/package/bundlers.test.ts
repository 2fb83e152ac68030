/** Programs that are bundled: Candlewick stays outside of the bundle, and says so where it was not left there. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { beforeAll, describe, test } from "vitest";
import { newFolder } from "../support/models.js";

const run = promisify(execFile);
const root = join(__dirname, "..", "..");
let project: string;
beforeAll(() => {
  project = newFolder("bundled");
  mkdirSync(join(project, "node_modules"));
  symlinkSync(root, join(project, "node_modules", "candlewick"));
  writeFileSync(
    join(project, "server.ts"),
    'import { generate } from "candlewick";\nvoid generate("Once", { maxNewTokens: 4, temperature: 0 }).result.then(({ usage }) => console.log(usage.completionTokens));\n',
  );
});

const bundle = (options: object) =>
  build({ entryPoints: [join(project, "server.ts")], bundle: true, platform: "node", logLevel: "silent", absWorkingDir: project, ...options });

describe("esbuild", () => {
  for (const format of ["cjs", "esm"] as const) {
    test(`external, as ${format}`, async () => {
      const outfile = join(project, "out", format === "cjs" ? "server.cjs" : "server.mjs");
      await bundle({ outfile, format, external: ["candlewick"] });
      assert.equal((await run(process.execPath, [outfile], { cwd: project })).stdout, "4\n");
    });
  }

  test("bundled in, it says to leave it external", async () => {
    // Far from any package.json of ours.
    const outfile = join(newFolder("elsewhere"), "server.cjs");
    await bundle({ outfile, format: "cjs", external: ["*.node", "*.wasm"] });
    await assert.rejects(run(process.execPath, [outfile]), (error: { stderr: string }) => {
      assert.match(error.stderr, /Cannot load the native addon: a bundler has moved/);
      assert.match(error.stderr, /esbuild --external:candlewick, webpack externals, Next\.js serverExternalPackages/);
      return true;
    });
  });
});
