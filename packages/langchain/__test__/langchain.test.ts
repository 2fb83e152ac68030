/** What a user of LangChain sees, with the real @langchain/core. */
import assert from "node:assert/strict";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InMemoryCache } from "@langchain/core/caches";
import { Document } from "@langchain/core/documents";
import { AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage } from "@langchain/core/messages";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate, PromptTemplate } from "@langchain/core/prompts";
import { BERT, CandlewickError, GPT2, loadBERT, loadGPT2, type ErrorCode } from "candlewick";
import { afterAll, beforeAll, describe, test } from "vitest";
import { newFolder } from "../../../__test__/support/models.js";
import { CandlewickEmbeddings, CandlewickLLM, CandlewickRerank, ChatCandlewick } from "../index.js";

const models = join(__dirname, "..", "..", "..", "models");
const LONG = { maxNewTokens: 500, ignoreEos: true };

let lm: GPT2;
let talker: GPT2;
let bert: BERT;
beforeAll(async () => {
  [lm, talker, bert] = await Promise.all([loadGPT2(join(models, "default")), loadGPT2(join(models, "dialogue")), loadBERT(join(models, "minilm"))]);
});
afterAll(async () => {
  await Promise.all([lm.close(), talker.close(), bert.close()]);
});

/** A copy of minilm that names its prompts. */
function withPrompts(): string {
  const folder = newFolder("prompted");
  cpSync(join(models, "minilm"), folder, { recursive: true });
  const prompts = { query: "Represent this: ", passage: "A passage: " };
  writeFileSync(join(folder, "config_sentence_transformers.json"), JSON.stringify({ prompts, default_prompt_name: null }));
  return folder;
}

const hasCode =
  (code: ErrorCode) =>
  (error: unknown): boolean =>
    error instanceof CandlewickError && error.code === code;

/** Until nothing is computed for anybody. */
async function idle(model: GPT2): Promise<void> {
  for (let i = 0; i < 5000 && model.stats().running > 0; i++) await new Promise((resolve) => setTimeout(resolve, 2));
  assert.equal(model.stats().running, 0);
}

/** What a callback handler is told. */
function listener() {
  const tokens: [text: string, prompt: number][] = [];
  const ends: unknown[] = [];
  const errors: unknown[] = [];
  return {
    tokens,
    ends,
    errors,
    handleLLMNewToken: (token: string, { prompt }: { prompt: number }) => void tokens.push([token, prompt]),
    handleLLMEnd: (output: { llmOutput?: { tokenUsage?: unknown } }) => void ends.push(output.llmOutput?.tokenUsage),
    handleLLMError: (error: unknown) => void errors.push(error),
  };
}

describe("CandlewickLLM", () => {
  test("continues text, with its settings and with a call's", async () => {
    const llm = new CandlewickLLM({ model: lm, maxNewTokens: 12, temperature: 0.8, seed: 7 });
    const options = { maxNewTokens: 12, temperature: 0.8, seed: 7 };
    assert.equal(await llm.invoke("Once upon a time"), await lm.generate("Once upon a time", options).text());
    assert.equal(await llm.invoke("Once upon a time", { seed: 8, topK: 5 }), await lm.generate("Once upon a time", { ...options, seed: 8, topK: 5 }).text());
    const bound = llm.withConfig({ maxNewTokens: 3 });
    assert.equal(await bound.invoke("Once upon a time"), await lm.generate("Once upon a time", { ...options, maxNewTokens: 3 }).text());
    assert.equal(await llm.invoke("我们很高兴", { temperature: 0 }), await lm.generate("我们很高兴", { ...options, temperature: 0 }).text());
  });

  test("computes the prompts of a call together, and says what each took", async () => {
    const llm = new CandlewickLLM({ model: lm, temperature: 0 });
    const { generations, llmOutput } = await llm.generate(["Once", "It is a truth"], { maxNewTokens: 5, logprobs: 1 });
    assert.deepEqual(
      generations.map(([one]) => one!.text),
      await Promise.all(["Once", "It is a truth"].map((prompt) => lm.generate(prompt, { temperature: 0, maxNewTokens: 5 }).text())),
    );
    assert.equal(llmOutput!["tokenUsage"].completionTokens, 10);
    assert.equal(llmOutput!["tokenUsage"].totalTokens, llmOutput!["tokenUsage"].promptTokens + 10);
    const info = generations[1]![0]!.generationInfo!;
    assert.equal(info["finish_reason"], "length");
    assert.equal(info["logprobs"].length, 5);
    assert.ok(info["timings"].firstTokenMs > 0);
    const batch = await llm.batch(["Once", "Once"], { maxNewTokens: 5 });
    assert.equal(batch[0], generations[0]![0]!.text);
    assert.equal(batch[1], batch[0]);
  });

  test("streams, and tells callbacks of each token", async () => {
    const llm = new CandlewickLLM({ model: lm, temperature: 0, maxNewTokens: 20 });
    const heard = listener();
    let streamed = "";
    for await (const text of await llm.stream("Once", { callbacks: [heard] })) streamed += text;
    const whole = await llm.invoke("Once");
    assert.equal(streamed, whole);
    assert.equal(heard.tokens.map(([text]) => text).join(""), whole);
    assert.ok(heard.tokens.length > 10);
    assert.equal(heard.ends.length, 1);

    const streaming = new CandlewickLLM({ model: lm, temperature: 0, maxNewTokens: 5, streaming: true });
    const both = listener();
    const { generations } = await streaming.generate(["Once", "It is"], { callbacks: [both] });
    for (const index of [0, 1]) {
      const text = both.tokens.filter(([, prompt]) => prompt === index).map(([token]) => token);
      assert.equal(text.join(""), generations[index]![0]!.text);
    }
  });

  test("ends the compute when the signal is aborted, its reader leaves, or time is out", async () => {
    const llm = new CandlewickLLM({ model: lm, ...LONG });
    const controller = new AbortController();
    const stream = await llm.stream("Once", { signal: controller.signal });
    await assert.rejects(async () => {
      let count = 0;
      for await (const _ of stream) if (++count === 3) controller.abort();
    });
    await idle(lm);
    for await (const _ of await llm.stream("Once")) break;
    await idle(lm);
    await assert.rejects(llm.generate(["Once", "It is"], { timeout: 1 }));
    await idle(lm);
    await assert.rejects(llm.invoke("Once", { signal: AbortSignal.abort() }));
  });

  test("ends before a stop string; a call's take the place of the model's", async () => {
    const llm = new CandlewickLLM({ model: lm, temperature: 0, maxNewTokens: 100, stop: [" of"] });
    const text = await llm.invoke("Once");
    assert.ok(text.length > 0 && !text.includes(" of"));
    const other = await llm.generate(["Once"], { stop: [" the"] });
    assert.ok(!other.generations[0]![0]!.text.includes(" the"));
    assert.deepEqual([other.generations[0]![0]!.generationInfo!["finish_reason"], other.generations[0]![0]!.generationInfo!["stop_sequence"]], ["stop", " the"]);
  });

  test("throws Candlewick's errors, and tries again for a full queue alone", async () => {
    const llm = new CandlewickLLM({ model: lm });
    await assert.rejects(llm.invoke("Once", { temprature: 1 } as never), hasCode("OPTION_UNKNOWN"));
    await assert.rejects(llm.invoke("Once", { temperature: -1 }), hasCode("OPTION_INVALID"));
    await assert.rejects(llm.invoke("Once", { n: 2 } as never), hasCode("OPTION_INVALID"));
    await assert.rejects(llm.invoke("Once", { tools: [{}] } as never), hasCode("TASK_UNSUPPORTED"));
    await assert.rejects(llm.invoke("word ".repeat(1000)), hasCode("CONTEXT_OVERFLOW"));
    assert.throws(() => new CandlewickLLM({ model: lm, numReturnSequences: 2 } as never), hasCode("OPTION_INVALID"));
    assert.throws(() => new CandlewickLLM({ model: bert as never }), hasCode("OPTION_INVALID"));
    // Objects of frameworks, such as LangGraph's store, are no options.
    await llm.invoke("Once", { maxNewTokens: 1, store: {}, writer: () => {} } as never);

    await using busy = await loadGPT2(join(models, "default"), { maxQueuedTokens: 50 });
    let attempts = 0;
    const counted = new Proxy(busy, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        return (...rest: unknown[]) => (name === "generate" && attempts++, (value as (...rest: unknown[]) => unknown).apply(target, rest));
      },
    });
    const waiting = new CandlewickLLM({ model: counted, maxRetries: 1 });
    await assert.rejects(waiting.invoke("word ".repeat(200)), hasCode("QUEUE_FULL"));
    assert.equal(attempts, 2);
    await assert.rejects(waiting.invoke("word ".repeat(10), { maxNewTokens: 5000 }), hasCode("CONTEXT_OVERFLOW"));
    assert.equal(attempts, 3);
  });

  test("tells a callback of its failure", async () => {
    const heard = listener();
    await assert.rejects(new CandlewickLLM({ model: lm }).invoke("Once", { temperature: -1, callbacks: [heard] }));
    assert.ok(hasCode("OPTION_INVALID")(heard.errors[0]));
  });

  test("is a part of chains, and of caches by its settings", async () => {
    const cache = new InMemoryCache();
    const llm = new CandlewickLLM({ model: lm, temperature: 0, maxNewTokens: 5, cache });
    const chain = PromptTemplate.fromTemplate("The {thing}").pipe(llm);
    assert.equal(await chain.invoke({ thing: "king" }), await lm.generate("The king", { temperature: 0, maxNewTokens: 5 }).text());
    const { count } = lm.stats().steps;
    await chain.invoke({ thing: "king" });
    assert.equal(lm.stats().steps.count, count);
    assert.notEqual(await llm.invoke("The king", { maxNewTokens: 8 }), await llm.invoke("The king"));
    const longer = new CandlewickLLM({ model: lm, temperature: 0, maxNewTokens: 9, cache });
    assert.notEqual(await longer.invoke("The king"), await llm.invoke("The king"));
    const talk = (maxNewTokens: number) => new ChatCandlewick({ model: talker, temperature: 0, maxNewTokens, cache }).invoke("How are you?");
    const [short, long] = [await talk(1), await talk(2)];
    assert.notEqual(short.content, long.content);
  });

  test("loads its model when it is first used, and closes it", async () => {
    const llm = new CandlewickLLM({ model: { source: join(models, "default"), threads: 1 }, maxNewTokens: 2 });
    assert.ok((await llm.invoke("Once")).length > 0);
    await llm.close();
    await assert.rejects(llm.invoke("Once"), hasCode("MODEL_CLOSED"));
    await new CandlewickLLM({ model: lm }).close();
    await lm.encode("still open");
    await using missing = new CandlewickLLM({ model: join(models, "no-such-model") });
    await assert.rejects(missing.invoke("Once"), hasCode("MODEL_NOT_FOUND"));
  });
});

describe("ChatCandlewick", () => {
  const question = [new HumanMessage("How are you?"), new AIMessage("I am fine."), new HumanMessage("What do you like to eat?")];
  const plain = [
    { role: "user", content: "How are you?" },
    { role: "assistant", content: "I am fine." },
    { role: "user", content: "What do you like to eat?" },
  ] as const;

  test("answers a conversation, and says what it took", async () => {
    const chat = new ChatCandlewick({ model: talker, temperature: 0 });
    const answer = await chat.invoke(question);
    assert.ok(AIMessage.isInstance(answer));
    const { text, usage } = await talker.chat(plain, { temperature: 0 }).result;
    assert.equal(answer.content, text);
    const { input_tokens, output_tokens, total_tokens } = answer.usage_metadata!;
    assert.deepEqual([input_tokens, output_tokens, total_tokens], [usage.promptTokens, usage.completionTokens, usage.totalTokens]);
    assert.equal(answer.response_metadata["finish_reason"], "stop");
    assert.equal(answer.response_metadata["model_provider"], "candlewick");
    const short = await chat.invoke("How are you?", { maxNewTokens: 1, ignoreEos: true });
    assert.equal(short.response_metadata["finish_reason"], "length");
    // Blocks of text are text.
    const blocks = await chat.invoke([...question.slice(0, 2), new HumanMessage({ content: [{ type: "text", text: "What do you like " }, { type: "text", text: "to eat?" }] })]);
    assert.equal(blocks.content, text);
  });

  test("streams what it would answer; the last chunk has counts and the reason", async () => {
    const chat = new ChatCandlewick({ model: talker, temperature: 0 });
    const heard = listener();
    let whole: AIMessageChunk | undefined;
    for await (const chunk of await chat.stream(question, { callbacks: [heard] })) whole = whole ? whole.concat(chunk) : chunk;
    const answer = await chat.invoke(question);
    assert.equal(whole!.content, answer.content);
    assert.equal(heard.tokens.map(([text]) => text).join(""), answer.content);
    assert.equal(whole!.usage_metadata!.output_tokens, answer.usage_metadata!.output_tokens);
    assert.equal(whole!.response_metadata["finish_reason"], "stop");
    assert.equal(whole!.response_metadata["model_name"], answer.response_metadata["model_name"]);
    assert.deepEqual((heard.ends[0] as { completionTokens: number }).completionTokens, answer.usage_metadata!.output_tokens);

    const streaming = new ChatCandlewick({ model: talker, temperature: 0, streaming: true });
    const again = listener();
    assert.equal((await streaming.invoke(question, { callbacks: [again] })).content, answer.content);
    assert.equal(again.tokens.map(([text]) => text).join(""), answer.content);
  });

  test("is a part of chains", async () => {
    const chat = new ChatCandlewick({ model: talker, temperature: 0 });
    const chain = ChatPromptTemplate.fromMessages([["human", "{question}"]]).pipe(chat).pipe(new StringOutputParser());
    assert.equal(await chain.invoke({ question: "How are you?" }), await talker.chat("How are you?", { temperature: 0 }).text());
  });

  test("ends the compute when the signal is aborted or its reader leaves", async () => {
    const chat = new ChatCandlewick({ model: talker, ignoreEos: true, maxNewTokens: 200 });
    const controller = new AbortController();
    const stream = await chat.stream("How are you?", { signal: controller.signal });
    await assert.rejects(async () => {
      let count = 0;
      for await (const _ of stream) if (++count === 2) controller.abort();
    });
    await idle(talker);
    for await (const _ of await chat.stream("How are you?")) break;
    await idle(talker);
  });

  test("says what it cannot do", async () => {
    const chat = new ChatCandlewick({ model: talker });
    assert.throws(() => chat.bindTools(), hasCode("TASK_UNSUPPORTED"));
    assert.throws(() => chat.withStructuredOutput(), hasCode("TASK_UNSUPPORTED"));
    await assert.rejects(chat.invoke("a", { tools: [{ type: "function" }] } as never), hasCode("TASK_UNSUPPORTED"));
    await assert.rejects(chat.invoke("a", { tool_choice: "any" }), hasCode("TASK_UNSUPPORTED"));
    const image = new HumanMessage({ content: [{ type: "image_url", image_url: "data:image/png;base64,AA" }] });
    await assert.rejects(chat.invoke([image]), hasCode("TASK_UNSUPPORTED"));
    await assert.rejects(chat.invoke([new ToolMessage({ content: "sunny", tool_call_id: "1" })]), hasCode("TASK_UNSUPPORTED"));
    const calling = new AIMessage({ content: "", tool_calls: [{ id: "1", name: "weather", args: {} }] });
    await assert.rejects(chat.invoke([new HumanMessage("a"), calling, new HumanMessage("b")]), hasCode("TASK_UNSUPPORTED"));
    // Dialogues of turns have no place for a system's message.
    await assert.rejects(chat.invoke([new SystemMessage("Be kind."), ...question]), hasCode("INPUT_INVALID"));
    await assert.rejects(new ChatCandlewick({ model: lm }).invoke("a"), hasCode("CHAT_TEMPLATE_MISSING"));
  });
});

describe("CandlewickEmbeddings", () => {
  const numbers = (rows: readonly Float32Array[]) => rows.map((row) => Array.from(row));

  test("makes vectors of queries and documents", async () => {
    const embeddings = new CandlewickEmbeddings({ model: bert });
    const texts = ["a cat", "我们很高兴"];
    assert.deepEqual(await embeddings.embedDocuments(texts), numbers(await bert.embed(texts)));
    assert.deepEqual(await embeddings.embedQuery("a cat"), numbers(await bert.embed(["a cat"]))[0]);
    assert.deepEqual(await embeddings.embedDocuments([]), []);
  });

  test("puts prompts before them, its own or the model's, and takes options", async () => {
    const embeddings = new CandlewickEmbeddings({ model: bert, normalize: false, pooling: "cls", queryPrompt: "query: ", documentPrompt: "passage: " });
    const how = { normalize: false, pooling: "cls" } as const;
    assert.deepEqual(await embeddings.embedQuery("a cat"), numbers(await bert.embed(["a cat"], { ...how, prompt: "query: " }))[0]);
    assert.deepEqual(await embeddings.embedDocuments(["a cat"]), numbers(await bert.embed(["a cat"], { ...how, prompt: "passage: " })));
    await assert.rejects(new CandlewickEmbeddings({ model: bert, poolling: "cls" } as never).embedQuery("a"), hasCode("OPTION_UNKNOWN"));
  });

  test("takes the model's prompts by their names", async () => {
    await using prompted = await loadBERT(withPrompts());
    const embeddings = new CandlewickEmbeddings({ model: prompted });
    assert.deepEqual(await embeddings.embedQuery("a cat"), numbers(await prompted.embed(["a cat"], { promptName: "query" }))[0]);
    assert.deepEqual(await embeddings.embedDocuments(["a cat"]), numbers(await prompted.embed(["a cat"], { promptName: "passage" })));
    assert.notDeepEqual(await embeddings.embedQuery("a cat"), numbers(await prompted.embed(["a cat"]))[0]);
  });
});

describe("CandlewickRerank", () => {
  const documents = ["The train leaves at nine.", "A kitten is a young cat.", "Cats sleep."].map(
    (pageContent, id) => new Document({ pageContent, metadata: { source: id }, id: String(id) }),
  );

  test("gives the best documents first, with their scores", async () => {
    await using rerank = new CandlewickRerank({ model: join(models, "minilm"), topN: 2 });
    const best = await rerank.compressDocuments(documents, "What is a kitten?");
    assert.deepEqual(best.map(({ id }) => id), ["1", "2"]);
    assert.ok(best[0]!.metadata["relevanceScore"] > best[1]!.metadata["relevanceScore"]);
    assert.equal(best[0]!.metadata["source"], 1);
    assert.ok(!("relevanceScore" in documents[1]!.metadata));
    const places = await rerank.rerank(["The train leaves.", documents[1]!], "kitten", { topN: 1 });
    assert.deepEqual(places.map(({ index }) => index), [1]);
    assert.deepEqual(await rerank.compressDocuments([], "a"), []);
  });

  test("says so when the model is none", async () => {
    await using topics = new CandlewickRerank({ model: join(models, "topics") });
    await assert.rejects(topics.compressDocuments(documents, "a"), hasCode("TASK_UNSUPPORTED"));
  });
});
