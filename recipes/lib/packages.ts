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

/** A folder in the cache that `fetch` fills, the first time; it is there whole or not at all. */
export async function once(name: string, fetch: (folder: string) => Promise<void>): Promise<string> {
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

/** A Python with the wheels that a script needs. */
export const python = (...wheels: string[]): Promise<string> =>
  once(`python-${wheels.join("-")}`, async (folder) => {
    await exec(process.env["PYTHON"] ?? "python3", ["-m", "venv", folder]);
    await exec(join(folder, "bin/python"), ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", ...wheels]);
  }).then((folder) => join(folder, "bin/python"));

const only = async (folder: string, ending: string): Promise<string> => {
  const names = (await readdir(folder)).filter((name) => name.endsWith(ending));
  if (names.length !== 1) throw new Error(`${folder}: ${names.length} files that end in ${ending}`);
  return join(folder, names[0]!);
};

/** Debian packages, of the release that this machine has; the files of each from the root on. */
export async function debian(...names: string[]): Promise<string[]> {
  const missing = names.filter((name) => !existsSync(join(packages, `debian-${name}`)));
  await mkdir(packages, { recursive: true });
  const aside = await mkdtemp(join(packages, ".fetch-"));
  try {
    // One call for all: apt takes seconds to read its lists.
    if (missing.length > 0) await exec("apt-get", ["download", "-qq", ...missing], { cwd: aside });
    const files = await readdir(aside);
    return await Promise.all(
      names.map((name) =>
        once(`debian-${name}`, async (folder) => {
          await exec("dpkg", ["-x", join(aside, files.find((file) => file.startsWith(`${name}_`))!), folder]);
        }),
      ),
    );
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

/** A wheel's files, or with `source` those of the source distribution. */
export const pypi = (name: string, version: string, { source = false } = {}): Promise<string> =>
  once(`pypi-${name}-${version}`, async (folder) => {
    const python = process.env["PYTHON"] ?? "python3";
    const kind = source ? ["--no-binary", name] : ["--only-binary", ":all:"];
    await exec(python, ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", ...kind, `${name}==${version}`], { cwd: folder });
    const file = await only(folder, source ? ".tar.gz" : ".whl");
    if (source) await exec("tar", ["xzf", file, "-C", folder, "--strip-components=1"]);
    else await exec(python, ["-m", "zipfile", "-e", file, folder]);
    await rm(file);
  });
