// Builds what is not up to date: the native addon (Rust → native/) and the TypeScript (→ dist/).
//   node scripts/build.mjs [native|ts] [--force] [--profile NAME] [--features LIST]    --prepare: npm's hook
// Up to date means: the contents of the sources hash to what the last build wrote into its stamp.
import { existsSync, rmSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { filesUnder, fingerprint, readStamp, writeStamp } from "./lib/fingerprint.mjs";
import { at, tool } from "./lib/paths.mjs";
import { locked, output, run } from "./lib/run.mjs";
import { missingTools } from "./lib/toolchain.mjs";

const nativeStamp = at("native", ".stamp");
const tsStamp = at("dist", ".stamp");

/** Rust tests and benchmarks are no part of the addon: changing them rebuilds nothing here. */
const inAddon = (path) => /\.(rs|toml|lock|cu|json)$/.test(path) && !/[/\\](tests|benches|examples)[/\\]/.test(path);
const rustFiles = () => ["crates", "Cargo.toml", "Cargo.lock"].flatMap((name) => filesUnder(at(name), inAddon));
const tsFiles = () => ["index.ts", "index.mts", "src", "tsconfig.json", "tsconfig.build.json", "native/binding.d.cts"].flatMap((name) => filesUnder(at(name)));

class BuildError extends Error {}

/** `profile`: one for everything ("release"), so that Candle compiles once; "dist" is what gets published. */
export async function buildNative({ force = false, profile = "release", features = "" } = {}) {
  const sources = fingerprint(rustFiles(), [profile, features, process.platform, process.arch]);
  const compiler = await output("rustc", ["-vV"]);
  const stamp = JSON.stringify({ sources, compiler });
  if (!force && existsSync(at("native", "binding.cjs"))) {
    const last = JSON.parse(readStamp(nativeStamp) ?? "{}");
    // A built addon goes on working on a machine that has lost its compiler.
    if (last.sources === sources && (compiler === undefined || last.compiler === compiler)) return false;
  }
  const missing = await missingTools();
  if (missing.length > 0) {
    throw new BuildError(`Candlewick is built from source here, and something is missing.\n\n- ${missing.join("\n- ")}\n`);
  }

  if (!existsSync(at("target", profile))) {
    console.error("Building the native addon. The first time compiles Candle: about five minutes on 2 cores.");
  } else {
    console.error("Building the native addon.");
  }
  rmSync(nativeStamp, { force: true });
  const code = await run(process.execPath, [
    tool.napi, "build", "--platform", "--profile", profile,
    "--manifest-path", "crates/node/Cargo.toml", "--package-json-path", "package.json", "--target-dir", "target",
    "--output-dir", "native", "--js", "binding.cjs", "--dts", "binding.d.cts",
    ...(features ? ["--features", features] : []),
    ...(locked.length > 0 ? ["--", ...locked] : []),
  ]);
  if (code !== 0) throw new BuildError(`The native addon did not build (exit code ${code}); the compiler's message is above.`);
  writeStamp(nativeStamp, stamp);
  return true;
}

export async function buildTs({ force = false } = {}) {
  const key = fingerprint(tsFiles());
  if (!force && readStamp(tsStamp) === key) return false;
  rmSync(at("dist"), { recursive: true, force: true });
  const code = await run(process.execPath, [tool.tsc, "-p", "tsconfig.build.json"]);
  if (code !== 0) throw new BuildError("The TypeScript did not compile; the messages are above.");
  writeStamp(tsStamp, key);
  return true;
}

export async function build(options = {}) {
  const native = await buildNative(options);
  const ts = await buildTs(options);
  return native || ts;
}

/** Runs `work`; a failed build ends the process with its message alone, without a stack. */
export async function orExplain(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    console.error(`\n${error.message}`);
    process.exit(1);
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      prepare: { type: "boolean" },
      force: { type: "boolean" },
      profile: { type: "string" },
      features: { type: "string" },
    },
  });
  if (values.prepare) {
    // `npm ci` in a checkout builds; in any other copy of the package, or without the tools, there is nothing to do.
    const checkout = existsSync(at(".git")) && existsSync(at("crates", "node", "Cargo.toml"));
    if (!checkout || !existsSync(tool.napi) || process.env.CANDLEWICK_SKIP_BUILD) return;
  }
  const [what] = positionals;
  const work = { native: buildNative, ts: buildTs, undefined: build }[String(what)];
  if (!work) throw new BuildError(`build what? "native", "ts" or nothing for both, not "${what}"`);
  const built = await work(values);
  if (!built && !values.prepare) console.error("Up to date.");
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await orExplain(main);
