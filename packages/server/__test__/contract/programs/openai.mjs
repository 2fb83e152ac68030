// What a user of npm's `openai` sees of the server.   node openai.mjs {url, control, folder, packages: ["openai6"]}
import { cases, counted, drain, endless, failureOf, given, idleAfter, KEY, leaving, print, retried, runningSoon, start, tooLong, use } from "./lib.mjs";

const OpenAI = use(given.packages[0]).OpenAI;
const { url } = given;
const { seed } = cases;
const clientOf = (base, more = {}) => new OpenAI({ baseURL: `${base}/v1`, apiKey: KEY, maxRetries: 0, ...more });
const network = counted();
const client = clientOf(url, { fetch: network.fetch });

const failure = (work) =>
  failureOf(work, ({ status, code, param, type, headers }) => ({ status, code, param, type, retryAfter: headers?.get?.("retry-after") }));
const counts = (usage) => ({
  prompt: usage.prompt_tokens ?? usage.input_tokens,
  completion: usage.completion_tokens ?? usage.output_tokens,
  total: usage.total_tokens,
});
const user = (content) => [{ role: "user", content }];

/** The three routes: how each is asked, and how its answers and chunks are read. */
const routes = {
  completions: {
    ask: (api, prompt, { max_tokens, ...more }) => api.completions.create({ prompt, max_tokens, ...more }),
    whole: ({ choices: [{ text, finish_reason }], usage }) => ({ text, finish: finish_reason, usage: counts(usage) }),
    delta: ({ choices }) => choices[0]?.text,
    end: ({ choices }) => choices[0]?.finish_reason,
    usage: ({ usage }) => usage,
    streaming: { stream: true, stream_options: { include_usage: true } },
  },
  chat: {
    ask: (api, prompt, { max_tokens, ...more }) => api.chat.completions.create({ messages: user(prompt), max_completion_tokens: max_tokens, ...more }),
    whole: ({ choices: [{ message, finish_reason }], usage }) => ({ text: message.content, finish: finish_reason, usage: counts(usage) }),
    delta: ({ choices }) => choices[0]?.delta.content,
    end: ({ choices }) => choices[0]?.finish_reason,
    usage: ({ usage }) => usage,
    streaming: { stream: true, stream_options: { include_usage: true } },
  },
  responses: {
    ask: (api, prompt, { max_tokens, ...more }) => api.responses.create({ input: prompt, max_output_tokens: max_tokens, ...more }),
    whole: ({ output_text, status, usage }) => ({ text: output_text, finish: finishOf(status), usage: counts(usage) }),
    delta: (event) => (event.type === "response.output_text.delta" ? event.delta : undefined),
    end: ({ response }) => (response?.output.length > 0 ? finishOf(response.status) : undefined),
    usage: ({ response }) => response?.usage,
    streaming: { stream: true },
  },
};
const finishOf = (status) => ({ completed: "stop", incomplete: "length" })[status] ?? status;
const names = Object.keys(routes);
const each = async (work) => Object.fromEntries(await inTurn(names, async (name) => [name, await work(routes[name], name)]));
async function inTurn(list, work) {
  const results = [];
  for (const one of list) results.push(await work(one));
  return results;
}

async function chunksOf(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

async function answered(route, prompt, options) {
  const whole = route.whole(await route.ask(client, prompt, options));
  const chunks = await chunksOf(route.ask(client, prompt, { ...options, ...route.streaming }));
  return {
    ...whole,
    deltas: chunks.map(route.delta).filter(Boolean),
    streamedFinish: chunks.map(route.end).filter(Boolean).at(-1),
    streamedUsage: counts(chunks.map(route.usage).filter(Boolean).at(-1)),
  };
}

const speaker = (name) => (name === "completions" ? "default" : "dialogue");
const recite = { model: "reciter", max_tokens: undefined };

const outcome = {
  models: { ids: (await client.models.list()).data.map(({ id }) => id), one: (await client.models.retrieve("minilm")).id },
  answered: await each((route, name) =>
    answered(route, name === "completions" ? cases.chinese : cases.question, { model: speaker(name), max_tokens: 40, temperature: 0.8, seed }),
  ),
  recited: await each((route) => answered(route, "W", { ...recite, max_tokens: 200 })),
  length: await each(async (route) => route.whole(await route.ask(client, "W", { ...recite, max_tokens: 5 })).finish),
  stopped: Object.fromEntries(
    await inTurn(["completions", "chat"], async (name) => {
      const { text, finish, deltas } = await answered(routes[name], "W", { ...recite, max_tokens: 200, stop: ["no such", cases.stop] });
      return [name, { text, finish, joined: deltas.join("") }];
    }),
  ),
};

// Counts of tokens: asked for, or not.
const plain = await chunksOf(client.chat.completions.create({ model: "dialogue", messages: user(cases.question), seed, stream: true }));
outcome.unasked = plain.filter((chunk) => "usage" in chunk || chunk.choices.length === 0).length;
const withUsage = await chunksOf(routes.completions.ask(client, "W", { ...recite, max_tokens: 8, ...routes.completions.streaming }));
outcome.asked = { nulls: withUsage.slice(0, -1).every(({ usage }) => usage === null), lastChoices: withUsage.at(-1).choices.length };

// A proxy may cut the bytes anywhere: the client's own decoder, given them in two parts, for each place of a cut.
const Stream = (await client.completions.create({ ...recite, prompt: "W", max_tokens: 1, stream: true })).constructor;
const decoded = (parts) => chunksOf(Stream.fromSSEResponse(new Response(sent(parts)), new AbortController()));
const sent = (parts) => new ReadableStream({ pull: (into) => void (parts.length > 0 ? into.enqueue(parts.shift()) : into.close()) });
const cut = await client.completions.create({ ...recite, prompt: "We say: ", max_tokens: 9, stream: true }).asResponse();
const bytes = new Uint8Array(await cut.arrayBuffer());
const whole = JSON.stringify(await decoded([bytes]));
outcome.cuts = { places: bytes.length - 1, wrong: [] };
for (let at = 1; at < bytes.length; at++) {
  if (JSON.stringify(await decoded([bytes.subarray(0, at), bytes.subarray(at)])) !== whole) outcome.cuts.wrong.push(at);
}
outcome.cuts.text = JSON.parse(whole).map(({ choices }) => choices[0].text).join("");

// Log-probabilities.
const inLists = async (request) => {
  const lists = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  for (const { choices } of await chunksOf(client.completions.create({ ...request, stream: true }))) {
    for (const name of Object.keys(lists)) lists[name].push(...(choices[0].logprobs?.[name] ?? []));
  }
  return lists;
};
const reports = {
  completions: async (model, prompt) => {
    const request = { model, prompt, seed, max_tokens: 40, logprobs: 3 };
    return { whole: (await client.completions.create(request)).choices[0].logprobs, streamed: await inLists(request) };
  },
  chat: async (model, prompt) => {
    const request = { model, messages: user(prompt), seed, max_completion_tokens: 40, logprobs: true, top_logprobs: 3 };
    const chunks = await chunksOf(client.chat.completions.create({ ...request, stream: true }));
    const whole = (await client.chat.completions.create(request)).choices[0].logprobs.content;
    return { whole, streamed: chunks.flatMap(({ choices }) => choices[0].logprobs?.content ?? []) };
  },
  responses: async (model, input) => {
    const request = { model, input, seed, max_output_tokens: 40, include: ["message.output_text.logprobs"], top_logprobs: 3 };
    const events = await chunksOf(client.responses.create({ ...request, stream: true }));
    const whole = (await client.responses.create(request)).output[0].content[0].logprobs;
    return { whole, streamed: events.flatMap(({ type, logprobs }) => (type === "response.output_text.delta" ? logprobs : [])) };
  },
};
// Of the model that recites characters come in parts.
outcome.logprobs = await each(async (_, name) => ({
  written: await reports[name](speaker(name), name === "completions" ? cases.chinese : cases.question),
  recited: await reports[name]("reciter", "W"),
}));

// Samples.
const three = { model: "dialogue", messages: user(cases.question), n: 3, seed, temperature: 1.5, max_completion_tokens: 30 };
const texts = ["", "", ""];
for (const { choices } of await chunksOf(client.chat.completions.create({ ...three, stream: true }))) {
  for (const { index, delta } of choices) texts[index] += delta.content ?? "";
}
outcome.samples = { whole: (await client.chat.completions.create(three)).choices.map(({ message }) => message.content), streamed: texts };

// Vectors.
const vectors = async (input, more = {}) => (await client.embeddings.create({ model: "minilm", input, ...more })).data.map(({ embedding }) => Array.from(embedding));
outcome.embeddings = { vectors: await vectors(cases.texts), asked: network.requests.at(-1).body.encoding_format ?? null, one: (await vectors(cases.texts[1]))[0] };
outcome.floats = await vectors(cases.texts, { encoding_format: "float" });

// Errors.
const keyed = await start({ keys: [{ name: "slow", key: KEY, requestsPerMinute: 1 }] });
const ended = await start();
await drain(ended);
const chat = { model: "dialogue", messages: user(cases.question) };
outcome.errors = {
  tooLong: await failure(() => client.completions.create({ model: "default", prompt: tooLong })),
  tooLongStreamed: await failure(() => client.chat.completions.create({ model: "dialogue", messages: user(tooLong), stream: true })),
  tooLongResponse: await failure(() => client.responses.create({ model: "dialogue", input: tooLong })),
  tooLongText: await failure(() => client.embeddings.create({ model: "minilm", input: ["short", tooLong] })),
  noModel: await failure(() => client.chat.completions.create({ ...chat, model: "gpt-5" })),
  wrongKey: await failure(() => clientOf(keyed, { apiKey: "sk-wrong" }).models.list()),
  withinLimit: await failure(() => clientOf(keyed).chat.completions.create(chat)),
  limit: await failure(() => clientOf(keyed).chat.completions.create(chat)),
  draining: await failure(() => clientOf(ended).chat.completions.create(chat)),
  tools: await failure(() => client.chat.completions.create({ ...chat, tools: [{ type: "function", function: { name: "f", parameters: {} } }] })),
  format: await failure(() => client.chat.completions.create({ ...chat, response_format: { type: "json_object" } })),
  responseTools: await failure(() => client.responses.create({ model: "dialogue", input: "x", tools: [{ type: "web_search" }] })),
  ids: await failure(() => client.embeddings.create({ model: "minilm", input: [[1, 2, 3]] })),
};

// A server that ends in the middle of a stream.
outcome.torn = await each(async (route, name) => {
  const base = await start();
  let pieces = 0;
  const error = await failure(async () => {
    for await (const chunk of await route.ask(clientOf(base), "W", { model: speaker(name), ...endless, ...route.streaming })) {
      if (route.delta(chunk) && ++pieces === 1) await drain(base);
    }
  });
  return { pieces, error };
});

// Who waits no longer, and who leaves in the middle.
const long = { model: "default", prompt: "One", n: 64, ...endless, max_tokens: 490 };
const from = performance.now();
const timedOut = await failure(() => clientOf(url, { timeout: 300 }).completions.create(long));
outcome.timeout = { error: timedOut, ms: performance.now() - from };
await idleAfter();
const controller = new AbortController();
outcome.left = {};
for await (const _ of await client.completions.create({ ...long, stream: true }, { signal: controller.signal })) {
  if (!outcome.left.aborted) outcome.left.aborted = await leaving(() => controller.abort());
}
const stream = await client.completions.create({ ...long, stream: true });
let before;
for await (const _ of stream) {
  before = await runningSoon();
  break;
}
outcome.left.loop = { before, ms: await idleAfter() };

// Refused for now: the client waits as long as it is told, and comes again.
outcome.retried = await retried(async (base, fetch) => {
  const patient = clientOf(base, { maxRetries: 3, fetch });
  return (await patient.completions.create({ model: "default", prompt: "One", max_tokens: 16 })).choices[0].text;
});
print(outcome);
