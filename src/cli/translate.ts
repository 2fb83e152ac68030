// `candlewick translate`: texts in another language.
import type { Command } from "commander";
import { MODEL_PREFIX } from "../package.js";
import type { Inputs, StreamOptions } from "../pipelines/stream.js";
import type { Translation, TranslationOptions } from "../pipelines/translate.js";
import { shippedName } from "../default-models.js";
import { loadOptions, number } from "./arguments.js";
import { textOf } from "./input.js";
import { library } from "./library.js";
import { modelOf, runThrough, withWritingOptions, type WritingArguments } from "./rows.js";
import { signal } from "./terminal.js";

interface Arguments extends WritingArguments, Pick<TranslationOptions, "numBeams" | "maxNewTokens" | "lengthPenalty" | "noRepeatNgramSize" | "separator"> {
  best: number;
}

export function addTranslate(program: Command): void {
  const command = program
    .command("translate")
    .summary("texts in another language")
    .description("Translates texts, one a line: by the package for English to Chinese, or by a GPT-2 of your own that was trained for it.")
    .argument("[text...]", "texts, if they are not read from files or standard input")
    .option("-m, --model <path>", `a folder with a GPT-2, or a hub id (default: the package ${MODEL_PREFIX}${shippedName("translation")})`)
    .option("--num-beams <n>", "beams of the search; 1 takes the likeliest token (default: what the model's configuration says)", number)
    .option("--best <n>", "how many translations of each text, best first", number, 1)
    .option("--max-new-tokens <n>", "how many tokens at most", number)
    .option("--length-penalty <x>", "above 0 favours longer translations, below shorter ones", number)
    .option("--no-repeat-ngram-size <n>", "no so many tokens twice", number)
    .option("--separator <text>", "between a text and its translation, as in training (default: what the model's configuration says)")
    .addHelpText("after", '\nJSON lines: {"text": …}.\nFor instance: candlewick translate "file not found" -f messages.txt --json');
  withWritingOptions(command).action(translate);
}

function translate(texts: string[], options: Arguments): Promise<void> {
  const { best, numBeams, maxNewTokens, lengthPenalty, noRepeatNgramSize, separator } = options;
  const given = { numBeams, maxNewTokens, lengthPenalty, noRepeatNgramSize, separator, numReturnSequences: best, signal };
  return runThrough<string, Translation[]>(
    {
      texts,
      options,
      read: textOf,
      text: (translations) => translations.map(({ translationText }) => translationText).join("\n"),
      json: (translations, text) => ({ text, translations: translations.map(({ translationText }) => translationText) }),
    },
    async () => {
      const task = await library().pipeline("translation", modelOf(options, "translation"), loadOptions(options));
      const stream = (inputs: Inputs<string>, call: StreamOptions) => task.stream(inputs, { ...given, ...call });
      return { stream, [Symbol.asyncDispose]: () => task.close() };
    },
  );
}
