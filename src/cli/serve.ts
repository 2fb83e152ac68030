// `candlewick serve`: runs the server, which is a package of its own.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Command } from "commander";

const PACKAGE = "candlewick-server";

export function addServe(program: Command): void {
  program
    .command("serve")
    .summary("serve models under OpenAI's API")
    .description(`Runs ${PACKAGE}, where it is installed, with the options that follow; --help is its own.`)
    .helpOption(false)
    .allowUnknownOption()
    .argument("[options...]", `options of ${PACKAGE}`)
    .action((options: readonly string[], _: object, command: Command) => serve(options, command));
}

async function serve(options: readonly string[], command: Command): Promise<void> {
  const main = find();
  if (main === undefined) {
    const help = options.some((option) => option === "--help" || option === "-h");
    if (help) command.outputHelp();
    console.error(`The server is a package of its own:\n\n  npm install ${PACKAGE}\n`);
    process.exitCode = help ? 0 : 1;
    return;
  }
  const child = spawn(process.execPath, [main, ...options], { stdio: "inherit" });
  // It ends by itself when it is told to; the terminal tells both.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  const [code] = (await once(child, "exit")) as [number | null];
  process.exitCode = code ?? 1;
}

/** The server's program: beside this package, or where the command runs. */
function find(): string | undefined {
  for (const from of [__filename, join(process.cwd(), "package.json")]) {
    try {
      return createRequire(from).resolve(`${PACKAGE}/cli`);
    } catch {
      // In the next place, perhaps.
    }
  }
  return undefined;
}
