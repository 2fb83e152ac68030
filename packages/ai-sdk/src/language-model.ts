/** GPT-2 as a language model of the AI SDK. */
import { randomUUID } from "node:crypto";
import type { ChatOptions, GenerateOptions, GenerationResult, GPT2, TokenStream } from "candlewick";
import { asCallError, callErrors, isAbort } from "./errors.js";
import { defined, ownOptions } from "./options.js";
import { messagesOf, soleText, unsupported } from "./prompt.js";
import { CandlewickModel } from "./model.js";
import { PROVIDER, type Json, type LanguageCall, type Version, type Warning } from "./specification.js";

/** `providerOptions.candlewick` of a language model. */
export type LanguageOptions = Omit<GenerateOptions, keyof typeof ELSEWHERE | "truncate"> & {
  /** `"left"` of a text that is continued, `"turns"` of a conversation. */
  truncate?: "left" | "turns";
};

const setting = (name: string) => `the AI SDK's setting for it is ${name}`;
const alone = "a call of the AI SDK has one answer";
const ELSEWHERE = {
  maxNewTokens: setting("maxOutputTokens"),
  temperature: setting("temperature"),
  topK: setting("topK"),
  topP: setting("topP"),
  presencePenalty: setting("presencePenalty"),
  frequencyPenalty: setting("frequencyPenalty"),
  stop: setting("stopSequences"),
  seed: setting("seed"),
  signal: setting("abortSignal"),
  n: alone,
  numReturnSequences: alone,
};

interface Usage {
  inputTokens: { total: number | undefined; noCache: number | undefined; cacheRead: number | undefined; cacheWrite: undefined };
  outputTokens: { total: number | undefined; text: number | undefined; reasoning: number | undefined };
  raw?: Json;
}
interface FinishReason {
  unified: "stop" | "length" | "error" | "other";
  raw: string | undefined;
}
type Metadata = Record<typeof PROVIDER, Json>;
interface ResponseMetadata {
  id: string;
  timestamp: Date;
  modelId: string;
}

interface GenerateResult {
  content: { type: "text"; text: string }[];
  finishReason: FinishReason;
  usage: Usage;
  providerMetadata: Metadata;
  response: ResponseMetadata;
  warnings: Warning[];
}

type StreamPart =
  | { type: "stream-start"; warnings: Warning[] }
  | ({ type: "response-metadata" } & ResponseMetadata)
  | { type: "text-start"; id: string }
  | { type: "text-delta"; id: string; delta: string }
  | { type: "text-end"; id: string }
  | { type: "finish"; finishReason: FinishReason; usage: Usage; providerMetadata?: Metadata }
  | { type: "raw"; rawValue: unknown }
  | { type: "error"; error: unknown };

interface Begun {
  readonly stream: TokenStream;
  readonly warnings: Warning[];
  readonly response: ResponseMetadata;
}

/** A stream has one text, which is this part of it. */
const PART = "0";

/**
 * A GPT-2 as `generateText` and `streamText` call it. Messages are answered in the form that the model's files give
 * conversations; a model without one continues a prompt that is a single message of the user's, as text.
 */
export class CandlewickLanguageModel<V extends Version> extends CandlewickModel<V, GPT2> {
  /** Files are not read, so none is read from its address. */
  readonly supportedUrls: Record<string, RegExp[]> = {};

  doGenerate(call: LanguageCall): Promise<GenerateResult> {
    return callErrors(this.modelId, async () => {
      const { stream, warnings, response } = await this.#begin(call);
      const result = await stream.result;
      return {
        content: [{ type: "text", text: result.text }],
        finishReason: finishReason(result),
        usage: usage(result),
        providerMetadata: metadata(result),
        response,
        warnings,
      };
    });
  }

  /** Resolves when the prompt is accepted: until then a call can be tried again. */
  doStream(call: LanguageCall): Promise<{ stream: ReadableStream<StreamPart> }> {
    return callErrors(this.modelId, async () => {
      const begun = await this.#begin(call);
      await begun.stream.accepted;
      return { stream: partsOf(begun, call.includeRawChunks === true) };
    });
  }

  async #begin(call: LanguageCall): Promise<Begun> {
    const warnings: Warning[] = [];
    refuseOrWarn(call, warnings);
    const messages = messagesOf(call.prompt, warnings);
    const options = generateOptions(call);
    const model = await this.source.get(call.abortSignal);
    const response = { id: `${PROVIDER}-${randomUUID()}`, timestamp: new Date(), modelId: this.modelId };
    if (model.info.chat) return { stream: model.chat(messages, options as ChatOptions), warnings, response };
    const text = soleText(messages);
    if (text !== undefined) return { stream: model.generate(text, options as GenerateOptions), warnings, response };
    throw unsupported(
      "conversations",
      `${this.modelId} continues text: its files do not say how it reads a conversation. Give it a prompt that is one message of the user's, without a system message`,
    );
  }
}

/** What a GPT-2 cannot do: an error where the answer would be another than the one asked for, else a warning. */
function refuseOrWarn(call: LanguageCall, warnings: Warning[]): void {
  const { responseFormat, tools = [], toolChoice } = call;
  if (responseFormat?.type === "json") throw unsupported("responseFormat of type json", "The model cannot be held to JSON: read its text");
  if (toolChoice?.type === "required" || toolChoice?.type === "tool") throw unsupported(`toolChoice of type ${toolChoice.type}`);
  // With "auto" a model may answer in text, and with "none" it does.
  if (tools.length > 0 && toolChoice?.type !== "none") {
    warnings.push({ type: "unsupported", feature: "tools", details: "The model does not see them: it answers in text." });
  }
  const reasoning = "reasoning" in call ? call.reasoning : undefined;
  if (reasoning !== undefined && reasoning !== "none" && reasoning !== "provider-default") {
    warnings.push({ type: "unsupported", feature: "reasoning", details: "The model answers without reasoning." });
  }
}

function generateOptions(call: LanguageCall): LanguageOptions & GenerateOptions {
  return {
    ...ownOptions(call.providerOptions, ELSEWHERE),
    ...defined({
      maxNewTokens: call.maxOutputTokens,
      temperature: call.temperature,
      topK: call.topK,
      topP: call.topP,
      presencePenalty: call.presencePenalty,
      frequencyPenalty: call.frequencyPenalty,
      stop: call.stopSequences,
      seed: call.seed,
      signal: call.abortSignal,
    }),
    // The model's files may ask for more by default.
    n: 1,
    numReturnSequences: 1,
  } as LanguageOptions & GenerateOptions;
}

/** Pulled: the reader sets the pace, and its `cancel()` ends the compute. */
function partsOf({ stream, warnings, response }: Begun, raw: boolean): ReadableStream<StreamPart> {
  const tokens = stream[Symbol.asyncIterator]();
  return new ReadableStream<StreamPart>(
    {
      start(controller) {
        controller.enqueue({ type: "stream-start", warnings });
        controller.enqueue({ type: "response-metadata", ...response });
        controller.enqueue({ type: "text-start", id: PART });
      },
      async pull(controller) {
        try {
          for (;;) {
            const { value: token, done } = await tokens.next();
            if (done) break;
            if (raw) controller.enqueue({ type: "raw", rawValue: token });
            if (token.text) controller.enqueue({ type: "text-delta", id: PART, delta: token.text });
            // A token whose bytes begin a character has no text yet.
            if (raw || token.text) return;
          }
          const result = await tokens.result;
          controller.enqueue({ type: "text-end", id: PART });
          controller.enqueue({ type: "finish", finishReason: finishReason(result), usage: usage(result), providerMetadata: metadata(result) });
          controller.close();
        } catch (error) {
          const failure = asCallError(error, response.modelId);
          if (isAbort(failure)) return controller.error(failure);
          controller.enqueue({ type: "error", error: failure });
          controller.enqueue({ type: "finish", finishReason: { unified: "error", raw: undefined }, usage: UNKNOWN });
          controller.close();
        }
      },
      async cancel() {
        await tokens.return();
      },
    },
    // Nothing is computed for a reader that has not asked for it.
    { highWaterMark: 0 },
  );
}

const finishReason = ({ finishReason }: GenerationResult): FinishReason => ({
  unified: finishReason === "aborted" ? "other" : finishReason,
  raw: finishReason,
});

function usage({ usage }: GenerationResult): Usage {
  const { promptTokens, completionTokens, cachedTokens } = usage;
  return {
    inputTokens: { total: promptTokens, noCache: promptTokens - cachedTokens, cacheRead: cachedTokens, cacheWrite: undefined },
    outputTokens: { total: completionTokens, text: completionTokens, reasoning: 0 },
    raw: { ...usage },
  };
}

/** Of a generation that has failed. */
const UNKNOWN: Usage = {
  inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: undefined, text: undefined, reasoning: undefined },
};

function metadata({ seed, timings, stopSequence, stopTokenId, tokens }: GenerationResult): Metadata {
  const reported = tokens.some(({ topLogprobs }) => topLogprobs !== undefined);
  const logprobs = tokens.map(({ id, text, logprob, topLogprobs = [] }) => ({ id, text, logprob, topLogprobs: topLogprobs.map((top) => ({ ...top })) }));
  return { [PROVIDER]: { seed, timings: { ...timings }, ...(stopSequence !== undefined && { stopSequence }), ...(stopTokenId !== undefined && { stopTokenId }), ...(reported && { logprobs }) } };
}
