#!/usr/bin/env node
// `candlewick <command>`: one file per command, named in `commands.ts`.
import { CommanderError } from "commander";
import { CandlewickError } from "../errors.js";
import { createProgram } from "./program.js";
import { remedyOf } from "./remedies.js";
import { interrupt } from "./terminal.js";

/** What went wrong, for a person; and the exit code: 2 for a command that cannot be read, 130 after Ctrl-C, else 1. */
function explain(error: unknown): number {
  // Commander has printed its own; help and version are no failures.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof CandlewickError && error.code === "ABORTED") {
    console.error("\nStopped.");
    return 130;
  }
  if (error instanceof CandlewickError) {
    const remedy = remedyOf(error.code);
    console.error(`${error.code}: ${error.message}${remedy === undefined ? "" : `\n${remedy}`}`);
    return 1;
  }
  console.error(error);
  return 1;
}

process.once("SIGINT", interrupt);
process.once("SIGTERM", interrupt);
// The reader of the pipe has gone (`candlewick … | head`): exit without a message.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

createProgram()
  .parseAsync()
  .catch((error) => {
    process.exitCode = explain(error);
  });
