// The real clients that Candlewick is called with in tests: those of __test__/clients/package.json, and Python's
// openai. They are installed into the cache once for each lock file, by the ordinary npm and pip. Who asks gets
// `undefined` where there is no network, and says that its tests are skipped.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { IMPATIENT, nodeOfMajor } from "./nodes.mjs";
import { at, cache } from "./paths.mjs";

const exec = promisify(execFile);

/** What Python's venv gets. */
const PYTHON_PACKAGES = ["openai==3.*"];

/**
 * `folder` has the clients in its node_modules: a program resolves them if it lies in `folder`, or asks
 * `createRequire(join(folder, "package.json"))`. `node` is a Node 22, which ai 7 needs.
 *
 * @typedef {{ folder: string, node: string }} Clients
 */

/**
 * The clients for JavaScript, installed; undefined without a network.
 *
 * @returns {Promise<Clients | undefined>}
 */
export async function clients() {
  const source = at("__test__", "clients");
  const hash = createHash("sha256").update(readFileSync(join(source, "package.json"))).update(readFileSync(join(source, "package-lock.json")));
  const folder = join(cache, "clients", hash.digest("hex").slice(0, 16));
  const ready = await once(folder, async (fresh) => {
    for (const file of ["package.json", "package-lock.json"]) cpSync(join(source, file), join(fresh, file));
    // By Node's own npm: Windows runs no .cmd without a shell.
    const npm = process.env.npm_execpath?.endsWith("npm-cli.js") ? [process.execPath, process.env.npm_execpath] : ["npm"];
    const [command, ...first] = npm;
    await exec(command, [...first, "ci", "--ignore-scripts", "--no-audit", "--no-fund", ...IMPATIENT], { cwd: fresh, maxBuffer: 1 << 24, shell: process.platform === "win32" });
  });
  const node = ready && (await nodeOfMajor(22));
  return node ? { folder, node } : undefined;
}

/**
 * The path of a Python that imports `openai`; undefined without a network, or without a Python.
 *
 * @returns {Promise<string | undefined>}
 */
export async function pythonClients() {
  const hash = createHash("sha256").update(PYTHON_PACKAGES.join("\n")).digest("hex").slice(0, 16);
  const folder = join(cache, "clients-python", hash);
  const [system, inside] = process.platform === "win32" ? ["python", ["Scripts", "python.exe"]] : ["python3", ["bin", "python"]];
  // A venv may be renamed: its python finds its packages by its own path; only the scripts beside it name the old one.
  const ready = await once(folder, async (fresh) => {
    await exec(system, ["-m", "venv", fresh]);
    await exec(join(fresh, ...inside), ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20", ...PYTHON_PACKAGES], { maxBuffer: 1 << 24 });
  });
  return ready ? join(folder, ...inside) : undefined;
}

/**
 * Whether `folder` is there, made by `make` if it was not. It is made aside and renamed, so that it is whole or absent;
 * of two processes that make it at once, the first to be done counts.
 *
 * @param {string} folder
 * @param {(fresh: string) => Promise<void>} make
 */
async function once(folder, make) {
  if (existsSync(folder)) return true;
  mkdirSync(join(folder, ".."), { recursive: true });
  const fresh = mkdtempSync(`${folder}.making-`);
  try {
    await make(fresh);
    renameSync(fresh, folder);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    if (existsSync(folder)) return true;
    console.error(`The clients for tests could not be installed: ${/** @type {Error} */ (error).message.split("\n")[0]}`);
    return false;
  }
  return true;
}
