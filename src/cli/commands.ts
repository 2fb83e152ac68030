import type { Command } from "commander";
import { addEvaluate } from "./evaluate.js";
import { addGenerate } from "./generate.js";
import { addTokenizer } from "./tokenizer.js";

/** Every command, in the order of `--help`: each function adds its own to the program. */
export const commands: readonly ((program: Command) => void)[] = [addGenerate, addEvaluate, addTokenizer];
