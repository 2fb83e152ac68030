// `candlewick tokenizer`: a tokenizer trained on texts.
import { Option, type Command } from "commander";
import type { TrainTokenizerOptions } from "../tokenizer-training.js";
import { number, several } from "./arguments.js";
import { merged, readConfig } from "./config.js";
import { library } from "./library.js";
import { Progress } from "./progress.js";
import { signal, write } from "./terminal.js";

interface Arguments {
  config?: string;
  type?: string;
  output?: string;
  vocabularySize?: number;
  minFrequency?: number;
  lowercase?: boolean;
  alphabet?: number;
  specialToken?: string[];
  format?: string;
  column?: string;
  json?: boolean;
}

export function addTokenizer(program: Command): void {
  program
    .command("tokenizer")
    .summary("train a tokenizer on texts")
    .description("Writes tokenizer.json and the vocabulary of a GPT-2 or a BERT, as they load here and in transformers.")
    .argument("[files...]", "plain text, or JSON lines, CSV or TSV with a column of texts")
    .option("--config <path>", "a JSON file with the options that trainTokenizer() takes; flags override it")
    .addOption(new Option("-t, --type <type>", "GPT-2's, BERT's, or a Chinese BERT's").choices(["byte-level-bpe", "wordpiece", "characters"]))
    .option("-o, --output <folder>", "where it is written")
    .option("-n, --vocabulary-size <n>", "entries at the most (default: 8192; of characters all)", number)
    .option("--min-frequency <n>", "what is rarer is left out (default: 2)", number)
    .option("--lowercase", "lower case, without accents")
    .option("--alphabet <n>", "characters that are kept, the most frequent ones", number)
    .option("--special-token <text>", "beside the model's own; may be repeated", several(String))
    .addOption(new Option("--format <format>", "of the files (default: by their endings)").choices(["jsonl", "csv", "tsv", "text"]))
    .option("--column <name>", "which column the text is")
    .option("--json", "print what was made as JSON")
    .addHelpText("after", "\nFor instance: candlewick tokenizer prose.txt -t byte-level-bpe -o ./my-gpt2 -n 8192")
    .action(run);
}

async function run(files: string[], { config, json, specialToken, ...flags }: Arguments): Promise<void> {
  const given = { ...flags, specialTokens: specialToken, files: files.length > 0 ? files : undefined };
  const options = merged(await readConfig(config), given);
  let bar: Progress | undefined;
  const onProgress = ({ loaded, total }: { loaded: number; total: number }) => {
    bar ??= new Progress(total, "MB");
    bar.update(loaded, Math.round(loaded / 1e6));
  };
  try {
    const trained = await library().trainTokenizer({ ...options, signal, onProgress } as TrainTokenizerOptions);
    bar?.stop();
    const { output, vocabularySize, distinctWords, words, bytes } = trained;
    const said = `${vocabularySize} entries from ${words} words, ${distinctWords} of them distinct, in ${(bytes / 1e6).toFixed(1)} MB of text.\n${output}: ${trained.files.join(", ")}\n`;
    await write(json ? `${JSON.stringify(trained)}\n` : said);
  } finally {
    bar?.stop();
  }
}
