// What a user of the AI SDK does with Candlewick, by the real `ai`; prints as JSON what the user sees.
//   node sdk.mjs FOLDER ai6|ai7      FOLDER: where scripts/lib/clients.mjs has installed them
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { loadGPT2 } from "candlewick";

const [, , folder, name] = process.argv;
// They would stand in the output.
globalThis.AI_SDK_LOG_WARNINGS = false;
const find = createRequire(join(folder, "package.json")).resolve;
const ai = await import(pathToFileURL(find(name)).href);
const { createCandlewick, languageModel } = await import(name === "ai6" ? "candlewick-ai-sdk/v3" : "candlewick-ai-sdk");
const { APICallError, embed, embedMany, generateText, jsonSchema, Output, rerank, RetryError, streamText, UnsupportedFunctionalityError } = ai;

const models = join(import.meta.dirname, "..", "..", "..", "..", "models");
const lm = await loadGPT2(join(models, "default"));
const candlewick = createCandlewick({
  models: {
    writer: lm,
    talker: { source: join(models, "dialogue"), threads: 1 },
    search: join(models, "minilm"),
    topics: join(models, "topics"),
    missing: join(models, "no-such-model"),
  },
});
const writer = candlewick("writer");

/** The error of `work`, as a user tells what it is. */
async function errorOf(work) {
  try {
    await work();
    return undefined;
  } catch (error) {
    const last = RetryError.isInstance(error) ? error.lastError : error;
    return {
      name: error.name,
      message: error.message,
      call: APICallError.isInstance(last),
      unsupported: UnsupportedFunctionalityError.isInstance(last),
      status: last.statusCode,
      code: last.data?.code,
      cause: last.cause?.code,
    };
  }
}

/** Until nothing is computed; how many milliseconds that took. */
async function idle(model = lm) {
  const started = performance.now();
  while (model.stats().running > 0 && performance.now() - started < 20_000) await new Promise((resolve) => setTimeout(resolve, 2));
  return { running: model.stats().running, waited: performance.now() - started };
}

const seen = {};

{
  const { text, finishReason, usage, response, warnings, providerMetadata } = await generateText({
    model: writer,
    prompt: "It is a truth universally acknowledged",
    maxOutputTokens: 12,
    temperature: 0.8,
    topK: 50,
    topP: 0.95,
    seed: 7,
    providerOptions: { candlewick: { minP: 0.01, logprobs: 2 } },
  });
  const { result } = lm.generate("It is a truth universally acknowledged", { maxNewTokens: 12, temperature: 0.8, topK: 50, topP: 0.95, seed: 7, minP: 0.01 });
  seen.generate = { text, expected: (await result).text, finishReason, usage, modelId: response.modelId, id: response.id, timestamp: response.timestamp, warnings, metadata: providerMetadata };
}

{
  const result = await generateText({ model: writer, prompt: "Once", stopSequences: ["."], maxOutputTokens: 200, temperature: 0 });
  seen.stop = { text: result.text, finishReason: result.finishReason };
}

{
  const result = streamText({ model: writer, prompt: "Once upon a time", maxOutputTokens: 60, seed: 3 });
  const deltas = [];
  for await (const delta of result.textStream) deltas.push(delta);
  const [text, finishReason, usage, metadata, response] = await Promise.all([result.text, result.finishReason, result.usage, result.providerMetadata, result.response]);
  const whole = await generateText({ model: writer, prompt: "Once upon a time", maxOutputTokens: 60, seed: 3 });
  seen.stream = { deltas, text, whole: whole.text, finishReason, usage, metadata, modelId: response.modelId };
}

{
  const { text } = await generateText({ model: writer, prompt: "我们很高兴能够与您合作！", maxOutputTokens: 24, temperature: 0 });
  const result = streamText({ model: writer, prompt: "我们很高兴能够与您合作！", maxOutputTokens: 24, temperature: 0 });
  let streamed = "";
  for await (const delta of result.textStream) streamed += delta;
  seen.chinese = { text, streamed };
}

{
  const messages = [
    { role: "user", content: "How are you?" },
    { role: "assistant", content: "I am fine." },
    { role: "user", content: [{ type: "text", text: "What do you like?" }] },
  ];
  const { text, finishReason } = await generateText({ model: candlewick("talker"), messages, temperature: 0 });
  seen.chat = { text, finishReason };
}

{
  const controller = new AbortController();
  const aborted = [];
  const result = streamText({
    model: writer,
    prompt: "Once",
    maxOutputTokens: 500,
    abortSignal: controller.signal,
    onAbort: () => aborted.push("aborted"),
    onError: ({ error }) => aborted.push(String(error)),
    providerOptions: { candlewick: { ignoreEos: true } },
  });
  let deltas = 0;
  let during = 0;
  for await (const _ of result.textStream) {
    if (++deltas === 3) {
      during = lm.stats().running;
      controller.abort();
    }
  }
  seen.abort = { deltas, during, aborted, ...(await idle()) };
}

{
  const work = generateText({ model: writer, prompt: "Once", maxOutputTokens: 500, abortSignal: AbortSignal.timeout(1), providerOptions: { candlewick: { ignoreEos: true } } });
  seen.timeout = { error: await errorOf(() => work), ...(await idle()) };
}

{
  const values = ["a cat", "a kitten", "a car", "我们很高兴能够与您合作！"];
  const { embeddings, usage } = await embedMany({ model: candlewick.embeddingModel("search"), values });
  const one = await embed({ model: candlewick.embeddingModel("search"), value: "a cat" });
  const like = (a, b) => embeddings[a].reduce((sum, x, i) => sum + x * embeddings[b][i], 0);
  const cosine = ai.cosineSimilarity(embeddings[0], embeddings[1]);
  seen.embed = { lengths: embeddings.map(({ length }) => length), like: like(0, 1), unlike: like(0, 2), cosine, usage, same: embeddings[0].every((x, i) => x === one.embedding[i]) };
}

{
  const documents = ["The train leaves at nine.", "Cats sleep most of the day.", "A kitten is a young cat."];
  const { ranking, rerankedDocuments } = await rerank({ model: candlewick.rerankingModel("search"), query: "What is a kitten?", documents, topN: 2 });
  seen.rerank = { ranking, rerankedDocuments };
}

{
  const calls = { count: 0 };
  const counted = ai.wrapLanguageModel({
    model: writer,
    middleware: { specificationVersion: writer.specificationVersion, wrapGenerate: ({ doGenerate }) => (calls.count++, doGenerate()) },
  });
  seen.refused = { error: await errorOf(() => generateText({ model: counted, prompt: "Once", temperature: -1 })), calls: calls.count };
  seen.unknown = await errorOf(() => generateText({ model: writer, prompt: "Once", providerOptions: { candlewick: { minp: 0.1 } } }));
  seen.overflow = await errorOf(() => generateText({ model: writer, prompt: "word ".repeat(1000) }));
  seen.system = await errorOf(() => generateText({ model: writer, system: "Be kind.", prompt: "Once" }));
  seen.missing = await errorOf(() => generateText({ model: candlewick("missing"), prompt: "Once" }));
  seen.unfit = await errorOf(() => rerank({ model: candlewick.rerankingModel("topics"), query: "a", documents: ["b"] }));
  seen.image = await errorOf(() =>
    generateText({ model: writer, messages: [{ role: "user", content: [{ type: "image", image: new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]), mediaType: "image/png" }] }] }),
  );
  const schema = jsonSchema({ type: "object", properties: { name: { type: "string" } }, required: ["name"] });
  seen.json = await errorOf(() => generateText({ model: writer, prompt: "Once", output: Output.object({ schema }) }));
  const tools = { weather: ai.tool({ inputSchema: schema, execute: async () => "sunny" }) };
  const { warnings } = await generateText({ model: writer, prompt: "Once", maxOutputTokens: 2, tools });
  seen.tools = { warnings, required: await errorOf(() => generateText({ model: writer, prompt: "Once", tools, toolChoice: "required" })) };
  seen.noModel = await errorOf(async () => candlewick("nobody"));

  const errors = [];
  const result = streamText({ model: writer, prompt: "Once", temperature: -1, onError: ({ error }) => errors.push(error.data?.code) });
  let text = "";
  for await (const delta of result.textStream) text += delta;
  seen.streamRefused = { errors, text };

  const late = [];
  const closing = await loadGPT2(join(models, "default"));
  const broken = streamText({
    model: languageModel(closing),
    prompt: "Once",
    maxOutputTokens: 500,
    onError: ({ error }) => late.push(error.data?.code),
    providerOptions: { candlewick: { ignoreEos: true } },
  });
  let before = "";
  for await (const delta of broken.textStream) {
    before += delta;
    await closing.close();
  }
  seen.broken = { errors: late, before, finishReason: await broken.finishReason.catch(({ name }) => name) };
}

{
  const busy = await loadGPT2(join(models, "default"), { maxQueuedTokens: 50 });
  const model = languageModel(busy);
  const times = [];
  const counted = ai.wrapLanguageModel({
    model,
    middleware: { specificationVersion: model.specificationVersion, wrapGenerate: ({ doGenerate }) => (times.push(performance.now()), doGenerate()) },
  });
  // Longer by itself than what may wait.
  const error = await errorOf(() => generateText({ model: counted, prompt: "word ".repeat(200), maxRetries: 1 }));
  seen.queue = { error, calls: times.length, waited: times[1] - times[0] };
  await busy.close();
}

await candlewick.close();
seen.closed = { given: await errorOf(() => lm.encode("still open")), loaded: await errorOf(() => embed({ model: candlewick.embeddingModel("search"), value: "a" })) };
await lm.close();
console.log(JSON.stringify(seen));
