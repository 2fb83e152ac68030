// cuda-kit.tar.xz: all that measures the CUDA backend on a machine that has a GPU, Python with torch, and no Node. It
// has the layout of the checkout, so that the same files run in both (benchmark/cuda/, tools/cuda/).
import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { buildSync } from "esbuild";
import { filesUnder } from "./fingerprint.mjs";
import { at } from "./paths.mjs";

/** What a kit may weigh: it travels with a working tree of at most 64 MiB. */
const MOST_BYTES = 45 * 2 ** 20;

const addon = join("npm", "linux-x64-gnu-cuda", "candlewick.linux-x64-gnu-cuda.node");
const example = join("target", "cuda", "release", "examples", "cuda");
/** The tests of crates/models that run models of the fixtures on a GPU where there is one. */
export const kitTests = ["bert", "devices", "gpt2"];
const fixtures = /^(gpt2-|bert-|gguf$|[\w-]+\.json$)/;

/** The newest build of a test in target/cuda; undefined where there is none. */
function testBinary(name) {
  const folder = at("target", "cuda", "release", "deps");
  if (!existsSync(folder)) return undefined;
  const builds = readdirSync(folder).filter((file) => new RegExp(`^${name}-[0-9a-f]{16}$`).test(file)).map((file) => join(folder, file));
  return builds.toSorted((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
}

/** Folders in node_modules of what the package depends on at run time, and of what those depend on. */
function runtimeDependencies(manifest = at("package.json"), found = new Set()) {
  for (const name of Object.keys(JSON.parse(readFileSync(manifest, "utf8")).dependencies ?? {})) {
    if (found.has(name)) continue;
    found.add(name);
    runtimeDependencies(at("node_modules", name, "package.json"), found);
  }
  return found;
}

/**
 * Writes cuda-kit.tar.xz into `out` from what is built. Returns its path, its bytes, and what it has to do without.
 *
 * @throws Where there is no addon, no dist/ or no tokenizer of MiniLM.
 */
export function bundleKit(out) {
  const stage = at("target", "cuda", "kit");
  rmSync(stage, { recursive: true, force: true });
  const without = [];
  /** Copies a file or folder to its place in the kit, or to another. */
  const copy = (from, to = from, filter = () => true) => {
    const target = join(stage, to);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(from.startsWith("/") ? from : at(from), target, { recursive: true, dereference: true, filter });
    return target;
  };
  const sources = Math.max(...filesUnder(at("crates"), (path) => /[/\\](src|cuda)[/\\]/.test(path)).map((path) => statSync(path).mtimeMs));
  const program = (from, to = from) => {
    const target = copy(from, to);
    const ours = from !== process.execPath;
    if (ours && statSync(from.startsWith("/") ? from : at(from)).mtimeMs < sources) without.push(`the last changes of crates/ in ${basename(target)}`);
    chmodSync(target, 0o755);
    try {
      execFileSync("strip", ["--strip-unneeded", target]);
    } catch {
      without.push(`a stripped ${basename(target)}`);
    }
  };

  for (const needed of [addon, join("dist", "index.js"), join("models", "minilm", "tokenizer.json")]) {
    if (!existsSync(at(needed))) throw new Error(`${needed} is missing: build first (npm run build, npm run build:cuda)`);
  }
  program(addon);
  program(process.execPath, join("bin", "node"));
  if (existsSync(at(example))) program(example);
  else without.push("the Rust example");
  for (const name of kitTests) {
    const binary = testBinary(name);
    if (binary) program(binary, join("target", "cuda", "tests", name));
    else without.push(`the Rust tests of ${name}`);
  }

  for (const name of ["package.json", "LICENSE-MIT", "LICENSE-APACHE"]) copy(name);
  copy("dist", "dist", (path) => !/\.(d\.m?ts|stamp)$/.test(path));
  for (const name of runtimeDependencies()) copy(join("node_modules", name));
  for (const name of readdirSync(at("__test__", "fixtures")).filter((name) => fixtures.test(name))) copy(join("__test__", "fixtures", name));
  copy(join("models", "minilm"), undefined, (path) => !path.endsWith(".safetensors"));
  copy(join("tools", "cuda"), undefined, (path) => !/__pycache__/.test(path));
  copy(join("tools", "cuda", "run.sh"), "run.sh");
  for (const name of ["protocol.mjs", "protocol.py"]) copy(join("benchmark", "workers", name));
  copy(join("benchmark", "cuda"), undefined, (path) => !path.endsWith(".ts"));
  buildSync({
    entryPoints: [at("benchmark", "cuda", "run.ts")],
    outfile: join(stage, "benchmark", "cuda", "run.cjs"),
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20",
    logLevel: "warning",
  });

  mkdirSync(out, { recursive: true });
  const path = join(out, "cuda-kit.tar.xz");
  // Programs first and beside each other: they have much in common, and xz sees 64 MiB back.
  const order = ["npm", "target", "bin"];
  const names = [...order, ...readdirSync(stage).filter((name) => !order.includes(name)).toSorted()];
  execFileSync("tar", ["-C", stage, "--owner=0", "--group=0", "-I", "xz -9 -T1", "-cf", `${path}.partial`, ...names]);
  renameSync(`${path}.partial`, path);
  const { size } = statSync(path);
  if (size > MOST_BYTES) without.push(`the size it should have: it is ${(size / 2 ** 20).toFixed(1)} MiB, and should be ${MOST_BYTES / 2 ** 20} at most`);
  return { path, size, without };
}
