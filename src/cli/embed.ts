// `candlewick embed`: a vector for each text.
import { Option, type Command } from "commander";
import type { EmbedOptions } from "../pipelines/embed.js";
import type { Precision, Vector } from "../pipelines/precision.js";
import { number } from "./arguments.js";
import { textOf } from "./input.js";
import { runRows, withRowOptions, type RowArguments } from "./rows.js";

interface Arguments extends RowArguments {
  pooling?: Exclude<EmbedOptions["pooling"], "none">;
  normalize?: boolean;
  prompt?: string;
  promptName?: string;
  dimensions?: number;
  precision?: Precision;
}

export function addEmbed(program: Command): void {
  const command = program
    .command("embed")
    .summary("vectors of texts")
    .description("Writes a vector for each text: its numbers, separated by spaces, or JSON lines with the text.")
    .argument("[text...]", "texts, if they are not read from files or standard input")
    .addOption(new Option("--pooling <how>", "how token vectors become one (default: the model's own)").choices(["mean", "cls", "max", "meanSqrtLength", "weightedMean", "last"]))
    .option("--normalize", "scale vectors to length 1 (default: if the model does)")
    .option("--prompt <text>", "text that goes before each text")
    .option("--prompt-name <name>", "the model's own prompt of this name")
    .option("--dimensions <n>", "numbers that are kept of each vector, for models that were trained for it (default: all)", number)
    .addOption(new Option("--precision <type>", "what vectors are made of").choices(["float32", "binary", "ubinary"]))
    .addHelpText("after", "\nFor instance: candlewick embed --json -f questions.txt -o questions.jsonl");
  withRowOptions(command, "feature-extraction").action((texts: string[], options: Arguments) => {
    const { pooling, normalize, prompt, promptName, dimensions, precision } = options;
    return runRows<string, Vector>({
      texts,
      options,
      read: textOf,
      shipped: "feature-extraction",
      task: (model) => ({ stream: (inputs, call) => model.embed.stream(inputs, { ...call, pooling, normalize, prompt, promptName, dimensions, precision }) }),
      text: (vector) => vector.join(" "),
      json: (vector, text) => ({ text, embedding: Array.from(vector) }),
    });
  });
}
