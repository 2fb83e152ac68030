// A Rust compiler with a standard library for 64-bit ARM: this one's, where rustup has the target, or Debian's, taken
// out of its packages into the cache. Nothing is installed.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cache } from "./paths.mjs";
import { output } from "./run.mjs";

export const target = "aarch64-unknown-linux-gnu";
const linker = "aarch64-linux-gnu-gcc";
const emulator = "qemu-aarch64";

/**
 * Debian's newest Rust, which its browsers are built with: rustc, and its standard library for the host and for ARM.
 */
const packages = ["rustc-web", "libstd-rust-web-dev", "libstd-rust-web-dev:arm64"];

const read = (command, ...args) => execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });

async function hasRustupTarget() {
  return ((await output("rustup", ["target", "list", "--installed"])) ?? "").split("\n").includes(target);
}

/** What is missing, each as a paragraph that ends with what to type. */
export async function missingForArm64() {
  const missing = [];
  if ((await output(linker, ["--version"])) === undefined) {
    missing.push(`A linker for ARM (${linker}) was not found:\n    sudo apt-get install gcc-aarch64-linux-gnu`);
  }
  if ((await output(emulator, ["--version"])) === undefined) {
    missing.push(`An emulator (${emulator}) was not found:\n    sudo apt-get install qemu-user`);
  }
  if (await hasRustupTarget()) return missing;
  if ((await output("apt-get", ["--version"])) === undefined) {
    missing.push(`Rust's standard library for ARM was not found:\n    rustup target add ${target}`);
  } else if (candidate("libstd-rust-web-dev:arm64") === undefined) {
    missing.push(
      `Rust's standard library for ARM was not found. Either of:\n    rustup target add ${target}\n` +
        "    sudo dpkg --add-architecture arm64 && sudo apt-get update     (Debian's is taken from its packages then)",
    );
  }
  return missing;
}

/** The version of a package that apt would install. */
function candidate(name) {
  const version = /Candidate: (\S+)/.exec(read("apt-cache", "policy", name))?.[1];
  return version === "(none)" ? undefined : version;
}

/**
 * The one package that `name` depends on whose name begins with `start` and a digit: libraries carry their version
 * there.
 */
function dependency(name, start) {
  const depends = [...read("apt-cache", "depends", "--important", name).matchAll(/Depends: (\S+)/g)].map((match) => match[1]);
  return depends.find((depended) => depended.startsWith(start) && /\d/.test(depended.at(start.length) ?? ""));
}

/** The environment for cargo to compile for ARM and to run what it compiled. */
export async function arm64Environment() {
  const name = target.toUpperCase().replaceAll("-", "_");
  const run = {
    [`CARGO_TARGET_${name}_LINKER`]: linker,
    [`CARGO_TARGET_${name}_RUNNER`]: `${emulator} -L /usr/aarch64-linux-gnu`,
  };
  if (await hasRustupTarget()) return run;
  const usr = debianRust();
  // Debian's host libraries, for rustc alone: an LLVM among them.
  const environment = { ...run, RUSTC: join(usr, "bin", "rustc"), RUSTDOC: join(usr, "bin", "rustdoc"), LD_LIBRARY_PATH: join(usr, "lib", "x86_64-linux-gnu") };
  execFileSync(environment.RUSTC, ["-vV"], { env: { ...process.env, ...environment }, stdio: ["ignore", "ignore", "inherit"] });
  return environment;
}

/** Debian's compiler under the cache, fetched the first time: 150 MB. Returns its `usr`. */
function debianRust() {
  const folder = join(cache, "aarch64", `rust-${candidate("rustc-web").replaceAll(/[^\w.+~-]/g, "_")}`);
  if (existsSync(folder)) return join(folder, "usr");
  console.error(`Fetching Debian's Rust for ARM into ${folder} (150 MB, once).`);
  const library = dependency("libstd-rust-web-dev", "libstd-rust-web-");
  const all = [...packages, library, dependency(library, "libllvm")];
  mkdirSync(join(cache, "aarch64"), { recursive: true });
  const work = mkdtempSync(join(cache, "aarch64", ".fetch-"));
  try {
    execFileSync("apt-get", ["download", "-q", ...all], { cwd: work, stdio: ["ignore", "ignore", "inherit"] });
    for (const file of readdirSync(work)) execFileSync("dpkg", ["-x", join(work, file), join(work, "root")]);
    renameSync(join(work, "root"), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return join(folder, "usr");
}
