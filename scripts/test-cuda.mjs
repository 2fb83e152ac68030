// `npm run test:cuda`: builds the CUDA addon and runs, on the first GPU, what compares the models with PyTorch: logits,
// greedy text, states and embeddings; from Rust, then from TypeScript with that addon. Without a GPU
// everything is built and linked, each test says that it skips CUDA, and the rest of it runs on the CPU.
//   npm run test:cuda -- --bundle [DIR]     instead writes cuda-kit.tar.xz into DIR (default target/): what tests and
//                                           measures everything through the API where there is a GPU and no Node
//   npm run test:cuda -- --bundle --built   the same of what is built already
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { buildCuda } from "./build-cuda.mjs";
import { build, BuildError, orExplain } from "./build.mjs";
import { hasDriver } from "./lib/cuda.mjs";
import { at } from "./lib/paths.mjs";
import { run } from "./lib/run.mjs";
import { typescriptTests } from "./test.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { bundle: { type: "boolean", default: false }, built: { type: "boolean", default: false } },
});

async function tests() {
  const { addon, env } = await buildCuda();
  if (!hasDriver()) console.error("\nThere is no NVIDIA driver here: the tests skip CUDA.\n");
  const files = ["devices", "gpt2", "bert"].flatMap((name) => ["--test", name]);
  const rust = await run("cargo", ["test", "--release", "--workspace", "--features", "candlewick-node/cuda", ...files], { env });
  process.env.CANDLEWICK_NATIVE = addon;
  const failed = [await typescriptTests("cuda"), await typescriptTests("parity")].some((totals) => totals.failed > 0);
  process.exitCode = rust !== 0 || failed ? 1 : 0;
}

async function bundle() {
  const { bundleKit, kitTests } = await import("./lib/cuda-kit.mjs");
  if (!values.built) {
    await build();
    const { env } = await buildCuda();
    const model = ["--release", "--package", "candlewick-models", "--features", "cuda"];
    const programs = [["build", ...model, "--example", "cuda"], ["test", ...model, "--no-run", ...kitTests.flatMap((name) => ["--test", name])]];
    for (const args of programs) {
      if ((await run("cargo", args, { env })) !== 0) throw new BuildError("The programs of the kit did not build; cargo's message is above.");
    }
  }
  const { path, size, without } = bundleKit(positionals[0] === undefined ? at("target") : resolve(positionals[0]));
  for (const what of without) console.error(`The kit is without ${what}.`);
  console.error(`${path}: ${(size / 2 ** 20).toFixed(1)} MiB. Where the GPU is: tar -xf cuda-kit.tar.xz && bash run.sh`);
}

await orExplain(values.bundle ? bundle : tests);
