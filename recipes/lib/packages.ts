/** Packages of Debian, PyPI and npm as files: fetched by name and version into the cache once, and unpacked there. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const exec = promisify(execFile);

export const cache = join(process.env["CANDLEWICK_CACHE"] ?? join(homedir(), ".cache", "candlewick"), "recipes");
const packages = join(cache, "packages");

/** Unpacks what `fetch` leaves in a folder; the result is there whole or not at all. */
async function once(name: string, fetch: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(packages, name);
  if (existsSync(folder)) return folder;
  await mkdir(packages, { recursive: true });
  const aside = await mkdtemp(join(packages, ".fetch-"));
  try {
    await fetch(aside);
    await rename(aside, folder);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  return folder;
}

const only = async (folder: string, ending: string): Promise<string> => {
  const names = (await readdir(folder)).filter((name) => name.endsWith(ending));
  if (names.length !== 1) throw new Error(`${folder}: ${names.length} files that end in ${ending}`);
  return join(folder, names[0]!);
};

/** A Debian package, of the release that this machine has; its files from the root on. */
export const debian = (name: string): Promise<string> =>
  once(`debian-${name}`, async (folder) => {
    await exec("apt-get", ["download", "-qq", name], { cwd: folder });
    const file = await only(folder, ".deb");
    await exec("dpkg", ["-x", file, folder]);
    await rm(file);
  });

/** A wheel's files, or with `source` those of the source distribution. */
export const pypi = (name: string, version: string, { source = false } = {}): Promise<string> =>
  once(`pypi-${name}-${version}`, async (folder) => {
    const python = process.env["PYTHON"] ?? "python3";
    const kind = source ? ["--no-binary", ":all:", "--no-build-isolation"] : ["--only-binary", ":all:"];
    await exec(python, ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", ...kind, `${name}==${version}`], { cwd: folder });
    const file = await only(folder, source ? ".tar.gz" : ".whl");
    if (source) await exec("tar", ["xzf", file, "-C", folder, "--strip-components=1"]);
    else await exec(python, ["-m", "zipfile", "-e", file, folder]);
    await rm(file);
  });
