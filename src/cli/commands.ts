import type { Command } from "commander";
import { addAnswer } from "./answer.js";
import { addClassify } from "./classify.js";
import { addEmbed } from "./embed.js";
import { addEntities } from "./entities.js";
import { addEvaluate } from "./evaluate.js";
import { addFill } from "./fill.js";
import { addGenerate } from "./generate.js";
import { addRerank } from "./rerank.js";
import { addTokenizer } from "./tokenizer.js";
import { addTrain } from "./train.js";

/** Every command, in the order of `--help`: each function adds its own to the program. */
export const commands: readonly ((program: Command) => void)[] = [
  addGenerate,
  addEmbed,
  addClassify,
  addFill,
  addEntities,
  addAnswer,
  addRerank,
  addTrain,
  addEvaluate,
  addTokenizer,
];
