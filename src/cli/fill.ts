// `candlewick fill`: words for masks.
import type { Command } from "commander";
import type { Fill, FillMaskResult } from "../pipelines/fill-mask.js";
import { number, several } from "./arguments.js";
import { textOf } from "./input.js";
import { runRows, withRowOptions, type RowArguments } from "./rows.js";

interface Arguments extends RowArguments {
  topK?: number;
  target?: string[];
}

export function addFill(program: Command): void {
  const command = program
    .command("fill")
    .summary("words for [MASK]s")
    .description("Writes, for each mask of each text, the likeliest words: score, word, and the text with it.")
    .argument("[text...]", "texts, if they are not read from files or standard input")
    .option("-k, --top-k <n>", "how many words for a mask (default: 5)", number)
    .option("-t, --target <word>", "look at this word only; may be repeated", several(String))
    .addHelpText("after", '\nFor instance: candlewick fill -m bert-base-uncased "Paris is the [MASK] of France."');
  withRowOptions(command).action((texts: string[], options: Arguments) => {
    const { topK, target: targets } = options;
    return runRows<string, FillMaskResult>({
      texts,
      options,
      read: textOf,
      task: (model) => ({ stream: (inputs, call) => model.fillMask.stream(inputs, { ...call, topK, targets }) }),
      text: (result) => masksOf(result).map((fills) => fills.map(line).join("\n")).join("\n\n"),
      json: (result, text) => ({ text, masks: masksOf(result) }),
    });
  });
}

const masksOf = (result: FillMaskResult): Fill[][] => (Array.isArray(result[0]) ? result : [result]) as Fill[][];
const line = ({ score, tokenText, sequence }: Fill): string => `${score.toFixed(4)}\t${tokenText}\t${sequence}`;
