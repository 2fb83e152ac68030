// What building from source needs, and what to type when it is missing.
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { at } from "./paths.mjs";
import { output } from "./run.mjs";

const leastNode = "20.19";

/** Puts rustup's folder on PATH: a shell opened before rustup was installed does not have it. */
function findRustup() {
  const bin = join(process.env.CARGO_HOME ?? join(homedir(), ".cargo"), "bin");
  const paths = (process.env.PATH ?? "").split(delimiter);
  if (existsSync(bin) && !paths.includes(bin)) process.env.PATH = [...paths, bin].join(delimiter);
}

/** "1.89" <= "1.95.0" */
export function atLeast(version, least) {
  const [have, want] = [version, least].map((text) => text.split(".").map(Number));
  for (let i = 0; i < want.length; i++) {
    if ((have[i] ?? 0) !== want[i]) return (have[i] ?? 0) > want[i];
  }
  return true;
}

const installRust = {
  win32: "winget install Rustlang.Rustup   (or the installer from https://rustup.rs)",
  other: "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh   (see https://rustup.rs)",
};

function linuxFamily() {
  const text = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  const ids = [...text.matchAll(/^ID(?:_LIKE)?="?([^"\n]*)"?$/gm)].flatMap((match) => match[1].split(" "));
  return ["debian", "ubuntu", "fedora", "rhel", "arch", "suse", "alpine"].find((id) => ids.includes(id));
}

export function compilerHint(platform = process.platform, family = linuxFamily()) {
  if (platform === "darwin") return "xcode-select --install";
  if (platform === "win32") {
    return 'winget install Microsoft.VisualStudio.2022.BuildTools, with the workload "Desktop development with C++"';
  }
  switch (family) {
    case "debian":
    case "ubuntu": return "sudo apt-get install build-essential";
    case "fedora":
    case "rhel": return "sudo dnf install gcc gcc-c++ make";
    case "arch": return "sudo pacman -S base-devel";
    case "suse": return "sudo zypper install gcc gcc-c++ make";
    case "alpine": return "sudo apk add build-base";
    default: return "your distribution's package for gcc or clang";
  }
}

async function hasCompiler() {
  if (process.platform === "win32") {
    // Cargo finds MSVC through the Visual Studio installer, not through PATH; so does this.
    const vswhere = join(
      process.env["ProgramFiles(x86)"] ?? "C:\\Program Files (x86)",
      "Microsoft Visual Studio/Installer/vswhere.exe",
    );
    const tools = "Microsoft.VisualStudio.Component.VC.Tools.*";
    return Boolean((await output(vswhere, ["-products", "*", "-requires", tools, "-property", "installationPath"]))?.trim());
  }
  for (const name of [process.env.CC, "cc", "gcc", "clang"]) {
    if (name && (await output(name, ["--version"])) !== undefined) return true;
  }
  return false;
}

/** What is missing, each as a paragraph that ends with what to type. Empty when the addon can be built. */
export async function missingTools() {
  findRustup();
  const missing = [];
  if (!atLeast(process.versions.node, leastNode)) {
    missing.push(`Node ${leastNode} or newer is needed; this is ${process.versions.node}.`);
  }
  const install = installRust[process.platform] ?? installRust.other;
  const [cargo, rustc] = [await output("cargo", ["--version"]), await output("rustc", ["--version"])];
  const least = /^rust-version = "(.*)"/m.exec(readFileSync(at("Cargo.toml"), "utf8"))[1];
  if (cargo === undefined || rustc === undefined) {
    missing.push(`Rust (cargo) was not found. Install Rust ${least} or newer, then open a new terminal:\n    ${install}`);
  } else if (!atLeast(rustc.split(" ")[1], least)) {
    missing.push(`Rust ${least} or newer is needed; this is ${rustc.trim()}.\n    rustup update stable   (or: ${install})`);
  }
  if (!(await hasCompiler())) {
    missing.push(`A C compiler (the linker, and the tokenizer's regular expressions) was not found:\n    ${compilerHint()}`);
  }
  return missing;
}
