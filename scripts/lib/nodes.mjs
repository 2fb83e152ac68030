// Other versions of Node, from npm's packages of Node itself, kept in the cache. Without a network there are those that
// were fetched before.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { cache } from "./paths.mjs";

const exec = promisify(execFile);

/** @typedef {{ version: string, path: string } | { version: string, problem: string }} NodeBinary */

/** By default npm asks a registry that does not answer for minutes; without a network tests are skipped. */
export const IMPATIENT = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"];

const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
const file = process.platform === "win32" ? "node.exe" : "node";
const folder = join(cache, "node");
const binary = (/** @type {string} */ version) => join(folder, version, file);

const released = (/** @type {string} */ version) => /^\d+\.\d+\.\d+$/.test(version);
const newestFirst = (/** @type {string} */ a, /** @type {string} */ b) => {
  const [x, y] = [a.split(".").map(Number), b.split(".").map(Number)];
  return y[0] - x[0] || y[1] - x[1] || y[2] - x[2];
};

const cached = () => (existsSync(folder) ? readdirSync(folder).filter((version) => released(version) && existsSync(binary(version))) : []);

/** All released versions of Node, or, without a network, those in the cache; the newest first. */
async function versions() {
  try {
    const { stdout } = await exec("npm", ["view", name, "versions", "--json", ...IMPATIENT], { maxBuffer: 1 << 24 });
    return JSON.parse(stdout).filter(released).toSorted(newestFirst);
  } catch {
    return cached().toSorted(newestFirst);
  }
}

/**
 * Takes the one file out of the package: it has thousands of others, which npm would write too.
 *
 * @returns {Promise<NodeBinary>}
 */
async function fetchNode(/** @type {string} */ version) {
  const path = binary(version);
  if (existsSync(path)) return { version, path };
  mkdirSync(folder, { recursive: true });
  const work = mkdtempSync(join(folder, ".fetch-"));
  try {
    await exec("npm", ["pack", "--silent", ...IMPATIENT, "--ignore-scripts", "--pack-destination", work, `${name}@${version}`]);
    const tarball = readdirSync(work).find((entry) => entry.endsWith(".tgz"));
    await exec("tar", ["-xzf", join(work, String(tarball)), "-C", work, `package/bin/${file}`]);
    mkdirSync(join(folder, version), { recursive: true });
    renameSync(join(work, "package", "bin", file), path);
    return { version, path };
  } catch (error) {
    return { version, problem: /** @type {Error} */ (error).message };
  } finally {
    rmSync(work, { recursive: true });
  }
}

/**
 * The last release of Node 20, 22, 24 and the newest of all.
 *
 * @returns {Promise<NodeBinary[]>}
 */
export async function nodeBinaries() {
  const known = await versions();
  const wanted = ["20", "22", "24", ""].map((major) => known.find((version) => version.startsWith(major && `${major}.`)) ?? (major || "newest"));
  const found = [];
  for (const version of new Set(wanted)) {
    found.push(known.includes(version) ? await fetchNode(version) : { version, problem: `no release of ${name} found` });
  }
  return found;
}

/**
 * The path of some Node of this major version: this one, the newest in the cache, else the last release; undefined
 * where there is none and no network.
 *
 * @returns {Promise<string | undefined>}
 */
export async function nodeOfMajor(/** @type {number} */ major) {
  const fits = (/** @type {string} */ version) => version.startsWith(`${major}.`);
  if (fits(process.versions.node)) return process.execPath;
  const version = cached().toSorted(newestFirst).find(fits) ?? (await versions()).find(fits);
  const found = version && (await fetchNode(version));
  return found && "path" in found ? found.path : undefined;
}
