/** `POST /v1/chat/completions`. */
import { apiUsage, chatLogprobs, type ChatLogprob, DONE, event, eventsOfPieces, type Reported, type TokenSource, wholePiece } from "candlewick/openai";
import type { Call, Core } from "../core.js";
import { invalid } from "../errors.js";
import { type CommonOptions, plainMessages, samplingOptions, streamUsage } from "../generation.js";
import type { Json } from "../json.js";
import { chatSchema, type ChatRequest, parseRequest } from "../schemas.js";
import { answerHead, checkReported, roomOf } from "./common.js";

export async function chatCompletions(core: Core, call: Call, json: Json): Promise<Response> {
  const request = parseRequest(chatSchema, json);
  const { entry, model } = core.models.generator(request.model);
  const usage = streamUsage(request);
  const maxNewTokens = mostTokens(request);
  if (request.top_logprobs !== undefined && request.logprobs !== true) {
    throw invalid('"top_logprobs" needs "logprobs": true.', "top_logprobs");
  }
  const messages = plainMessages(request.messages, "messages");
  const work = core.begin(call, "chat", entry, { max_tokens: maxNewTokens, temperature: request.temperature, top_p: request.top_p });
  try {
    const { n = 1, stream = false, top_logprobs = 0 } = request;
    const reported = request.logprobs === true ? top_logprobs : undefined;
    if (!stream) checkReported(n * (maxNewTokens ?? model.info.positions), reported);
    await work.admit(model, n * roomOf(model, messages, maxNewTokens));
    const options: CommonOptions = { ...samplingOptions(request), maxNewTokens, logprobs: reported };
    const source = await work.start((standing) => model.chat(messages, { ...options, ...standing }));
    const vocabulary = reported !== undefined ? await model.vocabulary() : undefined;
    const logprobs = vocabulary && ((tokens: readonly Reported[]) => ({ content: chatLogprobs(vocabulary, tokens), refusal: null }));
    const fingerprint = core.models.fingerprint(entry.base, model);
    if (stream) return work.events(streamed(source, answerHead("chatcmpl", "chat.completion.chunk", entry, fingerprint), n, usage, logprobs));
    const { sequences, usage: counts } = await source.result;
    const choices = sequences.map(({ text, tokens, finishReason }, index) => ({
      index,
      message: { role: "assistant", content: text, refusal: null },
      logprobs: logprobs?.(wholePiece(tokens, index, finishReason).tokens) ?? null,
      finish_reason: finishReason,
    }));
    work.complete();
    return Response.json({ ...answerHead("chatcmpl", "chat.completion", entry, fingerprint), choices, usage: apiUsage(counts) });
  } catch (error) {
    throw work.failure(error, "messages");
  }
}

function mostTokens({ max_tokens, max_completion_tokens }: ChatRequest): number | undefined {
  if (max_tokens !== undefined && max_completion_tokens !== undefined) {
    throw invalid('"max_tokens" is the old name of "max_completion_tokens": give one of them.', "max_tokens");
  }
  return max_completion_tokens ?? max_tokens;
}

type Logprobs = (tokens: readonly Reported[]) => { content: ChatLogprob[]; refusal: null };

async function* streamed(
  source: TokenSource,
  head: ReturnType<typeof answerHead>,
  n: number,
  usage: boolean,
  logprobs: Logprobs | undefined,
): AsyncGenerator<string, void> {
  const chunkHead = usage ? { ...head, usage: null } : head;
  const chunk = (index: number, delta: object, tokens: readonly Reported[] = [], finish: string | null = null) =>
    event({ ...chunkHead, choices: [{ index, delta, logprobs: tokens.length > 0 ? logprobs!(tokens) : null, finish_reason: finish }] });
  for (let index = 0; index < n; index++) yield chunk(index, { role: "assistant", content: "", refusal: null });
  const { sequences, usage: counts } = yield* eventsOfPieces(source, ({ sequence, text, tokens }) => chunk(sequence, { content: text }, tokens));
  for (const [index, { finishReason }] of sequences.entries()) yield chunk(index, {}, [], finishReason);
  if (usage) yield event({ ...head, choices: [], usage: apiUsage(counts) });
  yield DONE;
}
