import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const exec = promisify(execFile);

/** A folder that outlives the checkout: `CANDLEWICK_CACHE`, or `~/.cache/candlewick`. */
export const cache = process.env["CANDLEWICK_CACHE"] || join(homedir(), ".cache", "candlewick");

export type NodeBinary = { version: string; path: string } | { version: string; problem: string };

const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
const file = process.platform === "win32" ? "node.exe" : "node";
const folder = join(cache, "node");
const binary = (version: string) => join(folder, version, file);

const newestFirst = (a: string, b: string) => {
  const [x, y] = [a.split(".").map(Number), b.split(".").map(Number)];
  return y[0]! - x[0]! || y[1]! - x[1]! || y[2]! - x[2]!;
};

/** All released versions of Node, or, without a network, those in the cache. */
async function versions(): Promise<string[]> {
  try {
    const { stdout } = await exec("npm", ["view", name, "versions", "--json"], { maxBuffer: 1 << 24 });
    return JSON.parse(stdout);
  } catch {
    return existsSync(folder) ? readdirSync(folder) : [];
  }
}

/** Takes the one file out of the package: it has thousands of others, which npm would write too. */
async function fetchNode(version: string): Promise<NodeBinary> {
  const path = binary(version);
  if (existsSync(path)) return { version, path };
  mkdirSync(folder, { recursive: true });
  const work = mkdtempSync(join(folder, ".fetch-"));
  try {
    await exec("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", work, `${name}@${version}`]);
    const tarball = readdirSync(work).find((entry) => entry.endsWith(".tgz"))!;
    await exec("tar", ["-xzf", join(work, tarball), "-C", work, `package/bin/${file}`]);
    mkdirSync(join(folder, version), { recursive: true });
    renameSync(join(work, "package", "bin", file), path);
    return { version, path };
  } catch (error) {
    return { version, problem: (error as Error).message };
  } finally {
    rmSync(work, { recursive: true });
  }
}

/** The last release of Node 20, 22, 24 and the newest of all, from npm's packages of Node itself. */
export async function nodeBinaries(): Promise<NodeBinary[]> {
  const released = (await versions()).filter((version) => /^\d+\.\d+\.\d+$/.test(version)).toSorted(newestFirst);
  const wanted = ["20", "22", "24", ""].map(
    (major) => released.find((version) => version.startsWith(major && `${major}.`)) ?? (major || "newest"),
  );
  const found: NodeBinary[] = [];
  for (const version of new Set(wanted)) {
    const known = released.includes(version);
    found.push(known ? await fetchNode(version) : { version, problem: `no release of ${name} found` });
  }
  return found;
}
