/** What all tasks have in common: one input or many, defaults, progress, refusals, and streams. */
import type { BERT, BERTEncodeOptions } from "../bert.js";
import { CandlewickError } from "../errors.js";
import { checkOptions, checks, invalid, isPlainObject, type OptionTable } from "../options.js";
import type { Progress } from "../slices.js";
import { readAll } from "./input-checks.js";
import { streamRows, type FailedRow, type Inputs, type Row, type StreamOptions } from "./stream.js";

/** The options of every task. */
export interface TaskOptions extends BERTEncodeOptions {
  /** Called with the call's progress. What it throws ends the call, which is rejected with it. */
  onProgress?: (progress: Progress) => void;
}

export const taskOptions: OptionTable<TaskOptions> = {
  maxLength: checks.integer(1, 0xffff_ffff),
  truncate: checks.boolean,
  signal: checks.signal,
  onProgress: checks.function,
};

/** One task: what it reads, how, and whether a model can do it. */
export interface TaskDefinition<Input, Options extends TaskOptions, Result> {
  /** The method's name, for messages. */
  readonly name: string;
  readonly options: OptionTable<Options>;
  /** Throws `TASK_UNSUPPORTED` if the model cannot do this. */
  fits(model: BERT): void;
  /** Throws for options that exclude each other, or that this model cannot have. */
  check?(model: BERT, options: Options): void;
  /** The input, checked and copied; throws `INPUT_INVALID` for what is none. */
  read(input: unknown): Input;
  /** The results, in the inputs' order. */
  run(model: BERT, inputs: readonly Input[], options: Options): Promise<Result[]>;
}

/** A task with a model: a function of one input or of many, with a streaming form. */
export interface Task extends AsyncDisposable {
  /** The model that it runs on. */
  readonly model: BERT;
  /** Closes the model, if `pipeline()` loaded it for this task. */
  close(): Promise<void>;
  /** {@link Task.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A {@link Task} from `Input` to `Result`. */
export interface SimpleTask<Input, Options, Result> extends Task {
  (input: Input, options?: Options): Promise<Result>;
  (inputs: readonly Input[], options?: Options): Promise<Result[]>;
  /**
   * The rows of large inputs, in order, as they come: reads ahead by a few batches and no more, however slow the reader
   * is. Leaving the loop ends the compute.
   */
  stream(inputs: Inputs<Input>, options?: Options & StreamOptions<"throw">): AsyncIterableIterator<Row<Input, Result>>;
  stream(inputs: Inputs<Input>, options: Options & StreamOptions): AsyncIterableIterator<Row<Input, Result> | FailedRow<Input>>;
}

type AnyTask<Input, Result> = SimpleTask<Input, object, Result>;

/**
 * The task as a function. `defaults` are options of every call; a call's own count more. `owned`: the model is closed
 * with the task.
 */
export function createTask<Input, Options extends TaskOptions, Result>(
  definition: TaskDefinition<Input, Options, Result>,
  model: BERT,
  defaults: Partial<Options> = {},
  owned = false,
): AnyTask<Input, Result> {
  const { name } = definition;
  const standing = checkOptions(name, defaults as Options, definition.options);

  const optionsOf = (given: Options): Options => {
    definition.fits(model);
    const options = { ...standing, ...checkOptions(name, given, definition.options) };
    definition.check?.(model, options);
    model.checkOpen();
    return options;
  };

  const task = async (input: Input | readonly Input[], given: Options = {} as Options): Promise<Result | Result[]> => {
    const options = optionsOf(given);
    const inputs = Array.isArray(input) ? readAll(input as readonly unknown[], definition.read) : [definition.read(input)];
    if (inputs.length === 0) throw new CandlewickError("INPUT_INVALID", `${name}: there is nothing in the list`);
    const results = await definition.run(model, inputs, options);
    return Array.isArray(input) ? results : results[0]!;
  };

  const stream = (inputs: Inputs<unknown>, given: Options & StreamOptions = {} as Options) => {
    if (!isPlainObject(given)) throw invalid(name, "options", "must be a plain object", given);
    const { onError = "throw", ...rest } = given;
    const { onProgress, ...options } = optionsOf(rest as Options);
    return streamRows<Input, Result>(name, inputs, { onError, onProgress, signal: options.signal }, definition.read, (batch, signal) =>
      definition.run(model, batch, { ...options, signal } as Options),
    );
  };

  const close = async (): Promise<void> => {
    if (owned) await model.close();
  };
  return Object.assign(task, { model, stream, close, [Symbol.asyncDispose]: close }) as AnyTask<Input, Result>;
}

/** `TASK_UNSUPPORTED`, with what the model can do instead. */
export function unfit(model: BERT, task: string, needs: string): CandlewickError {
  const { head } = model.info;
  const what = head ? `a model with a ${head} head` : "a model without a head";
  return new CandlewickError("TASK_UNSUPPORTED", `${task} needs ${needs}; ${model.source} is ${what}, for ${fitting(model).join(", ")}`);
}

/** The tasks that `model` can do, by their names in `pipeline()`. */
export function fitting(model: BERT): string[] {
  const { head, labels } = model.info;
  switch (head) {
    case undefined:
      return ["feature-extraction", "zero-shot-classification (by similarity)", "rerank (by similarity)"];
    case "masked-lm":
      return ["fill-mask", "feature-extraction"];
    case "token-classification":
      return ["token-classification", "feature-extraction"];
    case "question-answering":
      return ["question-answering", "feature-extraction"];
    case "sequence-classification": {
      const nli = labels.some((label) => label.toLowerCase().startsWith("entail"));
      return [
        "text-classification",
        "sentiment-analysis",
        ...(nli ? ["zero-shot-classification"] : []),
        ...(labels.length === 1 ? ["rerank"] : []),
        "feature-extraction",
      ];
    }
  }
}
