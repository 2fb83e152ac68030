import type { Command } from "commander";
import { addGenerate } from "./generate.js";

/** Every command, in the order of `--help`: each function adds its own to the program. */
export const commands: readonly ((program: Command) => void)[] = [addGenerate];
