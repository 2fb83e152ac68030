/** Text generation, as transformers' `TextGenerationPipeline`: `GPT2.generate`, with its result or its stream. */
import { CandlewickError } from "../errors.js";
import { generateOptions } from "../generation-options.js";
import type { GPT2 } from "../gpt2.js";
import { checkOptions, checks, type OptionTable } from "../options.js";
import type { TokenStream } from "../stream.js";
import { useOf } from "../task-parameters.js";
import type { GenerateOptions, Prompt } from "../types.js";
import { isString, isStrings } from "./input-checks.js";

export interface TextGenerationOptions extends GenerateOptions {
  /** Whether the prompt is a part of the text. Default true, as in Python. */
  returnFullText?: boolean;
}

export interface GeneratedText {
  readonly generatedText: string;
}

/** Continues prompts. */
export interface TextGenerationTask extends AsyncDisposable {
  /** A text for each sample (`n`) or beam (`numReturnSequences`); of several prompts, such a list for each. */
  (prompt: string, options?: TextGenerationOptions): Promise<GeneratedText[]>;
  (prompts: readonly string[], options?: TextGenerationOptions): Promise<GeneratedText[][]>;
  /** The tokens as they come, without the prompt. */
  stream(prompt: string | string[], options?: GenerateOptions): TokenStream;
  readonly model: GPT2;
  /** Closes the model, if `pipeline()` loaded it for this task. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const options: OptionTable<TextGenerationOptions> = { ...generateOptions, returnFullText: checks.boolean };

export function createTextGeneration(model: GPT2, defaults: TextGenerationOptions, owned: boolean): TextGenerationTask {
  const { returnFullText: fullByDefault, ...standing } = checkOptions("generate", defaults, options);
  // transformers' pipeline reads `task_specific_params`; `generate()`, here as there, does not.
  const { generation: learned = {} } = useOf(model.tasks, "text-generation");
  const generate = (prompt: Prompt, given: GenerateOptions) =>
    model.generateWith(prompt, checkOptions("generate", { ...standing, ...given }, generateOptions), learned);

  const task = async (prompt: string | readonly string[], given: TextGenerationOptions = {}) => {
    const { returnFullText = fullByDefault ?? true, ...rest } = checkOptions("generate", given, options);
    if (!isString(prompt) && !isStrings(prompt)) {
      throw new CandlewickError("INPUT_INVALID", "generate: expected a prompt or a list of prompts");
    }
    const prompts = typeof prompt === "string" ? [prompt] : Array.from(prompt);
    const { sequences } = await generate(prompts, rest).result;
    const texts: GeneratedText[][] = prompts.map(() => []);
    for (const { prompt: at, text } of sequences) {
      texts[at]!.push({ generatedText: returnFullText ? prompts[at]! + text : text });
    }
    return typeof prompt === "string" ? texts[0]! : texts;
  };
  const stream = (prompt: string | string[], given: GenerateOptions = {}) => generate(prompt, given);
  const close = async (): Promise<void> => {
    if (owned) await model.close();
  };
  return Object.assign(task, { model, stream, close, [Symbol.asyncDispose]: close }) as TextGenerationTask;
}
