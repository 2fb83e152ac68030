// `candlewick answer`: where in a text the answer to a question stands.
import type { Command } from "commander";
import { CandlewickError } from "../errors.js";
import type { Answer, Question } from "../pipelines/answer.js";
import { number } from "./arguments.js";
import { textOf, type InputRow } from "./input.js";
import { runRows, withRowOptions, type RowArguments } from "./rows.js";

interface Arguments extends RowArguments {
  question?: string;
  topK?: number;
  stride?: number;
  maxAnswerLength?: number;
  impossible?: boolean;
}

export function addAnswer(program: Command): void {
  const command = program
    .command("answer")
    .summary("answers out of texts")
    .description("Writes the answer to the question that stands in each text: score, where it stands (in UTF-16 code units), and its words.")
    .argument("[context...]", "texts, if they are not read from files or standard input")
    .option("-q, --question <text>", "the question; JSON lines may have their own")
    .option("-k, --top-k <n>", "how many answers (default: 1)", number)
    .option("--stride <n>", "tokens by which the windows of a long text overlap (default: 128, or half of --max-length)", number)
    .option("--max-answer-length <n>", "tokens that an answer may have (default: 15)", number)
    .option("--impossible", 'let "there is no answer" be an answer')
    .addHelpText("after", '\nJSON lines: {"question": …, "context": …}.\nFor instance: candlewick answer -m ./squad -q "Who wrote it?" --from whole -f book.txt');
  withRowOptions(command).action((texts: string[], options: Arguments) => {
    const { topK = 1, stride, maxAnswerLength, impossible: handleImpossibleAnswer } = options;
    return runRows<Question, Answer[]>({
      texts,
      options,
      read: (row) => questionOf(row, options.question),
      task: (model) => ({
        stream: (inputs, call) => model.answer.stream(inputs, { ...call, topK, stride, maxAnswerLength, handleImpossibleAnswer }),
      }),
      text: (answers) => answers.map(line).join("\n"),
      json: (answers, { question }) => ({ question, answers }),
    });
  });
}

const line = ({ score, start, end, answer }: Answer): string => [score.toFixed(4), `${start}-${end}`, answer].join("\t");

function questionOf(row: InputRow, asked: string | undefined): Question {
  const { context, question = asked } = (row.value ?? {}) as Partial<Question>;
  if (question === undefined) throw new CandlewickError("INPUT_INVALID", `${row.where}: there is no question: give --question, or JSON lines with one`);
  return { question, context: context === undefined ? textOf(row) : context };
}
