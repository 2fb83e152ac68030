/** The compiled command line in a process of its own, as somebody at a shell meets it. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

const root = join(__dirname, "..", "..");
export const program = join(root, "dist", "src", "cli", "main.js");

export interface Run {
  stdin?: string;
  /** Default: the repository. */
  cwd?: string;
  main?: string;
  env?: NodeJS.ProcessEnv;
}

export async function candlewick(args: readonly string[], { stdin, cwd = root, main = program, env = process.env }: Run = {}) {
  const child = spawn(process.execPath, [main, ...args], { cwd, env, stdio: ["pipe", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (output.stderr += text));
  child.stdin.on("error", () => {});
  child.stdin.end(stdin);
  const [code] = (await once(child, "close")) as [number];
  return { code, ...output };
}

/** The lines that it writes; it must succeed, and say nothing else. */
export async function rows(args: readonly string[], run?: Run): Promise<string[]> {
  const { code, stdout, stderr } = await candlewick(args, run);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  assert.ok(!stdout.includes("\x1b"), "no bar and no colours in a pipe");
  return stdout.split("\n").slice(0, -1);
}
