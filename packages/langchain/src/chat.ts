/** GPT-2 as a chat model of LangChain. */
import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import { BaseChatModel, type BaseChatModelCallOptions, type BaseChatModelParams, type LangSmithParams } from "@langchain/core/language_models/chat_models";
import { AIMessage, AIMessageChunk, type BaseMessage, type UsageMetadata } from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import type { ChatOptions, GenerationResult, GPT2, TokenStream } from "candlewick";
import { accepted, callSettingsOf, infoOf, invocationOf, settingsOf, tokenUsage, unable, type CallSettings, type GenerationSettings } from "./generation.js";
import { messagesOf } from "./messages.js";
import { onlyQueueFull } from "./retries.js";
import { gpt2Source, type LoadableGPT2, type Source } from "candlewick/loadable";

type Truncate = Pick<ChatOptions, "truncate">;

export interface ChatCandlewickFields extends BaseChatModelParams, Omit<GenerationSettings, "truncate">, Truncate {
  model: LoadableGPT2;
  /** Whether `invoke()` and `generate()` too report each token (`handleLLMNewToken`). Default false. */
  streaming?: boolean;
}

export interface ChatCandlewickCallOptions extends BaseChatModelCallOptions, Omit<CallSettings, "truncate">, Truncate {}

/**
 * Answers conversations, in the form that the model's files give them: a chat template, or the turns of a dialogue that
 * it was trained on. A model without either is `CHAT_TEMPLATE_MISSING`: `CandlewickLLM` continues its text.
 *
 * Errors are `CandlewickError`s; `QUEUE_FULL` alone is tried again. `close()` closes the model, if it was loaded here.
 */
export class ChatCandlewick extends BaseChatModel<ChatCandlewickCallOptions> implements AsyncDisposable {
  static override lc_name(): string {
    return "ChatCandlewick";
  }

  readonly streaming: boolean;
  readonly #settings: ChatOptions;
  readonly #source: Source<GPT2>;

  constructor(fields: ChatCandlewickFields) {
    super({ onFailedAttempt: onlyQueueFull, ...fields });
    this.#settings = settingsOf(fields) as ChatOptions;
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

  override getLsParams(options: this["ParsedCallOptions"]): LangSmithParams {
    const { temperature, maxNewTokens, stop } = { ...this.#settings, ...callSettingsOf(options) };
    return {
      ls_provider: "candlewick",
      ls_model_type: "chat",
      ls_model_name: this.#source.source,
      ls_temperature: temperature,
      ls_max_tokens: maxNewTokens,
      ls_stop: stop === undefined ? undefined : [stop].flat().map(String),
    };
  }

  override async _generate(messages: BaseMessage[], options: this["ParsedCallOptions"], runManager?: CallbackManagerForLLMRun): Promise<ChatResult> {
    const stream = await this.#begin(messages, options);
    if (this.streaming) for await (const _chunk of this.#chunksOf(stream, runManager));
    const result = await stream.result;
    const message = new AIMessage({ content: result.text, ...this.#metadata(result) });
    return { generations: [{ text: result.text, message, generationInfo: infoOf(result) }], llmOutput: { tokenUsage: tokenUsage([result]) } };
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    yield* this.#chunksOf(await this.#begin(messages, options), runManager);
  }

  /** @throws {CandlewickError} `TASK_UNSUPPORTED`, always. */
  override bindTools(): never {
    throw unable("bindTools");
  }

  /** @throws {CandlewickError} `TASK_UNSUPPORTED`, always. */
  override withStructuredOutput(): never {
    throw unable("withStructuredOutput");
  }

  async #begin(messages: BaseMessage[], options: this["ParsedCallOptions"]): Promise<TokenStream> {
    // Before the model is loaded: what is wrong with a call is said at once.
    const settings = { ...this.#settings, ...callSettingsOf(options), n: 1, numReturnSequences: 1 } as ChatOptions;
    const conversation = messagesOf(messages);
    const model = await this.#source.get();
    return accepted(this.caller, options, () => model.chat(conversation, settings));
  }

  async *#chunksOf(stream: TokenStream, runManager?: CallbackManagerForLLMRun): AsyncGenerator<ChatGenerationChunk> {
    for await (const { text } of stream) {
      // A token whose bytes begin a character has no text yet.
      if (text === "") continue;
      const chunk = new ChatGenerationChunk({ text, message: new AIMessageChunk({ content: text }) });
      yield chunk;
      await runManager?.handleLLMNewToken(text, { prompt: 0, completion: 0 }, undefined, undefined, undefined, { chunk });
    }
    const result = await stream.result;
    // LangChain joins the strings of all chunks, so what is said of the whole answer is said once.
    const message = new AIMessageChunk({ content: "", ...this.#metadata(result) });
    yield new ChatGenerationChunk({ text: "", message });
  }

  #metadata(result: GenerationResult): { usage_metadata: UsageMetadata; response_metadata: Record<string, unknown> } {
    const { promptTokens, completionTokens, totalTokens, cachedTokens } = result.usage;
    return {
      usage_metadata: {
        input_tokens: promptTokens,
        output_tokens: completionTokens,
        total_tokens: totalTokens,
        input_token_details: { cache_read: cachedTokens },
      },
      response_metadata: { model_provider: "candlewick", model_name: this.#source.source, ...infoOf(result) },
    };
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
