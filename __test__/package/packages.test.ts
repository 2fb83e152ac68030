// The packages beside the main one as a user gets them: packed, unpacked, and imported there.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, test } from "vitest";
import { workspaces } from "../../scripts/lib/packages.mjs";
import { packWorkspaces, publishedManifest } from "../../scripts/pack.mjs";

const exec = promisify(execFile);
const root = join(__dirname, "..", "..");
const temporary = mkdtempSync(join(tmpdir(), "candlewick-packages-"));
const installed = join(temporary, "node_modules");
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));
const version: string = readJson(join(root, "package.json")).version;
const packages = workspaces();

beforeAll(async () => {
  const tarballs = packWorkspaces(join(temporary, "tarballs"));
  for (const [name, { path }] of Object.entries(tarballs)) {
    mkdirSync(join(installed, name), { recursive: true });
    await exec("tar", ["-xzf", path, "-C", join(installed, name), "--strip-components=1"]);
  }
  const link = (name: string) => {
    const place = join(installed, name);
    if (existsSync(place) || !existsSync(join(root, "node_modules", name))) return;
    mkdirSync(dirname(place), { recursive: true });
    symlinkSync(join(root, "node_modules", name), place, "junction");
  };
  for (const { uses } of packages) uses.forEach(link);
  for (const name of ["@types/node", "typescript"]) link(name);
});
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

describe("a package beside the main one", () => {
  for (const { name } of packages) {
    test(`${name} is published without tools, for this very version, with its licences`, () => {
      const folder = join(installed, name);
      const manifest = readJson(join(folder, "package.json"));
      assert.equal(manifest.scripts, undefined);
      assert.equal(manifest.devDependencies, undefined);
      assert.equal(manifest.version, version);
      assert.equal(manifest.peerDependencies.candlewick, version);
      assert.match(manifest.repository.url, /^git\+https:\/\//);
      for (const file of ["README.md", "LICENSE-MIT", "LICENSE-APACHE"]) assert.ok(existsSync(join(folder, file)), file);
      const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
      assert.deepEqual(files.filter((file) => /\.stamp$|__test__|(?<!\.d)\.m?ts$/.test(file)), []);
    });

    test(`${name} is the same for import and require, and has its types`, async () => {
      const { exports, bin = {} } = readJson(join(installed, name, "package.json"));
      // A program runs when it is imported.
      const isProgram = (target: unknown) => Object.values(bin).some((path) => JSON.stringify(target).includes(String(path)));
      for (const [entry, target] of Object.entries(exports)) {
        if (entry === "./package.json" || isProgram(target)) continue;
        const specifier = join(name, entry).replaceAll("\\", "/");
        const program = `
          const required = require("${specifier}");
          import("${specifier}").then((imported) => {
            const names = Object.keys(required);
            console.log(names.length > 0 && names.every((name) => required[name] === imported[name]));
          });`;
        const { stdout } = await exec(process.execPath, ["-e", program], { cwd: temporary });
        assert.equal(stdout.trim(), "true", specifier);
        for (const file of ["types.mts", "types.cts"]) {
          writeFileSync(join(temporary, file), `import * as all from "${specifier}";\nexport const names: string[] = Object.keys(all);\n`);
          const options = ["--noEmit", "--strict", "--target", "es2023", "--lib", "es2023,esnext.disposable", "--types", "node", "--module", "nodenext", "--skipLibCheck"];
          const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
          await exec(process.execPath, [tsc, ...options, file], { cwd: temporary }).catch((error) => assert.fail(error.stdout || error));
        }
      }
    });
  }
});

test("the main package's manifest does not know of the others", () => {
  assert.equal((publishedManifest([]) as { workspaces?: unknown }).workspaces, undefined);
});
