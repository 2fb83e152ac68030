// What a user of the AI SDK, with @ai-sdk/openai-compatible, sees of the server.
//   node ai.mjs {url, control, folder, packages: ["ai6", "openai-compatible2"]}
import { cases, counted, drain, failureOf, given, idleAfter, KEY, leaving, print, retried, start, tooLong, use } from "./lib.mjs";

const { APICallError, embed, embedMany, generateText, jsonSchema, RetryError, streamText, tool } = use(given.packages[0]);
const { createOpenAICompatible } = use(given.packages[1]);
const { url } = given;
const { seed } = cases;

const NAME = "candlewick";
const providerOf = (base, more = {}) =>
  createOpenAICompatible({ name: NAME, baseURL: `${base}/v1`, apiKey: KEY, includeUsage: true, ...more });
const embedderOf = (provider, id) => (provider.embeddingModel ?? provider.textEmbeddingModel)(id);
const provider = providerOf(url);

const last = (error) => (RetryError.isInstance(error) ? error.lastError : error);
const describe = (error) => {
  const own = last(error);
  const { message, code, param, type } = own.data?.error ?? {};
  const name = own instanceof Error ? own.name : "no Error";
  return { classes: APICallError.isInstance(own) ? ["APICallError"] : [name], message: message ?? own.message, status: own.statusCode, code, param, type, retryAfter: own.responseHeaders?.["retry-after"] };
};
const failure = (work) => failureOf(work, describe);
/** Fields that the SDK has no name for. */
const extra = (fields) => ({ providerOptions: { [NAME]: fields } });

const counts = ({ inputTokens, outputTokens, totalTokens }) => ({ prompt: inputTokens, completion: outputTokens, total: totalTokens });

const routes = {
  completions: (from, id) => from.completionModel(id),
  chat: (from, id) => from.chatModel(id),
};
async function each(work) {
  const results = {};
  for (const [name, modelOf] of Object.entries(routes)) results[name] = await work(modelOf, name);
  return results;
}

async function answered(model, prompt, options) {
  const request = { model, prompt, maxRetries: 0, ...options };
  const { text, finishReason, usage } = await generateText(request);
  const stream = streamText(request);
  const deltas = [];
  for await (const delta of stream.textStream) deltas.push(delta);
  return {
    text,
    finish: finishReason,
    usage: counts(usage),
    deltas,
    streamedFinish: await stream.finishReason,
    streamedUsage: counts(await stream.usage),
  };
}

const speaker = (name) => (name === "completions" ? "default" : "dialogue");
const asked = { temperature: 0.8, seed };

const outcome = {
  answered: await each((modelOf, name) => answered(modelOf(provider, speaker(name)), cases.question, { ...asked, maxOutputTokens: 40 })),
  recited: await each((modelOf) => answered(modelOf(provider, "reciter"), "W", { maxOutputTokens: 200 })),
  length: await each(async (modelOf) => (await generateText({ model: modelOf(provider, "reciter"), prompt: "W", maxOutputTokens: 5 })).finishReason),
  stopped: await each(async (modelOf) => {
    const { text, finish, deltas } = await answered(modelOf(provider, "reciter"), "W", { maxOutputTokens: 200, stopSequences: ["no such", cases.stop] });
    return { text, finish, joined: deltas.join("") };
  }),
};

const network = counted();
const embedder = embedderOf(providerOf(url, { fetch: network.fetch }), "minilm");
const { embeddings } = await embedMany({ model: embedder, values: cases.texts });
outcome.embeddings = {
  vectors: embeddings,
  asked: network.requests.at(-1).body.encoding_format ?? null,
  one: (await embed({ model: embedder, value: cases.texts[1] })).embedding,
};

// Errors.
const keyed = await start({ keys: [{ name: "slow", key: KEY, requestsPerMinute: 1 }] });
const ended = await start();
await drain(ended);
const ask = (from, id = "dialogue", more = {}) => generateText({ model: from.chatModel(id), prompt: cases.question, maxRetries: 0, ...more });
const streamed = async (request) => {
  const seen = [];
  for await (const part of streamText({ maxRetries: 0, onError: () => {}, ...request }).fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta" && seen.push(part) === 1) await request.onFirst?.();
  }
  return seen.length;
};
outcome.errors = {
  tooLong: await failure(() => ask(provider, "dialogue", { prompt: tooLong })),
  tooLongStreamed: await failure(() => streamed({ model: provider.chatModel("dialogue"), prompt: tooLong })),
  tooLongText: await failure(() => embedMany({ model: embedder, values: ["short", tooLong], maxRetries: 0 })),
  noModel: await failure(() => ask(provider, "gpt-5")),
  wrongKey: await failure(() => ask(providerOf(keyed, { apiKey: "sk-wrong" }))),
  withinLimit: await failure(() => ask(providerOf(keyed))),
  limit: await failure(() => ask(providerOf(keyed))),
  draining: await failure(() => ask(providerOf(ended))),
  tools: await failure(() => ask(provider, "dialogue", { tools: { f: tool({ inputSchema: jsonSchema({ type: "object" }) }) } })),
  format: await failure(() => ask(provider, "dialogue", extra({ response_format: { type: "json_object" } }))),
};

// A server that ends in the middle of a stream.
outcome.torn = await each(async (modelOf, name) => {
  const base = await start();
  let pieces = 0;
  const request = {
    model: modelOf(providerOf(base), speaker(name)),
    prompt: "W",
    maxOutputTokens: 490,
    ...extra({ ignore_eos: true }),
    onFirst: () => drain(base),
    onChunk: () => void pieces++,
  };
  const error = await failure(() => streamed(request));
  return { pieces, error };
});

// Who waits no longer, and who leaves in the middle.
const long = { model: provider.completionModel("default"), prompt: "One", maxRetries: 0, maxOutputTokens: 480, ...extra({ ignore_eos: true, n: 64 }) };
const from = performance.now();
const timedOut = await failure(() => generateText({ ...long, abortSignal: AbortSignal.timeout(300) }));
outcome.timeout = { error: timedOut, ms: performance.now() - from };
await idleAfter();
outcome.left = {};
const controller = new AbortController();
for await (const _ of streamText({ ...long, abortSignal: controller.signal, onError: () => {} }).textStream) {
  outcome.left.aborted ??= await leaving(() => controller.abort());
}

// Refused for now: the client waits as long as it is told, and comes again.
outcome.retried = await retried(async (base, fetch) => {
  const model = providerOf(base, { fetch }).completionModel("default");
  return (await generateText({ model, prompt: "One", maxOutputTokens: 16, maxRetries: 3 })).text;
});
print(outcome);
