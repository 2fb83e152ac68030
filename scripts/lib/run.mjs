// Child processes: run one to its end and say how it ended.
import { spawn } from "node:child_process";
import { root } from "./paths.mjs";

/**
 * Runs a program with the terminal as its own; resolves to its exit code (128 + n when a signal ended it, 127 when it
 * could not start). With `onLine`, standard output is passed on as it comes and also handed over line by line.
 */
export function run(command, args, { env, onLine, cwd = root, quiet = false } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", onLine ? "pipe" : "inherit", "inherit"],
    });
    const forward = (signal) => child.kill(signal);
    process.on("SIGINT", forward).on("SIGTERM", forward);

    let rest = "";
    child.stdout?.setEncoding("utf8").on("data", (chunk) => {
      if (!quiet) process.stdout.write(chunk);
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines) onLine(line);
    });

    const done = (code) => {
      process.off("SIGINT", forward).off("SIGTERM", forward);
      if (rest) onLine?.(rest);
      resolve(code);
    };
    child.on("error", (error) => {
      console.error(`${command}: ${error.message}`);
      done(127);
    });
    child.on("close", (code, signal) => done(code ?? 128 + (signal === "SIGINT" ? 2 : 15)));
  });
}

/** The standard output of a program, or undefined when it cannot start or fails. */
export async function output(command, args) {
  const lines = [];
  const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "ignore"] });
  child.stdout.setEncoding("utf8").on("data", (chunk) => lines.push(chunk));
  return new Promise((resolve) => {
    child.on("error", () => resolve(undefined));
    child.on("close", (code) => resolve(code === 0 ? lines.join("") : undefined));
  });
}

/** In CI a Cargo.lock that does not fit the manifests is an error; at a desk cargo brings it up to date. */
export const locked = process.env.CI ? ["--locked"] : [];
