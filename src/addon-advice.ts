/**
 * Why the addon cannot be loaded here, found out before anything is said: three lines, the last of which is what to
 * type.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { packageRoot } from "./package.js";

/** What is known about this process and the installation. */
export interface Facts {
  /** `process.platform` and `process.arch`. */
  readonly platform: string;
  readonly arch: string;
  /** Of Linux: glibc's version, or `"musl"`. */
  readonly libc: string | undefined;
  /** `CANDLEWICK_NATIVE`, where it is set. */
  readonly path: string | undefined;
  readonly version: string;
  /** The platform packages that are installed beside Candlewick: name → version. */
  readonly installed: Readonly<Record<string, string>>;
  /** Candlewick's own files are in a checkout, where the addon is built. */
  readonly checkout: boolean;
  /** Candlewick's files are not where its package.json is: a bundler has moved them. */
  readonly bundled: boolean;
  /** What loading said, the first reason first. */
  readonly reasons: readonly string[];
}

/** Platforms with a package, as `npm/` has them. */
const PLATFORMS: Readonly<Record<string, string>> = {
  "linux-x64": "linux-x64-gnu",
  "linux-arm64": "linux-arm64-gnu",
  "darwin-arm64": "darwin-arm64",
  "darwin-x64": "darwin-x64",
  "win32-x64": "win32-x64-msvc",
};

export function lookAround(path: string | undefined, reasons: readonly string[]): Facts {
  const { platform, arch } = process;
  const manifest = readManifest(join(packageRoot, "package.json"));
  const require = createRequire(join(packageRoot, "package.json"));
  const installed: Record<string, string> = {};
  for (const name of Object.values(PLATFORMS)) {
    try {
      installed[`candlewick-${name}`] = readManifest(require.resolve(`candlewick-${name}/package.json`)).version ?? "unknown";
    } catch {
      // Not installed.
    }
  }
  // What was copied beside this package by hand or by another package manager, for another platform.
  for (const name of list(join(packageRoot, "..")).filter((entry) => /^candlewick-(linux|darwin|win32)-/.test(entry))) {
    installed[name] ??= readManifest(join(packageRoot, "..", name, "package.json")).version ?? "unknown";
  }
  const checkout = existsSync(join(packageRoot, "crates", "node", "Cargo.toml"));
  return { platform, arch, libc: libc(), path, version: manifest.version ?? "unknown", installed, checkout, bundled: manifest.name !== "candlewick", reasons };
}

function readManifest(path: string): { name?: string; version?: string } {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as { name?: string; version?: string };
  } catch {
    return {};
  }
}

const list = (folder: string): string[] => {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
};

/** As Node reports it: glibc's version; a Linux without one has musl. */
function libc(): string | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    const report = process.report.getReport() as unknown as { header?: { glibcVersionRuntime?: string } };
    return report.header?.glibcVersionRuntime ?? "musl";
  } catch {
    return undefined;
  }
}

/** What is wrong, what was seen, and what to type. */
export function addonAdvice(facts: Facts): string {
  const { platform, arch, libc, path, version, installed, checkout, bundled, reasons } = facts;
  const here = `${platform}-${arch}`;
  const wanted = PLATFORMS[here] && `candlewick-${PLATFORMS[here]}`;
  const seen = [
    here,
    ...(libc === undefined ? [] : [libc === "musl" ? "musl" : `glibc ${libc}`]),
    `Node ${process.versions.node}`,
    `candlewick ${version}`,
    Object.keys(installed).length > 0
      ? `installed: ${Object.entries(installed).map(([name, at]) => `${name} ${at}`).join(", ")}`
      : "no addon package installed",
  ].join(", ");
  const lines = (what: string, remedy: string) => [`Cannot load the native addon: ${what}`, `Seen: ${seen}${reasons[0] ? `; ${reasons[0]}` : ""}`, remedy].join("\n");

  const install = `npm install --include=optional candlewick@${version}`;
  const glibc = reasons.map((reason) => /GLIBC_([\d.]+)' not found/.exec(reason)?.[1]).find(Boolean);
  if (path !== undefined) return lines(`CANDLEWICK_NATIVE names ${path}, which cannot be loaded`, "unset CANDLEWICK_NATIVE");
  if (bundled) {
    return lines("a bundler has moved Candlewick's files away from its package", "Leave it external: esbuild --external:candlewick, webpack externals, Next.js serverExternalPackages: [\"candlewick\"]");
  }
  if (checkout) return lines("this checkout has not been built", "npm run build");
  if (wanted === undefined) return lines(`there is no package for ${here}; there are ${Object.keys(PLATFORMS).join(", ")}`, "Run it on one of these, or build it from a checkout: npm ci");
  if (libc === "musl") return lines("this Linux has musl (Alpine), and the addon needs glibc", "Use an image with glibc: docker run node:22-slim");
  if (glibc !== undefined) return lines(`the addon needs glibc ${glibc} or newer, this system has ${libc ?? "an older one"}`, "Use a newer system: docker run node:22-slim");
  const at = installed[wanted];
  const others = Object.keys(installed).filter((name) => name !== wanted && !name.endsWith("-cuda"));
  if (at === undefined && others.length > 0) return lines(`the packages were installed on another platform (${others.join(", ")})`, "rm -rf node_modules && npm ci");
  if (at === undefined) return lines(`${wanted} is not installed (npm was told to omit optional packages, or the lock file was made on another platform)`, install);
  if (at !== version) return lines(`${wanted} has version ${at}, and candlewick ${version}`, install);
  return lines(`${wanted} is installed and does not load`, `rm -rf node_modules/${wanted} && ${install}`);
}
