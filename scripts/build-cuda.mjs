// `npm run build:cuda`: the addon with the feature `cuda`, into the package of its own in npm/. It needs no GPU.
//   node scripts/build-cuda.mjs [--profile release|dist]
import { copyFileSync, renameSync, statSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { BuildError, compileAddon, orExplain } from "./build.mjs";
import { compileKernels, cudaToolkit, missingForCuda } from "./lib/cuda.mjs";
import { at } from "./lib/paths.mjs";
import { missingTools } from "./lib/toolchain.mjs";

/** Builds what is not up to date; returns the addon's path and the environment that cargo ran in. */
export async function buildCuda({ profile = "release" } = {}) {
  const missing = [...(await missingTools()), ...(await missingForCuda())];
  if (missing.length > 0) throw new BuildError(`The CUDA addon cannot be built here.\n\n- ${missing.join("\n- ")}\n`);
  const home = await cudaToolkit();
  if (!home) throw new BuildError("CUDA's compiler could not be fetched; pip's message is above.");
  console.error(`Building the CUDA addon with ${home}.`);
  // A target directory of its own: crates with and without the feature would take turns in one.
  const env = { CANDLEWICK_CUDA_KERNELS: compileKernels(home), CARGO_TARGET_DIR: at("target", "cuda") };
  const library = await compileAddon({ profile, features: "cuda", env });
  const addon = at("npm", "linux-x64-gnu-cuda", "candlewick.linux-x64-gnu-cuda.node");
  // Renamed into place: processes that run the old one go on with it.
  copyFileSync(library, `${addon}.${process.pid}`);
  renameSync(`${addon}.${process.pid}`, addon);
  return { addon, env };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { profile: { type: "string" } } });
  const { addon } = await orExplain(() => buildCuda(values));
  console.error(`${addon}: ${(statSync(addon).size / 2 ** 20).toFixed(1)} MiB`);
}
