import type { Command } from "commander";
import { addAdapter } from "./adapter.js";
import { addAnswer } from "./answer.js";
import { addChat } from "./chat.js";
import { addClassify, addSentiment } from "./classify.js";
import { addDemo } from "./demo.js";
import { addEmbed } from "./embed.js";
import { addEntities } from "./entities.js";
import { addEvaluate } from "./evaluate.js";
import { addFill } from "./fill.js";
import { addGenerate } from "./generate.js";
import { addRerank } from "./rerank.js";
import { addServe } from "./serve.js";
import { addTokenizer } from "./tokenizer.js";
import { addTrain } from "./train.js";
import { addTranslate } from "./translate.js";

/** Every command, in the order of `--help`: each function adds its own to the program. */
export const commands: readonly ((program: Command) => void)[] = [
  addDemo,
  addGenerate,
  addChat,
  addTranslate,
  addSentiment,
  addClassify,
  addEmbed,
  addFill,
  addEntities,
  addAnswer,
  addRerank,
  addServe,
  addTrain,
  addEvaluate,
  addTokenizer,
  addAdapter,
];
