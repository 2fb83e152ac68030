// What a user of @langchain/openai sees of the server.   node langchain.mjs {url, control, folder, packages: []}
import { cases, counted, drain, failureOf, given, idleAfter, KEY, leaving, print, retried, start, tooLong, use } from "./lib.mjs";

const { ChatOpenAI, OpenAI, OpenAIEmbeddings } = use("@langchain/openai");
const { url } = given;
const { seed } = cases;

const failure = (work) =>
  failureOf(work, ({ status, code, param, type, headers }) => ({ status, code, param, type, retryAfter: headers?.get?.("retry-after") }));

const common = (base, { fetch, apiKey = KEY, ...more }) => ({ apiKey, maxRetries: 0, configuration: { baseURL: `${base}/v1`, fetch }, ...more });
const chatOf = (base, { modelKwargs, ...more } = {}) => new ChatOpenAI(common(base, { model: "dialogue", modelKwargs, ...more }));
const llmOf = (base, more = {}) => new OpenAI(common(base, { model: "default", ...more }));

const counts = (usage) => ({ prompt: usage.input_tokens, completion: usage.output_tokens, total: usage.total_tokens });
const finishOf = ({ response_metadata: { finish_reason, status, incomplete_details } }) =>
  finish_reason ?? (incomplete_details ? "length" : status === "completed" ? "stop" : status);
/** The API of responses has a name of its own for it. */
const tokens = (name, most) => (name === "responses" ? { maxTokens: most, useResponsesApi: true } : { maxTokens: most });

async function answered(chat, prompt, options = {}) {
  const whole = await chat.invoke(prompt, options);
  const deltas = [];
  let all;
  for await (const chunk of await chat.stream(prompt, options)) {
    if (chunk.text !== "") deltas.push(chunk.text);
    all = all ? all.concat(chunk) : chunk;
  }
  return {
    text: whole.text,
    finish: finishOf(whole),
    usage: counts(whole.usage_metadata),
    deltas,
    streamedFinish: finishOf(all),
    streamedUsage: counts(all.usage_metadata),
  };
}

async function each(work) {
  const results = {};
  for (const name of ["chat", "responses"]) results[name] = await work(name);
  return results;
}
const seeded = { temperature: 0.8, modelKwargs: { seed } };

const outcome = {
  answered: await each((name) => answered(chatOf(url, { ...seeded, ...tokens(name, 40) }), cases.question)),
  recited: await each((name) => answered(chatOf(url, { model: "reciter", ...tokens(name, 200) }), "W")),
  length: await each(async (name) => finishOf(await chatOf(url, { model: "reciter", ...tokens(name, 5) }).invoke("W"))),
};
const stopped = await answered(chatOf(url, { model: "reciter", maxTokens: 200 }), "W", { stop: ["no such", cases.stop] });
outcome.stopped = { chat: { text: stopped.text, finish: stopped.finish, joined: stopped.deltas.join("") } };

// Completions have no counts of their own in a stream: text alone.
const llm = llmOf(url, { temperature: 0.8, maxTokens: 40, modelKwargs: { seed } });
const pieces = [];
for await (const piece of await llm.stream(cases.chinese)) pieces.push(piece);
outcome.completion = { text: await llm.invoke(cases.chinese), joined: pieces.join(""), several: await llm.batch([cases.prompt, cases.chinese]) };

// Log-probabilities, and samples.
const reporting = chatOf(url, { ...seeded, maxTokens: 40, logprobs: true, topLogprobs: 3 });
let all;
for await (const chunk of await reporting.stream(cases.question)) all = all ? all.concat(chunk) : chunk;
outcome.logprobs = {
  whole: (await reporting.invoke(cases.question)).response_metadata.logprobs.content,
  streamed: all.response_metadata.logprobs?.content,
};
const three = chatOf(url, { n: 3, temperature: 1.5, maxTokens: 30, modelKwargs: { seed } });
outcome.samples = (await three.generate([[{ role: "user", content: cases.question }]])).generations[0].map(({ text }) => text);

// Vectors.
const network = counted();
const embedder = new OpenAIEmbeddings(common(url, { model: "minilm", fetch: network.fetch, stripNewLines: false }));
outcome.embeddings = {
  vectors: await embedder.embedDocuments(cases.texts),
  asked: network.requests.at(-1).body.encoding_format ?? null,
  one: await embedder.embedQuery(cases.texts[1]),
};

// Errors.
const keyed = await start({ keys: [{ name: "slow", key: KEY, requestsPerMinute: 1 }] });
const ended = await start();
await drain(ended);
const { question } = cases;
const tool = { type: "function", function: { name: "f", parameters: { type: "object", properties: {} } } };
outcome.errors = {
  tooLong: await failure(() => llmOf(url, { maxTokens: 16 }).invoke(tooLong)),
  tooLongStreamed: await failure(() => chatOf(url).stream(tooLong)),
  tooLongResponse: await failure(() => chatOf(url, { useResponsesApi: true }).invoke(tooLong)),
  tooLongText: await failure(() => embedder.embedDocuments(["short", tooLong])),
  noModel: await failure(() => chatOf(url, { model: "gpt-none" }).invoke(question)),
  wrongKey: await failure(() => chatOf(keyed, { apiKey: "sk-wrong" }).invoke(question)),
  withinLimit: await failure(() => chatOf(keyed).invoke(question)),
  limit: await failure(() => chatOf(keyed).invoke(question)),
  draining: await failure(() => chatOf(ended).invoke(question)),
  tools: await failure(() => chatOf(url).bindTools([tool]).invoke(question)),
  format: await failure(() => chatOf(url).invoke(question, { response_format: { type: "json_object" } })),
};

// A server that ends in the middle of a stream.
const endless = { ignore_eos: true };
outcome.torn = {};
for (const name of ["completions", "chat", "responses"]) {
  const base = await start();
  const more = { ...tokens(name, 490), modelKwargs: endless };
  const from = name === "completions" ? llmOf(base, more) : chatOf(base, more);
  let pieces = 0;
  const error = await failure(async () => {
    for await (const chunk of await from.stream("W")) if ((chunk.text ?? chunk) !== "" && ++pieces === 1) await drain(base);
  });
  outcome.torn[name] = { pieces, error };
}

// Who waits no longer, and who leaves in the middle.
const long = { maxTokens: 490, n: 64, modelKwargs: endless };
const from = performance.now();
const timedOut = await failure(() => llmOf(url, { ...long, timeout: 300 }).invoke("One"));
outcome.timeout = { error: timedOut, ms: performance.now() - from };
await idleAfter();
outcome.left = {};
const controller = new AbortController();
await failure(async () => {
  const stream = await llmOf(url, { ...long, streaming: true, bestOf: undefined }).stream("One", { signal: controller.signal });
  for await (const _ of stream) outcome.left.aborted ??= await leaving(() => controller.abort());
});

// Refused for now: the client waits and comes again.
outcome.retried = await retried((base, fetch) => llmOf(base, { maxTokens: 16, maxRetries: 4, fetch }).invoke("One"));
print(outcome);
