/** Runs the programs that call the real clients, each in a process of its own, with the Node that the client needs. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import type { Servers } from "./servers.js";

const exec = promisify(execFile);
const root = join(__dirname, "..", "..", "..", "..", "..");

interface Installer {
  clients(): Promise<{ readonly folder: string; readonly node: string } | undefined>;
  pythonClients(): Promise<string | undefined>;
}

/** `scripts/lib/clients.mjs`. */
export const installer = () => import(pathToFileURL(join(root, "scripts", "lib", "clients.mjs")).href) as Promise<Installer>;

/** What a client's program has printed; `missing`: the client could not be had. */
export type Ran<T> = { readonly seen: T; readonly missing?: undefined } | { readonly seen?: undefined; readonly missing: string };

/** `packages`: by the names that `__test__/clients/package.json` gives them. `newNode`: they need Node 22. */
export async function runInNode<T>(servers: Servers, program: string, packages: readonly string[], newNode: boolean): Promise<Ran<T>> {
  const installed = await (await installer()).clients();
  if (!installed) return { missing: "the clients, or Node 22, could not be installed" };
  const { folder, node } = installed;
  return { seen: await run<T>(newNode ? node : process.execPath, program, servers, { folder, packages }) };
}

export async function runInPython<T>(servers: Servers, program: string): Promise<Ran<T>> {
  const python = await (await installer()).pythonClients();
  return python ? { seen: await run<T>(python, program, servers, {}) } : { missing: "there is no Python, or its openai could not be installed" };
}

async function run<T>(command: string, program: string, { url, control }: Servers, more: object): Promise<T> {
  const given = JSON.stringify({ url, control, ...more });
  const file = join(__dirname, "..", "programs", program);
  // Without a key of the user's own.
  const env = { PATH: process.env["PATH"], HOME: process.env["HOME"], SYSTEMROOT: process.env["SYSTEMROOT"], PYTHONIOENCODING: "utf-8" };
  const { stdout } = await exec(command, [file, given], { env, maxBuffer: 1 << 26, timeout: 120_000 });
  return JSON.parse(stdout.trim().split("\n").at(-1)!) as T;
}
