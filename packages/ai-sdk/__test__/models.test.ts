/** The models as the AI SDK calls them, by their interface alone: what it needs no client and no network for. */
import assert from "node:assert/strict";
import { cpSync } from "node:fs";
import { join } from "node:path";
import type { LanguageModelV4Prompt as Prompt } from "@ai-sdk/provider" with { "resolution-mode": "import" };
import { APICallError, NoSuchModelError, TooManyEmbeddingValuesForCallError, UnsupportedFunctionalityError } from "@ai-sdk/provider-v3";
import { BERT, CandlewickError, GPT2, loadBERT, loadGPT2 } from "candlewick";
import { afterAll, beforeAll, describe, test } from "vitest";
import { createCandlewick, embeddingModel, languageModel, rerankingModel, type CandlewickLanguageModel } from "../index.js";
import * as v3 from "../v3.js";
import { collect } from "../../../__test__/support/assertions.js";
import { newFolder } from "../../../__test__/support/models.js";

const models = join(__dirname, "..", "..", "..", "models");
const user = (text: string): Prompt => [{ role: "user", content: [{ type: "text", text }] }];

let lm: GPT2;
let bert: BERT;
let writer: CandlewickLanguageModel<"v4">;
beforeAll(async () => {
  [lm, bert] = await Promise.all([loadGPT2(join(models, "default")), loadBERT(join(models, "minilm"))]);
  writer = languageModel(lm);
});
afterAll(async () => {
  await Promise.all([lm.close(), bert.close()]);
});

/** Until nothing is computed for anybody. */
async function idle(model: GPT2 = lm): Promise<void> {
  for (let i = 0; i < 5000 && model.stats().running > 0; i++) await new Promise((resolve) => setTimeout(resolve, 2));
  assert.equal(model.stats().running, 0);
}

const failure = async (work: () => unknown): Promise<APICallError & { cause: CandlewickError }> => {
  const error = await Promise.resolve()
    .then(work)
    .then(
      () => assert.fail("it did not fail"),
      (error: unknown) => error,
    );
  assert.ok(APICallError.isInstance(error), String(error));
  assert.ok(error.cause instanceof CandlewickError);
  return error as APICallError & { cause: CandlewickError };
};

describe("a language model", () => {
  test("says which interface it has: v4, or v3 for version 6 of ai", async () => {
    assert.deepEqual([writer.specificationVersion, writer.provider, writer.modelId], ["v4", "candlewick", "default"]);
    assert.equal(v3.languageModel(lm).specificationVersion, "v3");
    assert.equal(v3.embeddingModel(bert).specificationVersion, "v3");
    assert.equal(v3.rerankingModel(bert).specificationVersion, "v3");
  });

  test("streams its parts in the order of the specification; their deltas are the text", async () => {
    const call = { prompt: user("Once upon a time"), maxOutputTokens: 8, seed: 5 };
    const { stream } = await writer.doStream(call);
    const parts = await collect(stream);
    const types = parts.map(({ type }) => type);
    assert.deepEqual([...new Set(types)], ["stream-start", "response-metadata", "text-start", "text-delta", "text-end", "finish"]);
    assert.equal(types.filter((type) => type === "text-delta").length, types.length - 5);
    const { content, usage, finishReason, providerMetadata } = await writer.doGenerate(call);
    const deltas = parts.map((part) => (part.type === "text-delta" ? part.delta : "")).join("");
    assert.equal(deltas, content[0]!.text);
    const finish = parts.at(-1)!;
    assert.ok(finish.type === "finish");
    assert.deepEqual(finish.finishReason, finishReason);
    assert.deepEqual(finishReason, { unified: "length", raw: "length" });
    assert.equal(finish.usage.outputTokens.total, 8);
    assert.equal(usage.outputTokens.total, 8);
    assert.equal(providerMetadata.candlewick["seed"], 5);
    const ids = new Set(parts.flatMap((part) => ("id" in part && part.type.startsWith("text") ? [part.id] : [])));
    assert.equal(ids.size, 1);
  });

  test("counts the prompt's tokens that it had computed before", async () => {
    const prompt = user("It was the best of times, it was the worst of times. ".repeat(12));
    const first = await writer.doGenerate({ prompt, maxOutputTokens: 1 });
    const second = await writer.doGenerate({ prompt, maxOutputTokens: 1 });
    const { total, noCache, cacheRead } = second.usage.inputTokens;
    assert.equal(total, first.usage.inputTokens.total);
    assert.ok(cacheRead! > 0);
    assert.equal(noCache, total! - cacheRead!);
  });

  test("gives raw tokens where they are asked for, and logprobs", async () => {
    const { stream } = await writer.doStream({
      prompt: user("Once"),
      maxOutputTokens: 3,
      includeRawChunks: true,
      providerOptions: { candlewick: { logprobs: 2 } },
    });
    const parts = await collect(stream);
    const raw = parts.filter((part) => part.type === "raw");
    assert.equal(raw.length, 3);
    const finish = parts.at(-1)!;
    assert.ok(finish.type === "finish");
    const logprobs = finish.providerMetadata!.candlewick["logprobs"] as { logprob: number; topLogprobs: unknown[] }[];
    assert.equal(logprobs.length, 3);
    assert.ok(logprobs.every(({ logprob, topLogprobs }) => logprob <= 0 && topLogprobs.length === 2));
  });

  test("computes at the pace of its reader, and no more once that has left", async () => {
    const { stream } = await writer.doStream({ prompt: user("Once"), maxOutputTokens: 500, providerOptions: { candlewick: { ignoreEos: true } } });
    const reader = stream.getReader();
    for (let i = 0; i < 5; i++) await reader.read();
    // Time enough for all 500 tokens, if they were wanted.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assert.equal(lm.stats().running, 1);
    await reader.cancel();
    assert.equal(lm.stats().running, 0);
  });

  test("ends when the signal is aborted, before, during and after the prompt", async () => {
    const providerOptions = { candlewick: { ignoreEos: true } };
    const call = (abortSignal: AbortSignal) => ({ prompt: user("Once"), maxOutputTokens: 500, abortSignal, providerOptions });
    await assert.rejects(writer.doGenerate(call(AbortSignal.abort())), { name: "AbortError" });

    const controller = new AbortController();
    const { stream } = await writer.doStream(call(controller.signal));
    const reader = stream.getReader();
    for (let i = 0; i < 5; i++) await reader.read();
    controller.abort();
    await assert.rejects(
      async () => {
        while (!(await reader.read()).done);
      },
      { name: "AbortError" },
    );
    await idle();
    await assert.rejects(writer.doGenerate(call(AbortSignal.timeout(1))), { name: "TimeoutError" });
    await idle();
  });

  test("waits for a model that is loading no longer than its signal", async () => {
    await using lazy = languageModel(join(models, "default"));
    const controller = new AbortController();
    const work = lazy.doGenerate({ prompt: user("Once"), maxOutputTokens: 1, abortSignal: controller.signal });
    controller.abort();
    await assert.rejects(work, { name: "AbortError" });
    // The load went on, for others.
    await lazy.doGenerate({ prompt: user("Once"), maxOutputTokens: 1 });
  });

  test("warns of what it leaves out, and refuses what would change the answer", async () => {
    const call = { prompt: user("Once"), maxOutputTokens: 1 };
    const tools = [{ type: "function" as const, name: "weather", inputSchema: { type: "object" as const } }];
    const features = async (more: object) => (await writer.doGenerate({ ...call, ...more })).warnings.map((warning) => warning.feature);
    assert.deepEqual(await features({}), []);
    assert.deepEqual(await features({ tools, toolChoice: { type: "auto" } }), ["tools"]);
    assert.deepEqual(await features({ tools, toolChoice: { type: "none" } }), []);
    assert.deepEqual(await features({ reasoning: "high" }), ["reasoning"]);
    assert.deepEqual(await features({ reasoning: "none", responseFormat: { type: "text" } }), []);

    const { stream } = await writer.doStream({ ...call, tools, toolChoice: { type: "auto" } });
    const [start] = await collect(stream);
    assert.ok(start?.type === "stream-start");
    assert.equal(start.warnings.length, 1);

    const image = { type: "file" as const, mediaType: "image/png", data: { type: "data" as const, data: new Uint8Array([1]) } };
    for (const more of [
      { tools, toolChoice: { type: "required" as const } },
      { tools, toolChoice: { type: "tool" as const, toolName: "weather" } },
      { responseFormat: { type: "json" as const } },
      { prompt: [{ role: "user" as const, content: [image] }] },
      { prompt: [{ role: "tool" as const, content: [] }] },
      // No chat template: what is no text to continue is refused.
      { prompt: [{ role: "system" as const, content: "Be kind." }, ...user("Once")] as Prompt },
    ]) {
      for (const how of ["doGenerate", "doStream"] as const) {
        await assert.rejects(async () => writer[how]({ ...call, ...more }), (error) => UnsupportedFunctionalityError.isInstance(error));
      }
    }
  });

  test("answers conversations, where the model has learned to", async () => {
    await using talker = languageModel(join(models, "dialogue"));
    const prompt: Prompt = [
      ...user("How are you?"),
      { role: "assistant", content: [{ type: "reasoning", text: "Let me see." }, { type: "text", text: "I am fine." }] },
      ...user("What do you like to eat?"),
    ];
    const { content, finishReason, warnings } = await talker.doGenerate({ prompt, temperature: 0 });
    assert.equal(finishReason.unified, "stop");
    assert.deepEqual(warnings.map((warning) => warning.feature), ["reasoning"]);
    await using same = await loadGPT2(join(models, "dialogue"));
    const messages = [
      { role: "user", content: "How are you?" },
      { role: "assistant", content: "I am fine." },
      { role: "user", content: "What do you like to eat?" },
    ] as const;
    assert.equal(content[0]!.text, await same.chat(messages, { temperature: 0 }).text());
  });

  test("refuses options that it does not know, and those that the AI SDK has settings for", async () => {
    for (const [candlewick, code] of [
      [{ minp: 0.5 }, "OPTION_UNKNOWN"],
      [{ minP: 2 }, "OPTION_INVALID"],
      [{ temperature: 1 }, "OPTION_INVALID"],
      [{ n: 2 }, "OPTION_INVALID"],
    ] as const) {
      const { statusCode, isRetryable, cause } = await failure(() => writer.doGenerate({ prompt: user("Once"), providerOptions: { candlewick } }));
      assert.deepEqual([statusCode, isRetryable, cause.code], [400, false, code]);
    }
  });

  test("takes every option of a call to the model", async () => {
    const base = { maxNewTokens: 20, seed: 1 };
    const usual = await lm.generate("Once upon a time", base).text();
    for (const [theirs, ours, value] of [
      ["maxOutputTokens", "maxNewTokens", 3],
      ["temperature", "temperature", 0],
      ["topK", "topK", 1],
      ["topP", "topP", 0.05],
      ["presencePenalty", "presencePenalty", 20],
      ["frequencyPenalty", "frequencyPenalty", 20],
      ["stopSequences", "stop", [" "]],
      ["seed", "seed", 2],
      ["providerOptions", "minP", 1],
      ["providerOptions", "repetitionPenalty", 20],
      ["providerOptions", "logitBias", { 7: 30 }],
    ] as const) {
      const expected = await lm.generate("Once upon a time", { ...base, [ours]: value }).text();
      assert.notEqual(expected, usual, ours);
      const given = theirs === "providerOptions" ? { candlewick: { [ours]: value } } : value;
      const { content } = await writer.doGenerate({ prompt: user("Once upon a time"), maxOutputTokens: 20, seed: 1, [theirs]: given });
      assert.equal(content[0]!.text, expected, ours);
    }
  });

  test("is to be asked again when the queue is full, and after how long; what fails on the way is a part", async () => {
    await using busy = await loadGPT2(join(models, "default"), { maxQueuedTokens: 50 });
    const model = languageModel(busy);
    for (const how of ["doGenerate", "doStream"] as const) {
      const { isRetryable, responseHeaders, cause, data } = await failure(() => model[how]({ prompt: user("word ".repeat(100)) }));
      assert.ok(isRetryable);
      assert.equal(cause.code, "QUEUE_FULL");
      assert.deepEqual(data, { code: "QUEUE_FULL" });
      assert.equal(responseHeaders!["retry-after-ms"], String(cause.retryAfterMs));
    }
    const { stream } = await model.doStream({ prompt: user("Once"), maxOutputTokens: 500, providerOptions: { candlewick: { ignoreEos: true } } });
    const reader = stream.getReader();
    for (let i = 0; i < 5; i++) await reader.read();
    await busy.close();
    const rest = [];
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      rest.push(value);
    }
    const [error, finish] = rest.slice(-2);
    assert.ok(error?.type === "error" && APICallError.isInstance(error.error) && !error.error.isRetryable);
    assert.ok(finish?.type === "finish" && finish.finishReason.unified === "error");
  });
});

describe("an embedding model", () => {
  test("gives vectors of numbers and counts tokens", async () => {
    const model = embeddingModel(bert);
    assert.deepEqual([model.maxEmbeddingsPerCall, model.supportsParallelCalls, model.modelId], [2048, true, "minilm"]);
    const { embeddings, usage, warnings } = await model.doEmbed({ values: ["a cat", "a small cat"] });
    assert.deepEqual(warnings, []);
    assert.deepEqual(embeddings, (await bert.embed(["a cat", "a small cat"])).map((row) => Array.from(row)));
    assert.deepEqual(usage, { tokens: 4 + 5 });
    const [long] = await bert.encode(["word ".repeat(2000)], { maxLength: bert.info.sentences.maxLength });
    assert.deepEqual((await model.doEmbed({ values: ["word ".repeat(2000)] })).usage, { tokens: long!.ids.length });
  });

  test("takes its own options, and no others", async () => {
    const model = embeddingModel(bert);
    const { embeddings } = await model.doEmbed({ values: ["a cat"], providerOptions: { candlewick: { normalize: false, pooling: "cls", prompt: "query: " } } });
    assert.deepEqual(embeddings, (await bert.embed(["a cat"], { normalize: false, pooling: "cls", prompt: "query: " })).map((row) => Array.from(row)));
    for (const candlewick of [{ precision: "int8" }, { pooling: "none" }, { promptName: "query" }, { normalise: true }]) {
      const { statusCode, isRetryable } = await failure(() => model.doEmbed({ values: ["a"], providerOptions: { candlewick } }));
      assert.deepEqual([statusCode, isRetryable], [400, false]);
    }
  });

  test("refuses more texts than a call may have, and dimensions that it does not have", async () => {
    const model = embeddingModel(bert);
    await assert.rejects(model.doEmbed({ values: Array.from({ length: 2049 }, () => "a") }), (error) => TooManyEmbeddingValuesForCallError.isInstance(error));
    await assert.rejects(model.doEmbed({ values: ["a"], dimensions: 385 }), (error) => UnsupportedFunctionalityError.isInstance(error));
    assert.equal((await model.doEmbed({ values: ["a"], dimensions: 384 })).embeddings.length, 1);
    assert.equal((await model.doEmbed({ values: ["a"], dimensions: 128 })).embeddings[0]!.length, 128);
    await assert.rejects(model.doEmbed({ values: ["a"], abortSignal: AbortSignal.abort() }), { name: "AbortError" });
  });
});

describe("a reranking model", () => {
  test("ranks texts and objects, best first", async () => {
    const model = rerankingModel(bert);
    const query = "What is a kitten?";
    const values = ["The train leaves at nine.", "A kitten is a young cat.", "Cats sleep."];
    const { ranking, warnings, response, providerMetadata } = await model.doRerank({ query, documents: { type: "text", values }, topN: 2 });
    assert.deepEqual(ranking.map(({ index }) => index), [1, 2]);
    assert.ok(ranking[0]!.relevanceScore > ranking[1]!.relevanceScore);
    assert.deepEqual(warnings, []);
    assert.equal(response.modelId, "minilm");
    assert.deepEqual(providerMetadata.candlewick, { method: "similarity" });
    const objects = await model.doRerank({ query, documents: { type: "object", values: values.map((text) => ({ text })) } });
    assert.equal(objects.ranking[0]!.index, 1);
    assert.equal(objects.ranking.length, 3);
    assert.equal(objects.warnings[0]!.type, "compatibility");
  });

  test("says so when the model is none", async () => {
    await using topics = rerankingModel(join(models, "topics"));
    const { statusCode, cause } = await failure(() => topics.doRerank({ query: "a", documents: { type: "text", values: ["b"] } }));
    assert.deepEqual([statusCode, cause.code], [400, "TASK_UNSUPPORTED"]);
  });
});

describe("a provider", () => {
  test("makes models by their names, loads each once, and closes what it has loaded", async () => {
    const provider = createCandlewick({ models: { writer: lm, search: { source: join(models, "minilm"), threads: 1 } } });
    assert.equal(provider("writer").modelId, "writer");
    assert.equal(provider.languageModel("writer").modelId, "writer");
    const search = provider.embeddingModel("search");
    const values = ["a"];
    await Promise.all([search.doEmbed({ values }), provider.rerankingModel("search").doRerank({ query: "a", documents: { type: "text", values } })]);
    // A model's own `close()` leaves what others may use.
    await search.close();
    await search.doEmbed({ values });
    await provider.close();
    assert.equal((await failure(() => search.doEmbed({ values }))).cause.code, "MODEL_CLOSED");
    await lm.encode("still open");
  });

  test("has no other models", async () => {
    const provider = createCandlewick({ models: { writer: lm, search: bert } });
    for (const work of [
      () => provider("nobody"),
      () => provider("search"),
      () => provider("toString"),
      () => provider.embeddingModel("writer"),
      () => provider.imageModel("writer"),
    ]) {
      assert.throws(work, (error) => NoSuchModelError.isInstance(error));
    }
    assert.throws(() => createCandlewick({ models: {}, model: lm } as never), { code: "OPTION_UNKNOWN" });
    assert.throws(() => languageModel(bert as never), { code: "OPTION_INVALID" });
    assert.throws(() => embeddingModel(undefined as never), { code: "OPTION_INVALID" });
  });

  test("tries again to load what was not there", async () => {
    const folder = newFolder("late");
    await using late = languageModel(folder);
    const call = { prompt: user("Once"), maxOutputTokens: 1 };
    const { statusCode, cause } = await failure(() => late.doGenerate(call));
    assert.deepEqual([statusCode, cause.code], [404, "MODEL_NOT_FOUND"]);
    cpSync(join(models, "default"), folder, { recursive: true });
    await late.doGenerate(call);
  });
});
