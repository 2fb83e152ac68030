// Builds what is not up to date: the native addon (Rust → native/) and the TypeScript (→ dist/, packages/*/dist/).
//   node scripts/build.mjs [native|ts] [--force] [--profile NAME] [--features LIST]    --prepare: npm's hook
// Up to date means: the contents of the sources hash to what the last build wrote into its stamp.
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { filesUnder, fingerprint, readStamp, writeStamp } from "./lib/fingerprint.mjs";
import { inOrder, workspaces } from "./lib/packages.mjs";
import { at, tool } from "./lib/paths.mjs";
import { thisPlatform } from "./lib/platform.mjs";
import { locked, output, run } from "./lib/run.mjs";
import { missingTools } from "./lib/toolchain.mjs";

const nativeStamp = at("native", ".stamp");

/** Rust tests and benchmarks are no part of the addon: changing them rebuilds nothing here. */
const inAddon = (path) => /\.(rs|toml|lock|cu|json)$/.test(path) && !/[/\\](tests|benches|examples)[/\\]/.test(path);
const rustFiles = () => ["crates", "Cargo.toml", "Cargo.lock"].flatMap((name) => filesUnder(at(name), inAddon));
const inPackage = (path) => /\.(m?ts|json)$/.test(path) && !/[/\\](dist|__test__)[/\\]/.test(path);
const tsFiles = () => ["index.ts", "index.mts", "src", "tsconfig.json", "tsconfig.build.json", "native/binding.d.cts"].flatMap((name) => filesUnder(at(name)));

/** A build that cannot be: its message is all that there is to say. */
export class BuildError extends Error {}

/** `profile`: one for everything ("release"), so that Candle compiles once; "dist" is what gets published. */
export async function buildNative({ force = false, profile = "release", features = "" } = {}) {
  if (!existsSync(tool.tsc)) throw new BuildError("The tools are not installed. Run `npm ci` first.");
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

  const first = existsSync(at("target", profile)) ? "" : " The first time compiles Candle: about five minutes on 2 cores.";
  console.error(`Building the native addon.${first}`);
  rmSync(nativeStamp, { force: true });
  const library = await compileWithTypes(profile, features);
  await writeBinding(library);
  writeStamp(nativeStamp, stamp);
  return true;
}

const crate = "candlewick-node";
/** Where napi's macros leave the types of what they export, when this is in their environment. */
const typeDefinitions = at("target", "napi-types");

/**
 * Compiles the binding; returns the library's path. Cargo directly, not through `napi build`: that one always names a
 * target, which puts its output into a folder of its own, so that Candle would be compiled once more for the tests.
 */
export async function compileAddon({ profile, features = "", env = {} }) {
  let library;
  const code = await run(
    "cargo",
    ["build", "--profile", profile, "--package", crate, "--message-format=json-render-diagnostics",
      ...(features ? ["--features", features] : []), ...locked],
    {
      env,
      quiet: true,
      onLine: (line) => {
        const { reason, target, filenames } = JSON.parse(line);
        if (reason === "compiler-artifact" && target.kind.includes("cdylib")) library = filenames.find((name) => /\.(so|dylib|dll)$/.test(name));
      },
    },
  );
  if (code !== 0) throw new BuildError(`The native addon did not build (exit code ${code}); the compiler's message is above.`);
  return library;
}

/** `compileAddon`, and the types of what it exports into `typeDefinitions`. */
async function compileWithTypes(profile, features) {
  mkdirSync(typeDefinitions, { recursive: true });
  // The types are written while the crate compiles, so it must compile if they are not there.
  const force = existsSync(join(typeDefinitions, crate)) ? {} : { NAPI_FORCE_BUILD_CANDLEWICK_NODE: String(Date.now()) };
  return compileAddon({ profile, features, env: { NAPI_TYPE_DEF_TMP_FOLDER: typeDefinitions, ...force } });
}

/** native/: the library under the platform's name, napi's loader, and its types. */
async function writeBinding(library) {
  const { generateTypeDef, writeJsBinding } = await import("@napi-rs/cli");
  const { name, version, napi } = JSON.parse(readFileSync(at("package.json"), "utf8"));
  const native = at("native");
  mkdirSync(native, { recursive: true });
  const addon = join(native, `${napi.binaryName}.${thisPlatform()}.node`);
  // Renamed into place: processes that run the old one go on with it.
  copyFileSync(library, `${addon}.${process.pid}`);
  renameSync(`${addon}.${process.pid}`, addon);

  const { dts, exports } = await generateTypeDef({ typeDefDir: typeDefinitions, cwd: at(), declareBindingTarget: true });
  writeFileSync(join(native, "binding.d.cts"), dts);
  await writeJsBinding({
    platform: true,
    idents: exports,
    jsBinding: "binding.cjs",
    format: "commonjs",
    binaryName: napi.binaryName,
    packageName: name,
    version,
    outputDir: native,
  });
}

export async function buildTs({ force = false } = {}) {
  const key = fingerprint(tsFiles());
  const built = await compile(".", key, force);
  // What was built of a package is checked against the types of those that it uses, so it is as old as they are.
  const keys = { candlewick: key };
  const failed = [];
  let any = built;
  for (const { name, folder, uses } of inOrder(workspaces())) {
    if (!existsSync(at(folder, "tsconfig.build.json"))) continue;
    keys[name] = fingerprint(filesUnder(at(folder), inPackage), ["candlewick", ...uses].map((used) => keys[used] ?? ""));
    try {
      any = (await compile(folder, keys[name], force)) || any;
    } catch (error) {
      if (!(error instanceof BuildError)) throw error;
      failed.push(folder);
    }
  }
  if (failed.length > 0) throw new BuildError(`The TypeScript of ${failed.join(" and ")} did not compile; the messages are above.`);
  return any;
}

/** Compiles the package in `folder` into its dist/, unless it was compiled from what `key` says. */
async function compile(folder, key, force) {
  const dist = at(folder, "dist");
  const stamp = join(dist, ".stamp");
  if (!force && readStamp(stamp) === key) return false;
  // Renamed into place: what was built last stays until there is something better.
  const fresh = at("target", `dist-${process.pid}`);
  const code = await run(process.execPath, [tool.tsc, "-p", join(folder, "tsconfig.build.json"), "--outDir", fresh]);
  if (code !== 0) {
    rmSync(fresh, { recursive: true, force: true });
    throw new BuildError("The TypeScript did not compile; the messages are above.");
  }
  writeStamp(join(fresh, ".stamp"), key);
  rmSync(dist, { recursive: true, force: true });
  renameSync(fresh, dist);
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
    if (!checkout || !existsSync(tool.tsc) || process.env.CANDLEWICK_SKIP_BUILD) return;
  }
  const [what] = positionals;
  const work = { native: buildNative, ts: buildTs, undefined: build }[String(what)];
  if (!work) throw new BuildError(`build what? "native", "ts" or nothing for both, not "${what}"`);
  const built = await work(values);
  if (!built && !values.prepare) console.error("Up to date.");
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await orExplain(main);
