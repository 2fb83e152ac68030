// CUDA's compiler, the toolkit that CUDA_HOME names or one put together from NVIDIA's Python wheels, which need neither
// root nor a GPU; and our kernels, compiled with it. The addon links none of CUDA's libraries.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { at, cache } from "./paths.mjs";
import { output, run } from "./run.mjs";

const folder = join(cache, "cuda");

/** The first CUDA 13: what it compiles runs on every driver for CUDA 13 (580 and newer). */
const wheels = {
  "nvidia-cuda-nvcc": "13.0.88",
  "nvidia-cuda-crt": "13.0.88",
  "nvidia-nvvm": "13.0.88",
  "nvidia-cuda-cccl": "13.0.85",
  "nvidia-cuda-runtime": "13.0.96",
};

const toolkit = join(folder, `compiler-${wheels["nvidia-cuda-nvcc"]}`);

/**
 * Machine code for Ampere, Ada, Hopper (90a: with what is Hopper's alone) and Blackwell; newer GPUs compile the PTX
 * when they first load it.
 */
const architectures = ["80", "86", "89", "90a", "100", "120"];
const newest = "120";

/** What is missing to set up and use a toolkit, each as a paragraph that ends with what to type. */
export async function missingForCuda() {
  const missing = [];
  if (process.platform !== "linux" || process.arch !== "x64") {
    missing.push(`CUDA builds are made on Linux, x86-64; this is ${process.platform}-${process.arch}.`);
  }
  if ((await output("c++", ["--version"])) === undefined) {
    missing.push("A C++ compiler, which nvcc compiles the host's part with, was not found:\n    sudo apt-get install g++");
  }
  const home = process.env.CUDA_HOME;
  if (home && !existsSync(join(home, "bin", "nvcc"))) {
    missing.push(`CUDA_HOME is ${home}, and there is no bin/nvcc in it. Unset it to have a toolkit fetched.`);
  }
  if (!home && !existsSync(toolkit) && (await output("python3", ["-m", "pip", "--version"])) === undefined) {
    missing.push("pip, which fetches nvcc, was not found (or set CUDA_HOME to a toolkit of CUDA 13):\n    sudo apt-get install python3-pip");
  }
  return missing;
}

/** The toolkit's root; the first time it is fetched. Undefined where pip could not, and has said why. */
export async function cudaToolkit() {
  if (process.env.CUDA_HOME) return process.env.CUDA_HOME;
  if (!existsSync(toolkit)) {
    console.error(`Fetching CUDA's compiler into ${folder} (once).`);
    const unfinished = `${toolkit}.${process.pid}`;
    mkdirSync(unfinished, { recursive: true });
    const names = Object.entries(wheels).map(([name, version]) => `${name}==${version}`);
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"];
    const code = await run("python3", [...pip, "--root-user-action=ignore", "--target", unfinished, ...names]);
    if (code !== 0) {
      rmSync(unfinished, { recursive: true, force: true });
      return undefined;
    }
    symlinkSync("lib", join(unfinished, "nvidia", "cu13", "lib64"));
    renameSync(unfinished, toolkit);
  }
  return join(toolkit, "nvidia", "cu13");
}

/**
 * Compiles crates/models/cuda/kernels.cu, which takes some seconds; the path is what the feature `cuda` reads, in
 * CANDLEWICK_CUDA_KERNELS. Throws where a kernel spills registers.
 */
export function compileKernels(home) {
  const out = at("target", "cuda", "kernels.fatbin");
  mkdirSync(at("target", "cuda"), { recursive: true });
  const code = architectures.flatMap((n) => ["-gencode", `arch=compute_${n},code=sm_${n}`]);
  const ptx = ["-gencode", `arch=compute_${newest},code=compute_${newest}`];
  const source = at("crates", "models", "cuda", "kernels.cu");
  const args = ["-O3", "-std=c++17", "-fatbin", "-Xptxas", "-v", "--threads", "0", ...code, ...ptx, "-o", out, source];
  const { status, stderr } = spawnSync(join(home, "bin", "nvcc"), args, { encoding: "utf8", maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`nvcc:\n${stderr}`);
  const spills = stderr.match(/^.*[1-9]\d* bytes spill.*$/gm);
  if (spills) throw new Error(`Kernels spill registers:\n${spills.join("\n")}`);
  return out;
}

/** Whether this machine has NVIDIA's driver. */
export function hasDriver() {
  return execFileSync("/sbin/ldconfig", ["-p"], { encoding: "utf8" }).includes("libcuda.so.1 ");
}
