/** `npm run bench -- prepare`: installs the peers and makes the models, all of it outside the checkout. What is there stays. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bench, cache, here, models, nativeTarget, peers, python, root } from "./paths.js";

/** Exact versions, so that figures of two days are of the same peers. */
const npmPeers = { "node-llama-cpp": "3.22.1", "onnxruntime-node": "1.30.0", "@huggingface/transformers": "4.3.1" };
const pythonPeers = ["torch==2.15.0", "transformers==5.23.0", "gguf==0.19.0", "onnx==1.23.2", "onnxscript==0.7.2"];

function run(command: string, args: string[], cwd = root): boolean {
  console.error(`$ ${[command, ...args].join(" ")}`);
  return spawnSync(command, args, { cwd, stdio: ["ignore", 2, 2], shell: process.platform === "win32" }).status === 0;
}

/** The steps; each says whether it went well, and none stops the others. */
export function prepare(): void {
  const done = {
    "the native processes": buildNative(true),
    "the peers from npm": installNpm(),
    "Python and its peers": installPython(),
    "the real models": run("bash", [join(root, "tools", "fetch-models.sh")]),
    "the models": run(python, ["-B", here("prepare", "models.py"), bench(), models("gpt2-tokenizer"), models("minilm")]),
  };
  for (const [what, ok] of Object.entries(done)) console.error(`${what}: ${ok ? "ready" : "FAILED; what needs it will be skipped"}`);
}

/** The process that measures limits takes seconds to build; `candle` compiles Candle, which takes minutes. */
export function buildNative(candle: boolean): boolean {
  const features = candle ? ["--features", "candle"] : ["--bin", "bench-limits"];
  return run("cargo", ["build", "--quiet", "--release", "--manifest-path", here("native", "Cargo.toml"), "--target-dir", nativeTarget, ...features]);
}

function installNpm(): boolean {
  mkdirSync(peers, { recursive: true });
  const installed = (name: string) => {
    const path = join(peers, "node_modules", name, "package.json");
    return existsSync(path) && (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
  };
  const missing = Object.entries(npmPeers).filter(([name, version]) => installed(name) !== version);
  if (missing.length === 0) return true;
  if (!existsSync(join(peers, "package.json"))) writeFileSync(join(peers, "package.json"), '{"private":true}\n');
  // node-llama-cpp's and onnxruntime-node's binaries for the CPU are inside their packages; no script needs to run.
  const packages = missing.map(([name, version]) => `${name}@${version}`);
  return run("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", ...packages], peers);
}

function installPython(): boolean {
  if (!existsSync(python) && !run("python3", ["-m", "venv", join(cache, "venv")])) return false;
  const names = pythonPeers.map((name) => name.split("==")[0]!);
  if (run(python, ["-c", `import ${names.join(", ")}`])) return true;
  return run(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...pythonPeers]);
}
