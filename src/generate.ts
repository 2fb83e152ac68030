import { abortError } from "./errors.js";
import { overDefaults } from "./generation-defaults.js";
import { generateOptions } from "./generation-options.js";
import { GPT2, loadGPT2 } from "./gpt2.js";
import { nativePrompts } from "./inputs.js";
import { checkOptions, checks, type OptionTable } from "./options.js";
import { defaultModelPath } from "./package.js";
import { TokenStream } from "./stream.js";
import type { GenerateOptions, Prompt } from "./types.js";

export interface GenerateWithModelOptions extends GenerateOptions {
  /**
   * A loaded model, or what {@link loadGPT2} takes. Default: the small model that ships. A model that is named is
   * loaded on first use, shared by all calls that name it, and let go five minutes after the last of them; to load it
   * in another way, or to decide when it is freed, use {@link loadGPT2}.
   */
  model?: string | GPT2;
}

const optionsWithModel: OptionTable<GenerateWithModelOptions> = {
  ...generateOptions,
  model: (value) =>
    value instanceof GPT2 || !checks.string(value) ? undefined : "must be a GPT2 or a string that is not empty",
};

/**
 * Continues `prompt` and streams what comes:
 *
 * ```ts
 * for await (const token of generate("It is a truth universally acknowledged")) process.stdout.write(token.text);
 * ```
 *
 * @throws {CandlewickError} At once: `OPTION_UNKNOWN`, `OPTION_INVALID`, `PROMPT_EMPTY`. Through the stream: what can
 *   be wrong with the model's files, and all that {@link GPT2.generate} throws or streams.
 */
export function generate(prompt: Prompt, options: GenerateWithModelOptions = {}): TokenStream {
  const { model = defaultModelPath, ...rest } = checkOptions("generate", options, optionsWithModel);
  if (model instanceof GPT2) return model.generate(prompt, rest);
  const prompts = nativePrompts("generate", prompt);
  const { signal } = rest;
  const stream = signal?.aborted
    ? Promise.reject(abortError(signal))
    : shared(model).then((loaded) => loaded.begin(prompts, overDefaults(rest, loaded.info.generationDefaults)));
  return TokenStream.of(model, stream, signal, async () => (await shared(model)).vocabulary());
}

const LET_GO_AFTER_MS = 5 * 60_000;

const models = new Map<string, { model: Promise<GPT2>; timer: NodeJS.Timeout }>();

/** The models by name. A model that is dropped from here is not closed: running streams keep it open until they end. */
function shared(name: string): Promise<GPT2> {
  const known = models.get(name);
  if (known) {
    known.timer.refresh();
    return known.model;
  }
  const model = loadGPT2(name);
  const forget = () => models.delete(name);
  models.set(name, { model, timer: setTimeout(forget, LET_GO_AFTER_MS).unref() });
  // The next call tries again.
  model.catch(forget);
  return model;
}
