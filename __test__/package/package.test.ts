// The package as a user gets it: packed, installed into an empty folder from the tarballs alone, used there.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, test } from "vitest";
import { nodeBinaries } from "../../scripts/lib/nodes.mjs";
import { testUnless } from "../support/skip.js";

const exec = promisify(execFile);
const root = join(__dirname, "..", "..");
const temporary = mkdtempSync(join(tmpdir(), "candlewick-package-"));
const tarballs = join(temporary, "tarballs");
const user = join(temporary, "user");
const installed = join(user, "node_modules");
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

/** What a user's program sees: not the variables that npm and this repository set. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_|CANDLEWICK_|FORCE_COLOR)/i.test(name)),
);
const inUser = (command: string, args: string[]) => exec(command, args, { cwd: user, env, timeout: 120_000 });

beforeAll(async () => {
  const { stdout } = await exec(process.execPath, ["scripts/pack.mjs", "--out", tarballs], { cwd: root });
  console.log(stdout.replaceAll(`${tarballs}/`, "").trim());
  mkdirSync(user);
  writeFileSync(join(user, "package.json"), JSON.stringify({ name: "user", private: true }));
  const files = readdirSync(tarballs).filter((name) => name.endsWith(".tgz"));
  assert.equal(files.length, 2);
  // Offline: what is in the two tarballs, and what `dependencies` names, must be enough. The other platforms' packages
  // are optional, and absent.
  const dependencies = await packDependencies();
  await inUser("npm", ["install", "--offline", "--no-audit", "--no-fund", ...files.map((name) => join(tarballs, name)), ...dependencies]);
  cpSync(join(__dirname, "user"), user, { recursive: true });
  // Types of Node, as every TypeScript project on Node has them.
  mkdirSync(join(installed, "@types"), { recursive: true });
  symlinkSync(join(root, "node_modules", "@types", "node"), join(installed, "@types", "node"), "junction");
});

/** The tarballs of what the package depends on at run time, made from what is installed here. */
async function packDependencies(): Promise<string[]> {
  const { packages } = readJson(join(root, "package-lock.json")) as { packages: Record<string, { dependencies?: Record<string, string> }> };
  const folders = new Set<string>();
  // Not all that the lock file has beside the tools: the packages in packages/ have dependencies of their own.
  const add = (path: string) => {
    for (const name of Object.keys(packages[path]!.dependencies ?? {})) {
      const found = [`${path}/node_modules/${name}`, `node_modules/${name}`].find((place) => place in packages)!;
      if (folders.has(found)) continue;
      folders.add(found);
      add(found);
    }
  };
  add("");
  const folder = join(temporary, "dependencies");
  mkdirSync(folder);
  const paths = [...folders].map((path) => join(root, path));
  await exec("npm", ["pack", "--ignore-scripts", "--pack-destination", folder, ...paths], { cwd: temporary, env });
  return readdirSync(folder).map((name) => join(folder, name));
}

afterAll(() => rmSync(temporary, { recursive: true, force: true }));

describe("the tarballs", () => {
  const packages = () => readdirSync(installed).filter((name) => name.startsWith("candlewick"));
  const filesIn = (folder: string): string[] =>
    readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => statSync(join(folder, name)).isFile());

  test("are the package and this platform's addon", () => {
    assert.equal(packages().length, 2);
    const addons = packages().flatMap((name) => filesIn(join(installed, name)).filter((file) => file.endsWith(".node")));
    assert.equal(addons.length, 1);
  });

  test("run nothing when they are installed", () => {
    for (const name of packages()) {
      const manifest = readJson(join(installed, name, "package.json"));
      assert.equal(manifest.scripts, undefined, name);
      assert.equal(manifest.devDependencies, undefined, name);
    }
    const everything = readdirSync(installed).filter((name) => !name.startsWith(".") && !name.startsWith("@"));
    for (const name of everything) {
      const { scripts = {} } = readJson(join(installed, name, "package.json"));
      assert.deepEqual(Object.keys(scripts).filter((script) => /^(pre|post)?install$/.test(script)), [], name);
      assert.ok(!existsSync(join(installed, name, "binding.gyp")), name);
    }
  });

  test("name the platform packages that were made with it, at exactly this version, and no others", () => {
    const { version, optionalDependencies } = readJson(join(installed, "candlewick", "package.json"));
    const made = packages().filter((name) => name !== "candlewick");
    assert.deepEqual(optionalDependencies, Object.fromEntries(made.map((name) => [name, version])));
  });

  test("say where they come from, and unpack under Yarn's Plug'n'Play", () => {
    const models = readdirSync(join(root, "models")).map((name) => join(root, "models", name, "package.json")).filter(existsSync);
    const platforms = readdirSync(join(root, "npm")).map((name) => join(root, "npm", name, "package.json"));
    for (const path of [join(installed, "candlewick", "package.json"), ...models, ...platforms]) {
      const { repository, homepage, bugs, preferUnplugged } = readJson(path);
      assert.match(repository.url, /^git\+https:\/\//, path);
      assert.ok(homepage && bugs && preferUnplugged, path);
    }
  });

  test("hold what is used, and nothing else", () => {
    const files = filesIn(join(installed, "candlewick"));
    for (const name of ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "dist/index.js", "dist/index.mjs", "dist/index.d.ts", "docs/api.md", "docs/errors.md"]) {
      assert.ok(files.includes(join(name)), name);
    }
    const kinds = /^(dist|native|models)[/\\]|^docs[/\\](api|deploy|errors)\.md$|^(package\.json|README\.md|CHANGELOG\.md|LICENSE-\w+)$/;
    assert.deepEqual(files.filter((name) => !kinds.test(name) || /\.(tsx?|rs|stamp)$/.test(name.replace(/\.d\.[mc]?ts$/, ""))), []);
  });

  test("carry the licences of what is compiled in", () => {
    const platform = packages().find((name) => name !== "candlewick")!;
    assert.match(readFileSync(join(installed, platform, "THIRD-PARTY-LICENSES"), "utf8"), /^candle-core [\d.]+: /m);
  });
});

describe("a program", async () => {
  const binaries = await nodeBinaries();
  test("can be tried on some version of Node", () => {
    assert.ok(binaries.some((node) => "path" in node));
  });
  for (const node of binaries) {
    for (const [how, file] of [["import", "program.mjs"], ["require", "program.cjs"]] as const) {
      testUnless("problem" in node && node.problem, `runs on Node ${node.version} with ${how}`, async () => {
        assert.ok("path" in node);
        const { stdout, stderr } = await inUser(node.path, [file]);
        assert.equal(stderr, "");
        const { version, text, streamed, same, code } = JSON.parse(stdout);
        assert.equal(version, node.version);
        assert.equal(streamed, 12);
        assert.ok(text.trim().length > 0);
        assert.ok(same, "import and require() give the same classes");
        assert.equal(code, "OPTION_UNKNOWN");
      });
    }
  }

  test("has a command line", async () => {
    const { stdout } = await inUser("npx", ["--offline", "candlewick", "generate", "Once", "--max-new-tokens", "4", "--temperature", "0"]);
    assert.match(stdout, /^Once./);
  });

  test("names the package of the server, which is not installed with it", async () => {
    const failure = await inUser("npx", ["--offline", "candlewick", "serve", "--model", "a=b"]).catch((error) => error);
    assert.equal(failure.code, 1);
    assert.match(failure.stderr, /npm install candlewick-server/);
  });

  describe("beside the package with CUDA", () => {
    const folder = join(installed, "candlewick-linux-x64-gnu-cuda");
    const main = "addon.node";
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    /** What a program says: the model's device, which addons are in memory, and the codes of its warnings. */
    async function run(version: string, addon: Buffer) {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder);
      writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "candlewick-linux-x64-gnu-cuda", version, main }));
      writeFileSync(join(folder, main), addon);
      const program = `
        const codes = [];
        process.on("warning", (warning) => codes.push(warning.code));
        const { loadGPT2 } = require("candlewick");
        loadGPT2("node_modules/candlewick/models/default").then(async (lm) => {
          const addons = process.report.getReport().sharedObjects.filter((path) => path.endsWith(".node"));
          console.log(JSON.stringify({ codes, addons, device: lm.info.device }));
          await lm.close();
        });`;
      return JSON.parse((await inUser(process.execPath, ["-e", program])).stdout);
    }
    const platform = readdirSync(join(root, "native")).find((name) => name.endsWith(".node"))!;
    const { version } = readJson(join(root, "package.json"));

    test("takes the addon from there when it can be loaded", async () => {
      // The CPU's addon in its place: which one is taken is the question, not what it can do.
      const { codes, addons } = await run(version, good);
      assert.deepEqual(codes, []);
      assert.deepEqual(addons.map((path: string) => basename(path)), [main]);
    });

    const good = readFileSync(join(root, "native", platform));
    const bad = [["cannot be loaded", version, Buffer.from("no addon")], ["is of another version", "0.0.1", good]] as const;
    for (const [what, version, addon] of bad) {
      test(`says that it runs on the CPU when that addon ${what}`, async () => {
        const { codes, addons, device } = await run(version, addon);
        assert.deepEqual(codes, ["CANDLEWICK_CUDA_UNAVAILABLE"]);
        assert.deepEqual(addons.map((path: string) => basename(path)), [platform]);
        assert.equal(device, "cpu");
      });
    }
  });

  test("runs as the README shows it", async () => {
    const example = /```js\n([^]+?)```/.exec(readFileSync(join(root, "README.md"), "utf8"))![1]!;
    writeFileSync(join(user, "readme.mjs"), example);
    const { stdout } = await inUser(process.execPath, ["readme.mjs"]);
    assert.ok(stdout.length > 20, stdout);
  });

  const compilers = [
    ["node16, from an ES module", "program.mts", ["--module", "node16"]],
    ["node16, from CommonJS", "program.cts", ["--module", "node16"]],
    ["nodenext, from an ES module", "program.mts", ["--module", "nodenext"]],
    ["nodenext, from CommonJS", "program.cts", ["--module", "nodenext"]],
    ["bundler", "program.mts", ["--module", "esnext", "--moduleResolution", "bundler"]],
  ] as const;
  for (const [how, file, options] of compilers) {
    test(`finds its types under ${how}`, async () => {
      const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
      const common = ["--noEmit", "--strict", "--target", "es2023", "--lib", "es2023,esnext.disposable", "--types", "node"];
      await inUser(process.execPath, [tsc, ...common, ...options, file]).catch((error) => assert.fail(error.stdout || error));
    });
  }
});
