/** What every command over texts does: load a model, read rows, run a task, write the results. */
import { createWriteStream } from "node:fs";
import { once } from "node:events";
import { finished } from "node:stream/promises";
import type { Command } from "commander";
import type { BERT } from "../bert.js";
import { CandlewickError } from "../errors.js";
import type { FailedRow, Inputs, Row, StreamOptions } from "../pipelines/stream.js";
import type { TaskOptions } from "../pipelines/task.js";
import { MODEL_PREFIX } from "../package.js";
import { shippedModel, shippedName, type ShippedTask } from "../default-models.js";
import { loadOptions, number, withLoadOptions, type LoadArguments } from "./arguments.js";
import { library } from "./library.js";
import { openInput, withInputOptions, type Input, type InputArguments, type InputRow } from "./input.js";
import { Progress } from "./progress.js";
import { signal } from "./terminal.js";

export interface WritingArguments extends LoadArguments, InputArguments {
  model?: string;
  json?: boolean;
  output?: string;
  skipBad?: boolean;
}

export interface RowArguments extends WritingArguments {
  maxLength?: number;
  /** False: a longer text is an error. */
  truncate: boolean;
}

/** The options of every command over rows, but for the model. */
export function withWritingOptions(command: Command): Command {
  command
    .option("--json", "write JSON lines")
    .option("-o, --output <path>", "write to a file")
    .option("--skip-bad", "report rows that cannot be read, and go on");
  return withLoadOptions(withInputOptions(command));
}

/** The options of every command over the rows of a BERT, which must be named unless one is shipped for the task. */
export function withRowOptions(command: Command, shipped?: ShippedTask): Command {
  const what = "a folder with a BERT, or a hub id";
  if (shipped === undefined) command.requiredOption("-m, --model <path>", what);
  else command.option("-m, --model <path>", `${what} (default: the package ${MODEL_PREFIX}${shippedName(shipped)})`);
  command.option("--max-length <n>", "most tokens of a text", number).option("--no-truncate", "fail on longer texts instead of cutting them");
  return withWritingOptions(command);
}

/** What was named, or what is shipped for the task. */
export function modelOf({ model }: WritingArguments, task: ShippedTask | undefined, language?: string): string {
  if (model === undefined && task !== undefined) return shippedModel(task, language);
  if (model !== undefined && language !== undefined) throw new CandlewickError("OPTION_INVALID", "--language has no effect beside --model");
  return model!;
}

/** The options of a task's call that {@link withRowOptions} reads. */
export const callOptions = ({ maxLength, truncate }: RowArguments): TaskOptions => ({ maxLength, truncate, signal });

type StreamingTask<In, Out> = {
  stream(inputs: Inputs<In>, options: StreamOptions): AsyncIterableIterator<Row<In, Out> | FailedRow<In>>;
};

interface Work<In, Out, Options> {
  /** The texts of the command line. */
  readonly texts: readonly string[];
  readonly options: Options;
  /** An input of a row; throws `INPUT_INVALID` for what is none. */
  read(row: InputRow): In;
  /** A line, or several, for a person. */
  text(result: Out, input: In): string;
  /** What `--json` writes. */
  json(result: Out, input: In): object;
}

interface BERTWork<In, Out> extends Work<In, Out, RowArguments> {
  /** Whose package is taken where no model is named. */
  readonly shipped?: ShippedTask;
  readonly language?: string | undefined;
  task(model: BERT): StreamingTask<In, Out>;
}

/** Streams the rows of a command through a task of a BERT. */
export function runRows<In, Out>({ shipped, language, task, ...work }: BERTWork<In, Out>): Promise<void> {
  const { options } = work;
  return runThrough(work, async () => {
    const model = await library().loadBERT(modelOf(options, shipped, language), loadOptions(options));
    const stream: StreamingTask<In, Out>["stream"] = (inputs, call) => task(model).stream(inputs, { ...callOptions(options), ...call });
    return { stream, [Symbol.asyncDispose]: () => model.close() };
  });
}

/** Streams the rows of a command through the task that `open` opens. */
export async function runThrough<In, Out>(
  { texts, options, read, text, json }: Work<In, Out, WritingArguments>,
  open: () => Promise<StreamingTask<In, Out> & AsyncDisposable>,
): Promise<void> {
  const input = await openInput(texts, options);
  await using task = await open();
  const out = output(options, input);
  let failed = 0;
  try {
    const places: string[] = [];
    async function* inputs(): AsyncGenerator<In> {
      for await (const row of input.rows()) {
        places.push(row.where);
        try {
          if (row.problem) throw row.problem;
          yield read(row);
        } catch (error) {
          if (!options.skipBad) throw error;
          // The task refuses it as it refuses other bad rows, which are counted and reported in one place.
          yield error as In;
        }
      }
    }
    const rows = task.stream(inputs(), { onError: "row" });
    for await (const row of rows) {
      const where = places[row.index]!;
      places[row.index] = "";
      if (row.error) {
        const { message } = row.input instanceof Error ? row.input : row.error;
        const at = message.startsWith(where) ? message : `${where}: ${message}`;
        if (!options.skipBad) throw new CandlewickError(row.error.code, at, { cause: row.error });
        failed++;
        await out.problem(at);
      } else {
        await out.row(options.json ? JSON.stringify(json(row.result, row.input)) : text(row.result, row.input));
      }
    }
  } finally {
    await out.end();
  }
  if (failed > 0) {
    console.error(`${failed} ${failed === 1 ? "row" : "rows"} could not be read.`);
    process.exitCode = 1;
  }
}

interface Output {
  row(line: string): Promise<void>;
  problem(message: string): Promise<void>;
  end(): Promise<void>;
}

/** Rows to standard output or a file, with a bar on a terminal that shows how much of the input they are of. */
export function output({ output: path }: WritingArguments, input?: Input): Output {
  const progress = new Progress(input?.total ?? 0, "rows");
  const file = path === undefined ? undefined : createWriteStream(path);
  const written = file && finished(file).catch((error) => {
    throw new CandlewickError("IO", `${path}: ${error.message}`, { cause: error });
  });
  written?.catch(() => {});
  let count = 0;
  return {
    async row(line) {
      if (!file) await progress.row(line);
      else if (!file.write(`${line}\n`)) await Promise.race([once(file, "drain"), written]);
      progress.update(input?.position() ?? 0, ++count);
    },
    async problem(message) {
      progress.note(message);
    },
    async end() {
      progress.stop();
      file?.end();
      await written;
    },
  };
}
