// `npm run test:cuda`: builds the CUDA addon and runs, on the first GPU, what compares the models with PyTorch: logits,
// greedy text, states and embeddings; from Rust, then from TypeScript with that addon. Without a GPU
// everything is built and linked, each test says that it skips CUDA, and the rest of it runs on the CPU.
import { buildCuda } from "./build-cuda.mjs";
import { orExplain } from "./build.mjs";
import { hasDriver } from "./lib/cuda.mjs";
import { run } from "./lib/run.mjs";
import { typescriptTests } from "./test.mjs";

await orExplain(async () => {
  const { addon, env } = await buildCuda();
  if (!hasDriver()) console.error("\nThere is no NVIDIA driver here: the tests skip CUDA.\n");
  const files = ["devices", "gpt2", "bert"].flatMap((name) => ["--test", name]);
  const rust = await run("cargo", ["test", "--release", "--workspace", "--features", "candlewick-node/cuda", ...files], { env });
  process.env.CANDLEWICK_NATIVE = addon;
  const failed = [await typescriptTests("cuda"), await typescriptTests("parity")].some((totals) => totals.failed > 0);
  process.exitCode = rust !== 0 || failed ? 1 : 0;
});
