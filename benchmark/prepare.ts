/**
 * `npm run bench -- prepare`: installs the peers and makes the models, all of it outside the checkout. What is there
 * stays.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bench, cache, here, models, peers, python, root } from "./paths.js";
import { makeModels } from "./prepare/models.js";

/**
 * Exact versions, so that figures of two days are of the same peers; a folder for each group. node-llama-cpp's optional
 * packages are gigabytes of CUDA, so that it gets the one for this platform's CPU alone.
 */
const npmPeers: { folder: string; packages: Record<string, string>; optional: boolean }[] = [
  { folder: "llama", packages: { "node-llama-cpp": "3.22.1", [llamaBinary()]: "3.22.1" }, optional: false },
  { folder: "onnx", packages: { "onnxruntime-node": "1.30.0", "@huggingface/transformers": "4.3.1" }, optional: true },
  // Brings an older onnxruntime-node, hence a folder of its own.
  { folder: "fastembed", packages: { fastembed: "2.1.0" }, optional: true },
];

/** The package with llama.cpp for this platform. */
function llamaBinary(): string {
  const platform = { darwin: "mac", win32: "win" }[process.platform as string] ?? process.platform;
  return `@node-llama-cpp/${platform}-${process.arch}${process.platform === "darwin" && process.arch === "arm64" ? "-metal" : ""}`;
}

const pythonPeers = ["torch==2.15.0", "transformers==5.23.0", "gguf==0.19.0", "onnx==1.23.2", "onnxscript==0.7.2", "openvino==2026.4.1", "nncf==3.4.0", "ctranslate2==4.8.5", "faiss-cpu==1.15.1"];

function run(command: string, args: string[], cwd = root): boolean {
  console.error(`$ ${[command, ...args].join(" ")}`);
  return spawnSync(command, args, { cwd, stdio: ["ignore", 2, 2], shell: process.platform === "win32" }).status === 0;
}

/** The steps; each says whether it went well, and none stops the others. Exit code 1 if one failed. */
export function prepare(): void {
  const done = {
    "the native processes": buildNative(),
    "the peers from npm": installNpm(),
    "Python and its peers": installPython(),
    "the real models": run("bash", [join(root, "tools", "fetch-models.sh")]),
    "the models": madeModels(),
    "the models' other forms": run(python, ["-B", here("prepare", "models.py"), bench(), models("gpt2-tokenizer"), models("minilm")]),
  };
  for (const [what, ok] of Object.entries(done)) console.error(`${what}: ${ok ? "ready" : "FAILED; what needs it will be skipped"}`);
  if (Object.values(done).includes(false)) process.exitCode = 1;
}

function madeModels(): boolean {
  makeModels();
  return true;
}

/**
 * `bench-limits` and `bench-candle`, in the checkout's own `target/`: Candle is compiled once for the addon and for
 * them.
 */
export function buildNative(): boolean {
  return run("cargo", ["build", "--quiet", "--release", "--locked", "--package", "candlewick-benchmark"]);
}

function installNpm(): boolean {
  return npmPeers
    .map(({ folder, packages, optional }) => {
      const at = join(peers, folder);
      const installed = (name: string) => {
        const path = join(at, "node_modules", name, "package.json");
        return existsSync(path) && (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
      };
      const missing = Object.entries(packages).filter(([name, version]) => installed(name) !== version);
      if (missing.length === 0) return true;
      mkdirSync(at, { recursive: true });
      if (!existsSync(join(at, "package.json"))) writeFileSync(join(at, "package.json"), '{"private":true}\n');
      const names = missing.map(([name, version]) => `${name}@${version}`);
      // The binaries for the CPU are inside the packages; no script needs to run.
      const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", ...(optional ? [] : ["--omit=optional"])];
      return run("npm", ["install", ...flags, ...names], at);
    })
    .every(Boolean);
}

function installPython(): boolean {
  if (!existsSync(python) && !run("python3", ["-m", "venv", join(cache, "venv")])) return false;
  const names = pythonPeers.map((name) => name.split("==")[0]!);
  if (run(python, ["-c", `import ${names.join(", ")}`])) return true;
  return run(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...pythonPeers]);
}
