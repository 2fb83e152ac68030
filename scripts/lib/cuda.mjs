// A CUDA toolkit to compile with: the one that CUDA_HOME names, or one put together from NVIDIA's Python wheels, which
// need neither root nor a GPU.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { cache, root } from "./paths.mjs";
import { output, run } from "./run.mjs";

const folder = join(cache, "cuda");
const stubs = join(folder, "driver");

/** The first CUDA 13: what it compiles runs on every driver for CUDA 13 (580 and newer). */
const wheels = {
  "nvidia-cuda-nvcc": "13.0.88",
  "nvidia-cuda-crt": "13.0.88",
  "nvidia-nvvm": "13.0.88",
  "nvidia-cuda-cccl": "13.0.85",
  "nvidia-cuda-runtime": "13.0.96",
  "nvidia-cuda-nvrtc": "13.0.88",
  "nvidia-cublas": "13.0.2.14",
  "nvidia-curand": "10.4.0.35",
};

const toolkit = join(folder, `toolkit-${wheels["nvidia-cuda-nvcc"]}`);

/** Ampere and newer; newer GPUs compile the PTX in it when they first load it. */
const computeCapability = "80";

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

/**
 * The toolkit's root; the first time it is fetched: 0.7 GB, 1.2 GB on disk. Undefined where pip could not, and has said
 * why.
 */
export async function cudaToolkit() {
  if (process.env.CUDA_HOME) return process.env.CUDA_HOME;
  if (!existsSync(toolkit)) {
    console.error(`Fetching CUDA's compiler and libraries into ${folder} (0.7 GB, once).`);
    const unfinished = `${toolkit}.${process.pid}`;
    mkdirSync(unfinished, { recursive: true });
    const names = Object.entries(wheels).map(([name, version]) => `${name}==${version}`);
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"];
    const code = await run("python3", [...pip, "--root-user-action=ignore", "--target", unfinished, ...names]);
    if (code !== 0) {
      rmSync(unfinished, { recursive: true, force: true });
      return undefined;
    }
    completeLinks(join(unfinished, "nvidia", "cu13"));
    renameSync(unfinished, toolkit);
  }
  return join(toolkit, "nvidia", "cu13");
}

/**
 * What an installed toolkit has and the wheels lack: lib64, and the names without a version that a linker looks for.
 */
function completeLinks(home) {
  symlinkSync("lib", join(home, "lib64"));
  for (const file of readdirSync(join(home, "lib"))) {
    const plain = /^(lib[\w-]+\.so)\.\d+$/.exec(file)?.[1];
    if (plain) symlinkSync(file, join(home, "lib", plain));
  }
}

/** The environment in which cargo builds the feature `cuda`. */
export function cudaEnvironment(home) {
  return {
    PATH: [join(home, "bin"), process.env.PATH].join(delimiter),
    CUDA_HOME: home,
    CUDA_PATH: home,
    CUDA_ROOT: home,
    CUDA_TOOLKIT_ROOT_DIR: home,
    CUDA_COMPUTE_CAP: process.env.CUDA_COMPUTE_CAP || computeCapability,
    // cudarc knows the toolkits that were there when it was released, and refuses one that is newer.
    CUDARC_CUDA_VERSION: process.env.CUDARC_CUDA_VERSION || "13000",
    LIBRARY_PATH: [driverToLink(), process.env.LIBRARY_PATH].filter(Boolean).join(delimiter),
  };
}

/**
 * Where a program that is linked with CUDA finds its libraries, and whether the driver among them is the machine's or
 * the stub.
 */
export function cudaLibraries(home) {
  const real = execFileSync("/sbin/ldconfig", ["-p"], { encoding: "utf8" }).includes("libcuda.so.1 ");
  const folders = [join(home, "lib64"), ...(real ? [] : [stubs]), process.env.LD_LIBRARY_PATH];
  return { driver: real ? "real" : "stub", path: folders.filter(Boolean).join(delimiter) };
}

/**
 * A folder with a libcuda.so to link with. The driver's own is only where a GPU is, so this one has every function that
 * cudarc may call, and each says "no device" (CUDA_ERROR_NO_DEVICE, 100). Without the names in it the linker would
 * leave the driver out of what the addon asks for.
 */
function driverToLink() {
  const library = join(stubs, "libcuda.so.1");
  if (existsSync(library)) return stubs;
  mkdirSync(stubs, { recursive: true });
  const metadata = JSON.parse(
    execFileSync("cargo", ["metadata", "--format-version=1", "--all-features"], { cwd: root, encoding: "utf8", maxBuffer: 1 << 28 }),
  );
  const cudarc = metadata.packages.find(({ name }) => name === "cudarc");
  const bindings = readFileSync(join(dirname(cudarc.manifest_path), "src", "driver", "sys", "mod.rs"), "utf8");
  const functions = new Set([...bindings.matchAll(/\bfn (cu[A-Z]\w*)\s*\(/g)].map((match) => match[1]));
  const source = join(stubs, "libcuda.c");
  writeFileSync(source, [...functions].map((name) => `int ${name}(void) { return 100; }\n`).join(""));
  execFileSync("cc", ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", `${library}.${process.pid}`, source], { stdio: "inherit" });
  renameSync(`${library}.${process.pid}`, library);
  symlinkSync("libcuda.so.1", join(stubs, "libcuda.so"));
  return stubs;
}
