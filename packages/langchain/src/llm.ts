/** GPT-2 as a text model of LangChain. */
import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import { BaseLLM, type BaseLLMCallOptions, type BaseLLMParams } from "@langchain/core/language_models/llms";
import { GenerationChunk, type Generation, type LLMResult } from "@langchain/core/outputs";
import type { GenerateOptions, GenerationResult, GPT2, TokenStream } from "candlewick";
import { accepted, allOrNone, callSettingsOf, infoOf, invocationOf, settingsOf, tokenUsage, type CallSettings, type GenerationSettings } from "./generation.js";
import { onlyQueueFull } from "./retries.js";
import { gpt2Source, type LoadableGPT2, type Source } from "candlewick/loadable";

export interface CandlewickLLMFields extends BaseLLMParams, GenerationSettings {
  model: LoadableGPT2;
  /** Whether `invoke()` and `generate()` too report each token (`handleLLMNewToken`). Default false. */
  streaming?: boolean;
}

export interface CandlewickLLMCallOptions extends BaseLLMCallOptions, CallSettings {}

/**
 * Continues text. Prompts of one call are computed together.
 *
 * Errors are `CandlewickError`s; `QUEUE_FULL` alone is tried again. `close()` closes the model, if it was loaded here.
 */
export class CandlewickLLM extends BaseLLM<CandlewickLLMCallOptions> implements AsyncDisposable {
  static override lc_name(): string {
    return "CandlewickLLM";
  }

  readonly streaming: boolean;
  readonly #settings: GenerateOptions;
  readonly #source: Source<GPT2>;

  constructor(fields: CandlewickLLMFields) {
    super({ onFailedAttempt: onlyQueueFull, ...fields });
    this.#settings = settingsOf(fields);
    this.#source = gpt2Source(fields.model);
    this.streaming = fields.streaming ?? false;
  }

  override _llmType(): string {
    return "candlewick";
  }

  override invocationParams(options?: this["ParsedCallOptions"]): Record<string, unknown> {
    return invocationOf(this.#source.source, this.#settings, options);
  }

  override _identifyingParams(): Record<string, unknown> {
    return this.invocationParams();
  }

  override async _generate(prompts: string[], options: this["ParsedCallOptions"], runManager?: CallbackManagerForLLMRun): Promise<LLMResult> {
    const works = prompts.map((prompt, index) => async (signal: AbortSignal) => {
      const stream = await this.#begin(prompt, { ...options, signal });
      if (this.streaming) for await (const _chunk of chunksOf(stream, index, runManager));
      return stream.result;
    });
    const results = await allOrNone(options.signal, works);
    return { generations: results.map((result) => [generationOf(result)]), llmOutput: { tokenUsage: tokenUsage(results) } };
  }

  override async *_streamResponseChunks(
    prompt: string,
    options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<GenerationChunk> {
    yield* chunksOf(await this.#begin(prompt, options), 0, runManager);
  }

  async #begin(prompt: string, options: this["ParsedCallOptions"]): Promise<TokenStream> {
    // Before the model is loaded: what is wrong with a call is said at once.
    const settings = { ...this.#settings, ...callSettingsOf(options), n: 1, numReturnSequences: 1 };
    const model = await this.#source.get();
    return accepted(this.caller, options, () => model.generate(prompt, settings));
  }

  /** Closes the model, if it was loaded here. */
  close(): Promise<void> {
    return this.#source.close();
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function* chunksOf(stream: TokenStream, prompt: number, runManager?: CallbackManagerForLLMRun): AsyncGenerator<GenerationChunk> {
  for await (const { text } of stream) {
    // A token whose bytes begin a character has no text yet.
    if (text === "") continue;
    const chunk = new GenerationChunk({ text });
    yield chunk;
    await runManager?.handleLLMNewToken(text, { prompt, completion: 0 }, undefined, undefined, undefined, { chunk });
  }
  const result = await stream.result;
  yield new GenerationChunk({ text: "", generationInfo: { ...infoOf(result), tokenUsage: tokenUsage([result]) } });
}

const generationOf = (result: GenerationResult): Generation => ({ text: result.text, generationInfo: infoOf(result) });
