/**
 * Translation by a GPT-2, as transformers' `TranslationPipeline`: the text, a separator, and what the model goes on
 * with.
 */
import { CandlewickError, withPlaces } from "../errors.js";
import { overDefaults } from "../generation-defaults.js";
import { generateOptions } from "../generation-options.js";
import type { GPT2 } from "../gpt2.js";
import { checkOptions, checks, invalid, isPlainObject, type OptionTable } from "../options.js";
import { inSlices, type Progress } from "../slices.js";
import type { TokenStream } from "../stream.js";
import { useOf } from "../task-parameters.js";
import type { GenerateOptions } from "../types.js";
import { readAll, readText } from "./input-checks.js";
import { streamRows, type FailedRow, type Inputs, type Row, type StreamOptions } from "./stream.js";

/** Defaults are those of `task_specific_params.translation` in the model's `config.json`. */
export interface TranslationOptions extends GenerateOptions {
  /**
   * What stands between a text and its translation, as in training. Default: what the model's files say, else a line
   * feed.
   */
  separator?: string;
  /** Called with the call's progress, in texts. What it throws ends the call, which is rejected with it. */
  onProgress?: (progress: Progress) => void;
}

export interface Translation {
  readonly translationText: string;
}

/** One translation; with `numReturnSequences` or `n` a list of them, best first. */
export type Translated<O> = O extends { numReturnSequences: number } | { n: number } ? Translation[] : Translation;

/** Translates texts: by a beam search, unless the options say otherwise. */
export interface TranslationTask extends AsyncDisposable {
  /** A text of nothing but white space is its own translation. */
  <O extends TranslationOptions = TranslationOptions>(text: string, options?: O): Promise<Translated<O>>;
  /** In their order; the texts run together. */
  <O extends TranslationOptions = TranslationOptions>(texts: readonly string[], options?: O): Promise<Translated<O>[]>;
  /** The tokens of one text's translation as they come: greedy, since the tokens of a beam search come at its end. */
  stream(text: string, options?: Omit<TranslationOptions, "onProgress">): TokenStream;
  /** The rows of large inputs, in order, as they come; as other tasks stream them. */
  stream<O extends TranslationOptions = TranslationOptions>(
    texts: Inputs<string>,
    options?: O & StreamOptions<"throw">,
  ): AsyncIterableIterator<Row<string, Translated<O>>>;
  stream<O extends TranslationOptions = TranslationOptions>(
    texts: Inputs<string>,
    options: O & StreamOptions,
  ): AsyncIterableIterator<Row<string, Translated<O>> | FailedRow<string>>;
  readonly model: GPT2;
  /** Closes the model, if `pipeline()` loaded it for this task. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const NAME = "translation";
/**
 * Texts in one generation: each has several beams, each with a cache of its own, and the engine starts as many as it
 * has room for.
 */
const SLICE = 64;

const options: OptionTable<TranslationOptions> = {
  ...generateOptions,
  separator: (value) => (typeof value === "string" ? undefined : "must be a string"),
  onProgress: checks.function,
};
const read = readText(NAME);
const isBlank = (text: string): boolean => text.trim() === "";

export function createTranslation(model: GPT2, defaults: TranslationOptions, owned: boolean): TranslationTask {
  const standing = checkOptions(NAME, defaults, options);
  const use = useOf(model.tasks, NAME, { num_beams: 4 });
  const learned = use.generation ?? {};

  const optionsOf = (given: TranslationOptions) => {
    const { separator = use.separator ?? "\n", onProgress, ...generation } = { ...standing, ...checkOptions(NAME, given, options) };
    model.checkOpen();
    return { separator, onProgress, generation };
  };

  const translate = (texts: readonly string[], { separator, onProgress, generation }: ReturnType<typeof optionsOf>) => {
    const several = generation.numReturnSequences !== undefined || generation.n !== undefined;
    const run = async (slice: readonly string[]): Promise<(Translation | Translation[])[]> => {
      const results: Translation[][] = slice.map(() => []);
      const places = slice.flatMap((text, index) => (isBlank(text) ? [] : index));
      if (places.length > 0) {
        const make = async () => ({
          prompts: await model.plainIds(places.map((index) => slice[index]! + separator), generation.signal),
          options: overDefaults(generation, learned),
        });
        const translating = model.generateFrom(make, generation.signal).result;
        const { sequences } = await withPlaces(translating, (index) => places[index]);
        for (const { prompt, text } of sequences) results[places[prompt]!]!.push({ translationText: text.trim() });
      }
      return results.map((found, index) => {
        const all = found.length > 0 ? found : [{ translationText: slice[index]! }];
        return several ? all : all[0]!;
      });
    };
    return inSlices(texts, run, { size: SLICE, onProgress });
  };

  const task = async (input: string | readonly string[], given: TranslationOptions = {}) => {
    const checked = optionsOf(given);
    const texts = Array.isArray(input) ? readAll(input as readonly unknown[], read) : [read(input)];
    if (texts.length === 0) throw new CandlewickError("INPUT_INVALID", `${NAME}: there is nothing in the list`);
    const results = await translate(texts, checked);
    return Array.isArray(input) ? results : results[0]!;
  };

  const stream = (input: string | Inputs<unknown>, given: TranslationOptions & StreamOptions = {}) => {
    if (!isPlainObject(given)) throw invalid(NAME, "options", "must be a plain object", given);
    if (typeof input === "string") return tokens(input, given);
    const { onError = "throw", onProgress, ...rest } = given as TranslationOptions & StreamOptions;
    const checked = optionsOf(rest);
    const { signal } = checked.generation;
    return streamRows(NAME, input, { onError, onProgress, signal }, read, (batch, signal) =>
      translate(batch, { ...checked, onProgress: undefined, generation: { ...checked.generation, signal } }),
    );
  };

  const tokens = (text: string, given: TranslationOptions): TokenStream => {
    if (given.onProgress !== undefined) throw invalid(NAME, "onProgress", "has no effect on a stream of tokens", given.onProgress);
    // A stream is greedy: the task's default beams do not apply to it.
    const { separator, generation } = optionsOf({ numBeams: 1, ...given });
    if (isBlank(text)) throw new CandlewickError("PROMPT_EMPTY", `${NAME}: the text is empty`);
    const make = async () => ({
      prompts: await model.plainIds([text + separator], generation.signal),
      options: overDefaults(generation, learned),
    });
    return model.generateFrom(make, generation.signal);
  };

  const close = async (): Promise<void> => {
    if (owned) await model.close();
  };
  return Object.assign(task, { model, stream, close, [Symbol.asyncDispose]: close }) as TranslationTask;
}
