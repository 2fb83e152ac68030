/** `POST /v1/responses`: text in, text out; nothing is kept, so that there is nothing to go on from. */
import type { GenerationResult } from "candlewick";
import { chatLogprobs, event, eventsOfPieces, type Reported, type TokenSource, wholePiece } from "candlewick/openai";
import type { Call, Core } from "../core.js";
import type { ApiError } from "../errors.js";
import { type CommonOptions, plainMessages, samplingOptions, streamUsage } from "../generation.js";
import type { Json } from "../json.js";
import type { Entry } from "../models.js";
import { parseRequest, responseSchema, type ResponseRequest } from "../schemas.js";
import { checkReported, newId, now, roomOf } from "./common.js";

export async function responses(core: Core, call: Call, json: Json): Promise<Response> {
  const request = parseRequest(responseSchema, json);
  const { entry, model } = core.models.generator(request.model);
  streamUsage(request);
  const { max_output_tokens: maxNewTokens, top_logprobs = 0, include = [], stream = false } = request;
  const given = typeof request.input === "string" ? [{ role: "user" as const, content: request.input }] : plainMessages(request.input, "input");
  const messages = request.instructions === undefined ? given : [{ role: "system" as const, content: request.instructions }, ...given];
  const reported = include.length > 0 ? top_logprobs : undefined;
  const work = core.begin(call, "chat", entry, { max_tokens: maxNewTokens, temperature: request.temperature, top_p: request.top_p });
  try {
    if (!stream) checkReported(maxNewTokens ?? model.info.positions, reported);
    await work.admit(model, roomOf(model, messages, maxNewTokens, request.truncation === "auto"));
    const options: CommonOptions = { ...samplingOptions(request), maxNewTokens, logprobs: reported };
    const truncate = request.truncation === "auto" ? ("turns" as const) : undefined;
    const source = await work.start((standing) => model.chat(messages, { ...options, ...standing, ...(truncate ? { truncate } : {}) }));
    const vocabulary = reported !== undefined ? await model.vocabulary() : undefined;
    const answer = new Answer(request, entry, (tokens) => (vocabulary ? chatLogprobs(vocabulary, tokens) : []));
    if (!stream) {
      const whole = answer.whole(await source.result);
      work.complete();
      return Response.json(whole);
    }
    return work.events(streamed(answer, source), (error) => answer.failed(error));
  } catch (error) {
    throw work.failure(error, "input");
  }
}

/** The objects of one answer. */
class Answer {
  readonly #request: ResponseRequest;
  readonly #id = newId("resp").replace("-", "_");
  readonly #item = newId("msg").replace("-", "_");
  readonly #created = now();
  readonly #model: string;
  readonly #logprobs: (tokens: readonly Reported[]) => object[];
  #sequence = 0;

  constructor(request: ResponseRequest, { id }: Entry, logprobs: (tokens: readonly Reported[]) => object[]) {
    this.#request = request;
    this.#model = id;
    this.#logprobs = logprobs;
  }

  /** The fields that are known before the end. */
  #response(status: string, rest: object = {}): object {
    const { instructions = null, max_output_tokens = null, temperature = null, top_p = null, top_logprobs = 0, truncation = "disabled", metadata = {} } = this.#request;
    return {
      id: this.#id,
      object: "response",
      created_at: this.#created,
      status,
      background: false,
      error: null,
      incomplete_details: null,
      instructions,
      max_output_tokens,
      model: this.#model,
      output: [],
      parallel_tool_calls: false,
      previous_response_id: null,
      store: false,
      temperature,
      text: { format: { type: "text" } },
      tool_choice: "none",
      tools: [],
      top_logprobs,
      top_p,
      truncation,
      usage: null,
      metadata,
      ...rest,
    };
  }

  #part(text: string, tokens: readonly Reported[]): object {
    return { type: "output_text", text, annotations: [], logprobs: this.#logprobs(tokens) };
  }

  #message(status: string, content: object[]): object {
    return { id: this.#item, type: "message", status, role: "assistant", content };
  }

  whole({ text, tokens, finishReason, usage }: GenerationResult): object {
    const cut = finishReason === "length";
    const status = cut ? "incomplete" : "completed";
    return this.#response(status, {
      incomplete_details: cut ? { reason: "max_output_tokens" } : null,
      output: [this.#message(status, [this.#part(text, wholePiece(tokens, 0, finishReason).tokens)])],
      usage: {
        input_tokens: usage.promptTokens,
        input_tokens_details: { cached_tokens: usage.cachedTokens },
        output_tokens: usage.completionTokens,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: usage.totalTokens,
      },
    });
  }

  #event(type: string, fields: object): string {
    return event({ type, sequence_number: this.#sequence++, ...fields }, type);
  }

  readonly #place = () => ({ item_id: this.#item, output_index: 0, content_index: 0 });

  *begun(): Generator<string> {
    yield this.#event("response.created", { response: this.#response("in_progress") });
    yield this.#event("response.in_progress", { response: this.#response("in_progress") });
    yield this.#event("response.output_item.added", { output_index: 0, item: this.#message("in_progress", []) });
    yield this.#event("response.content_part.added", { ...this.#place(), part: this.#part("", []) });
  }

  delta(delta: string, tokens: readonly Reported[]): string {
    return this.#event("response.output_text.delta", { ...this.#place(), delta, logprobs: this.#logprobs(tokens) });
  }

  *ended(result: GenerationResult): Generator<string> {
    const { text, tokens, finishReason } = result;
    const kept = wholePiece(tokens, 0, finishReason).tokens;
    const part = this.#part(text, kept);
    const response = this.whole(result) as { status: string; output: object[] };
    yield this.#event("response.output_text.done", { ...this.#place(), text, logprobs: this.#logprobs(kept) });
    yield this.#event("response.content_part.done", { ...this.#place(), part });
    yield this.#event("response.output_item.done", { output_index: 0, item: response.output[0] });
    yield this.#event(`response.${response.status}`, { response });
  }

  /** Both forms: this API's own `error` event, and the one that clients of every other route read. */
  failed({ body: { error } }: ApiError): string {
    const { code, message, param } = error;
    return this.#event("error", { code, message, param, error });
  }
}

async function* streamed(answer: Answer, source: TokenSource): AsyncGenerator<string, void> {
  yield* answer.begun();
  yield* answer.ended(yield* eventsOfPieces(source, ({ text, tokens }) => answer.delta(text, tokens)));
}
