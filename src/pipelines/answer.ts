/**
 * Extractive question answering, as transformers' `QuestionAnsweringPipeline` up to version 4; the search for spans is
 * native, it grows with the context.
 */
import type { PackedAnswers } from "../native.js";
import { checks, type OptionTable } from "../options.js";
import { mailbox } from "../runtime.js";
import { inCalls } from "./native-calls.js";
import { isString, readObject } from "./input-checks.js";
import type { FailedRow, Inputs, Row, StreamOptions } from "./stream.js";
import { taskOptions, unfit, type Task, type TaskDefinition, type TaskOptions } from "./task.js";

export interface Question {
  readonly question: string;
  /** Where the answer is looked for. A long one is read in windows. */
  readonly context: string;
}

export interface AnswerOptions extends TaskOptions {
  /** Tokens per window: question, part of the context, special ones. Default 384, or as many as the model reads. */
  maxLength?: number;
  /** Tokens by which windows overlap. Default 128, or half of `maxLength`. */
  stride?: number;
  /** How many answers, best first; the result is then a list, also for 1. Default: the best one alone. */
  topK?: number;
  /** Tokens that an answer may have. Default 15. */
  maxAnswerLength?: number;
  /** Whether "there is no answer" is among the answers: an empty one, from 0 to 0. Default false. */
  handleImpossibleAnswer?: boolean;
  /** Extend answers to whole words. Default true. */
  alignToWords?: boolean;
}

/** `answer` is `context.slice(start, end)`. */
export interface Answer {
  /** A probability; of the same words in several windows, the sum. */
  readonly score: number;
  /** UTF-16 code units, as JavaScript counts. */
  readonly start: number;
  readonly end: number;
  readonly answer: string;
}

export type AnswerOf<O> = O extends { topK: number } ? Answer[] : Answer;

export interface AnswerTask extends Task {
  <O extends AnswerOptions = AnswerOptions>(question: Question, options?: O): Promise<AnswerOf<O>>;
  <O extends AnswerOptions = AnswerOptions>(questions: readonly Question[], options?: O): Promise<AnswerOf<O>[]>;
  stream<O extends AnswerOptions = AnswerOptions>(
    questions: Inputs<Question>,
    options?: O & StreamOptions<"throw">,
  ): AsyncIterableIterator<Row<Question, AnswerOf<O>>>;
  stream<O extends AnswerOptions = AnswerOptions>(
    questions: Inputs<Question>,
    options: O & StreamOptions,
  ): AsyncIterableIterator<Row<Question, AnswerOf<O>> | FailedRow<Question>>;
}

const count = checks.integer(1, 1 << 16);
const notEmpty = (value: unknown) => isString(value) && (value as string).trim() !== "";

const options: OptionTable<AnswerOptions> = {
  ...taskOptions,
  stride: checks.integer(0, 0xffff_ffff),
  topK: count,
  maxAnswerLength: count,
  handleImpossibleAnswer: checks.boolean,
  alignToWords: checks.boolean,
};

export const answering: TaskDefinition<Question, AnswerOptions, Answer | Answer[]> = {
  name: "answer",
  options,
  fits(model) {
    if (model.info.head !== "question-answering") throw unfit(model, "question answering", "a question-answering head");
  },
  read: (input) => readObject("answer", input, { question: notEmpty, context: notEmpty }) as unknown as Question,
  run(model, questions, options) {
    const maxLength = options.maxLength ?? Math.min(model.info.maxLength, 384);
    const answering = {
      stride: options.stride ?? Math.min(maxLength >> 1, 128),
      topK: options.topK ?? 1,
      maxAnswerLength: options.maxAnswerLength ?? 15,
      impossible: options.handleImpossibleAnswer ?? false,
      alignToWords: options.alignToWords ?? true,
    };
    return inCalls<Question, PackedAnswers, Answer | Answer[]>(
      model,
      questions,
      { options, maxLength, size: 64, weigh: ({ question, context }) => question.length + context.length },
      (slice) => {
        const given = { texts: slice.map(({ question }) => question), pairs: slice.map(({ context }) => context) };
        return (native, id, limits, cancel) => native.answer(mailbox, id, given, limits, answering, cancel);
      },
      (packed, slice) => unpackAnswers(packed, slice).map((answers) => (options.topK === undefined ? (answers[0] ?? NONE) : answers)),
    );
  },
};

/** To a context in which there is not one token. */
const NONE: Answer = { score: 0, start: 0, end: 0, answer: "" };

function unpackAnswers({ lengths, scores, starts, ends }: PackedAnswers, questions: readonly Question[]): Answer[][] {
  let at = 0;
  return questions.map(({ context }, index) =>
    Array.from({ length: lengths[index]! }, () => {
      const [score, start, end] = [scores[at]!, starts[at]!, ends[at]!];
      at++;
      return { score, start, end, answer: context.slice(start, end) };
    }),
  );
}
