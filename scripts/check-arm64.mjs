// `npm run check:arm64`: proves the NEON kernels. Compiles crates/kernels for 64-bit ARM and runs its tests, which hold
// every instruction set equal to the reference bit for bit: on an ARM machine directly, elsewhere under QEMU, which
// emulates a CPU with the int8 dot product and, once more for the products, one without. What it can't say is how fast
// they are.
import { arm64Environment, missingForArm64, target } from "./lib/arm64.mjs";
import { at } from "./lib/paths.mjs";
import { run } from "./lib/run.mjs";

const tests = (...args) => ["test", "--release", "--package", "candlewick-kernels", "--no-fail-fast", ...args];

async function emulated() {
  const missing = await missingForArm64();
  if (missing.length > 0) {
    console.error(`The kernels for ARM cannot be tested here.\n\n- ${missing.join("\n- ")}\n`);
    return 1;
  }
  const env = { ...(await arm64Environment()), CARGO_TARGET_DIR: at("target", "arm64") };
  // An emulated thread is still there for a moment when the program has seen it end, which is what that test counts.
  const all = await run("cargo", tests("--target", target, "--", "--skip", "an_idle_pool"), { env });
  const plain = await run("cargo", tests("--target", target, "--test", "matmul"), { env: { ...env, QEMU_CPU: "cortex-a57" } });
  return all || plain;
}

process.exitCode = process.arch === "arm64" ? await run("cargo", tests()) : await emulated();
