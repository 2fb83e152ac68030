// `candlewick entities`: names and whatever else a model finds in texts.
import { Option, type Command } from "commander";
import type { AggregationStrategy, EntityGroup, TokenEntity } from "../pipelines/entities.js";
import { number } from "./arguments.js";
import { textOf } from "./input.js";
import { runRows, withRowOptions, type RowArguments } from "./rows.js";

interface Arguments extends RowArguments {
  aggregation: AggregationStrategy;
  stride?: number;
}

export function addEntities(program: Command): void {
  const command = program
    .command("entities")
    .summary("names in texts")
    .description("Writes the entities of each text: kind, score, where it stands (in UTF-16 code units), and what is written there.")
    .argument("[text...]", "texts, if they are not read from files or standard input")
    .addOption(new Option("--aggregation <how>", "how tokens become entities").choices(["none", "simple", "first", "average", "max"]).default("simple"))
    .option("--stride <n>", "read long texts in windows that overlap by so many tokens, instead of cutting them", number)
    .addHelpText("after", "\nFor instance: candlewick entities -m ./ner --stride 64 --from whole -f article.txt");
  withRowOptions(command).action((texts: string[], options: Arguments) => {
    const { aggregation: aggregationStrategy, stride } = options;
    return runRows<string, (TokenEntity | EntityGroup)[]>({
      texts,
      options,
      read: textOf,
      task: (model) => ({ stream: (inputs, call) => model.entities.stream(inputs, { ...call, aggregationStrategy, stride }) }),
      text: (found) => found.map(line).join("\n"),
      json: (entities, text) => ({ text, entities }),
    });
  });
}

const line = (one: TokenEntity | EntityGroup): string =>
  [("entity" in one ? one.entity : one.entityGroup), one.score.toFixed(4), `${one.start}-${one.end}`, one.text].join("\t");
