import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { packageRoot } from "../package.js";
import { commands } from "./commands.js";

/**
 * The command line as a whole. A command that cannot be read throws a `CommanderError`, after its message was printed.
 */
export function createProgram(): Command {
  const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
  const program = new Command("candlewick")
    .description("BERT and GPT-2 on this machine.")
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this")
    .showHelpAfterError("--help lists the options.")
    .showSuggestionAfterError()
    .exitOverride();
  for (const add of commands) add(program);
  return program;
}
