/** What answers are made of: texts, log-probabilities, counts, vectors, and what is said of inputs that cannot be. */
import assert from "node:assert/strict";
import { type BERT, type GPT2, loadGPT2 } from "candlewick";
import { CompletionReport } from "candlewick/openai";
import { afterAll, beforeAll, describe, test } from "vitest";
import { randomModel } from "../../../__test__/support/models.js";
import { after, talkingReciter } from "./contract/support/reciter.js";
import { allEvents, answer, type Json, loadShipped, loadShippedBERT, post, refused, type Started, startServer, textOf } from "./support/server.js";

/** What the model `reciter` says: each byte is a token of it. The replacement character is one that it means. */
const RECITED = "We say: 我们很高兴 👩‍👩‍👧 🇨🇳 é — a real \uFFFD. It stops, stop, sto; then stop! And on. 完 st";

let lm: GPT2;
let talk: GPT2;
let reciter: GPT2;
/** Says bytes at random, few of them UTF-8. */
let noise: GPT2;
let minilm: BERT;
let topics: BERT;
let server: Started;
let url: string;
beforeAll(async () => {
  [lm, talk, reciter, noise, minilm, topics] = await Promise.all([
    loadShipped("default"),
    loadShipped("dialogue"),
    loadGPT2(talkingReciter(RECITED), { threads: 1 }),
    loadGPT2(randomModel(), { threads: 1 }),
    loadShippedBERT("minilm"),
    loadShippedBERT("topics"),
  ]);
  server = await startServer({ models: { lm, talk, reciter, noise, minilm, topics } });
  ({ url } = server);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await Promise.all([lm, talk, reciter, noise, minilm, topics].map((model) => model?.close()));
});

const complete = (body: Json): Promise<Json> => answer(url, "/v1/completions", body);
const stream = async (path: string, body: Json): Promise<any[]> => allEvents(await post(url, path, { ...body, stream: true }));
const asked = (content: string) => [{ role: "user", content }];

/** Each generating route: how it is asked, and how its text is read. */
const routes = [
  {
    path: "/v1/completions",
    body: (model: string, prompt: string, most: number): Json => ({ model, prompt, max_tokens: most }),
    text: ({ choices }: Json): string => choices[0].text,
    joined: textOf,
    finish: ({ choices }: Json): string => choices[0].finish_reason,
  },
  {
    path: "/v1/chat/completions",
    body: (model: string, prompt: string, most: number): Json => ({ model, messages: asked(prompt), max_completion_tokens: most }),
    text: ({ choices }: Json): string => choices[0].message.content,
    joined: textOf,
    finish: ({ choices }: Json): string => choices[0].finish_reason,
  },
  {
    path: "/v1/responses",
    body: (model: string, prompt: string, most: number): Json => ({ model, input: prompt, max_output_tokens: most }),
    text: ({ output }: Json): string => output[0].content[0].text,
    joined: (events: readonly any[]): string => events.map(({ type, delta }) => (type === "response.output_text.delta" ? delta : "")).join(""),
    finish: ({ status, incomplete_details }: Json): string => (status === "completed" ? "stop" : incomplete_details.reason === "max_output_tokens" ? "length" : status),
  },
];

describe("texts", () => {
  describe.each(routes)("$path", ({ path, body, text, joined }) => {
    test("deltas, joined, are the text: Chinese, emoji, and a replacement character that is meant", async () => {
      const request = body("reciter", "W", 200);
      const whole = text(await answer(url, path, request));
      assert.equal(whole, after(RECITED, path === "/v1/completions" ? 1 : 2));
      assert.equal(joined(await stream(path, request)), whole);
    });

    test("as much as was asked for ends before a character that has not all come", async () => {
      for (let most = 1; most < 60; most += 7) {
        const request = body("reciter", "W", most);
        const whole = text(await answer(url, path, request));
        const first = path === "/v1/completions" ? 1 : 2;
        assert.ok(after(RECITED, first).startsWith(whole), `${most}: ${whole}`);
        assert.ok(most - Buffer.byteLength(whole) < 4, `${most}: ${whole}`);
        assert.equal(joined(await stream(path, request)), whole);
      }
    });
  });

  test("bytes that are no UTF-8 are the same, streamed and not, and the library's", async () => {
    for (let seed = 0; seed < 8; seed++) {
      const request = { model: "noise", prompt: "abc", max_tokens: 60, seed, ignore_eos: true };
      const whole = (await complete(request))["choices"][0].text;
      assert.equal(whole, await noise.generate("abc", { maxNewTokens: 60, seed, ignoreEos: true }).text());
      assert.equal(textOf(await stream("/v1/completions", request)), whole);
    }
  });

  test("wherever a proxy cuts a stream's bytes, its events are the same", async () => {
    for (const { path, body } of routes) {
      const response = await post(url, path, { ...body("reciter", "We say: ", 8), stream: true });
      const bytes = new Uint8Array(await response.arrayBuffer());
      const read = (...parts: Uint8Array[]) => allEvents(new Response(new ReadableStream({ pull: (into) => void (parts.length > 0 ? into.enqueue(parts.shift()!) : into.close()) })));
      const whole = JSON.stringify(await read(bytes));
      for (let at = 1; at < bytes.length; at++) assert.equal(JSON.stringify(await read(bytes.subarray(0, at), bytes.subarray(at))), whole, `${path} at ${at}`);
    }
  });
});

describe("stop strings", () => {
  const said = after(RECITED, 1);

  test("of 2 to 5 tokens: nothing of them gets out, and what only began like them does", async () => {
    for (const stop of ["p!", "op!", "top!", "stop!", "高", "兴 👩‍", "🇨🇳"]) {
      const request = { model: "reciter", prompt: "W", max_tokens: 200, stop };
      const expected = said.slice(0, said.indexOf(stop));
      const { text, finish_reason } = (await complete(request))["choices"][0];
      assert.deepEqual([text, finish_reason], [expected, "stop"]);
      const events = await stream("/v1/completions", request);
      assert.equal(textOf(events), expected, stop);
    }
  });

  test("what began like one at the end, of itself or of what was asked for, is there", async () => {
    for (const stop of ["st!", "sto; no", " st…", "no such"]) {
      const whole = { model: "reciter", prompt: "W", max_tokens: 200, stop };
      const cut = { ...whole, max_tokens: Buffer.byteLength(said.slice(0, said.indexOf("sto;") + 3)) };
      for (const [request, expected, reason] of [[whole, said, "stop"], [cut, said.slice(0, said.indexOf("sto;") + 3), "length"]] as const) {
        const { text, finish_reason } = (await complete(request))["choices"][0];
        assert.deepEqual([text, finish_reason], [expected, reason], stop);
        assert.equal(textOf(await stream("/v1/completions", request)), expected, stop);
      }
    }
  });

  test("of a model's own tokens, from any of them on and in the middle of one", async () => {
    const request = { model: "lm", prompt: "It was", max_tokens: 48, seed: 3 };
    const { text, tokens } = await lm.generate("It was", { maxNewTokens: 48, seed: 3 }).result;
    let tried = 0;
    for (let from = 1; from < tokens.length - 6; from += 9) {
      for (let span = 2; span <= 5; span++) {
        const joined = tokens.slice(from, from + span).map((token) => token.text).join("");
        for (const stop of [joined, joined.slice(1)]) {
          if (stop.length < 2) continue;
          const expected = text.slice(0, text.indexOf(stop));
          assert.equal((await complete({ ...request, stop: ["¤", stop] }))["choices"][0].text, expected, stop);
          assert.equal(textOf(await stream("/v1/completions", { ...request, stop: ["¤", stop] })), expected, stop);
          tried++;
        }
      }
    }
    assert.ok(tried > 20, `${tried}`);
  });
});

describe("log-probabilities", () => {
  const PROMPT = "猫 👩‍👩‍👧:";

  /** Of all chunks of one choice. */
  function lists(events: readonly any[], index = 0): Json {
    const all: Json = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
    for (const { choices } of events) {
      for (const choice of choices ?? []) if (choice.index === index && choice.logprobs) for (const name of Object.keys(all)) all[name].push(...choice.logprobs[name]);
    }
    return all;
  }

  test("of completions: lists, with offsets in code points from the prompt's beginning", async () => {
    const { tokens } = await lm.generate(PROMPT, { maxNewTokens: 32, seed: 5, logprobs: 4 }).result;
    const vocabulary = await lm.vocabulary();
    const { text, logprobs } = (await complete({ model: "lm", prompt: PROMPT, max_tokens: 32, seed: 5, logprobs: 4 }))["choices"][0];
    assert.deepEqual(logprobs.token_logprobs, tokens.map(({ logprob }) => logprob));
    const all = Array.from(PROMPT + text);
    for (const [at, token] of logprobs.tokens.entries()) {
      const bytes = Buffer.from(vocabulary.bytes(tokens[at]!.id));
      if (token.startsWith("bytes:")) assert.equal(token, `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`);
      else assert.ok(all.slice(logprobs.text_offset[at]).join("").startsWith(token), `${token} at ${logprobs.text_offset[at]}`);
    }
    assert.equal(logprobs.text_offset[0], Array.from(PROMPT).length);
  });

  test("of completions: bytes that are no characters are counted as the text has them", () => {
    const report = new CompletionReport({ bytes: (id) => Uint8Array.of(id) }, 2);
    const bytes = [...Buffer.from("a猫"), 0xb0, 0xa7, ...Buffer.from("🙂b"), 0xe5, 0x8d, ...Buffer.from("c")];
    const { text_offset, tokens } = report.of(bytes.map((id) => ({ id, logprob: 0 })));
    // a, 猫, two U+FFFD, 🙂, b; then a character that never comes whole.
    assert.deepEqual(text_offset, [2, 3, 3, 3, 4, 5, 6, 6, 6, 6, 7, 8, 8, 9]);
    assert.deepEqual(tokens.slice(3, 5), ["bytes:\\xab", "bytes:\\xb0"]);
  });

  test("of completions: parts of characters have their bytes, and no two of them one key", async () => {
    const { logprobs } = (await complete({ model: "noise", prompt: "a", max_tokens: 40, seed: 1, logprobs: 20, ignore_eos: true }))["choices"][0];
    const { sequences } = await noise.generate("a", { maxNewTokens: 40, seed: 1, logprobs: 20, ignoreEos: true }).result;
    const torn = logprobs.tokens.filter((token: string) => /^bytes:(\\x[0-9a-f]{2})+$/.test(token));
    assert.ok(torn.length > 5, `${torn.length}`);
    for (const [at, top] of logprobs.top_logprobs.entries()) {
      const { id, topLogprobs } = sequences[0]!.tokens[at]!;
      const among = topLogprobs!.some((one) => one.id === id);
      assert.equal(Object.keys(top).length, among ? 20 : 21);
      assert.equal(top[logprobs.tokens[at]], logprobs.token_logprobs[at]);
    }
  });

  test("of completions: streamed, of samples, with stop strings and an echo, they are the whole answer's", async () => {
    const requests: Json[] = [
      { model: "lm", prompt: PROMPT, max_tokens: 32, seed: 5, logprobs: 2, n: 2 },
      { model: "lm", prompt: [PROMPT, "One"], max_tokens: 16, seed: 5, logprobs: 0, echo: true, n: 2 },
      { model: "reciter", prompt: "W", max_tokens: 200, logprobs: 1, stop: "stop!" },
      { model: "reciter", prompt: "W", max_tokens: 10, logprobs: 1 },
      { model: "noise", prompt: "a", max_tokens: 30, logprobs: 3, ignore_eos: true, seed: 2, n: 3 },
    ];
    for (const request of requests) {
      const { choices } = await complete(request);
      const events = await stream("/v1/completions", request);
      for (const { index, logprobs, text } of choices) {
        assert.deepEqual(lists(events, index), logprobs, JSON.stringify(request));
        assert.equal(textOf(events, index), text);
      }
    }
  });

  test("of chat and responses: an entry for each token, whose bytes are the text's", async () => {
    const options = { seed: 5, maxNewTokens: 24, logprobs: 2 };
    const { text, tokens } = await talk.chat("你好 👋", options).result;
    const chat = { model: "talk", messages: asked("你好 👋"), seed: 5, max_tokens: 24, logprobs: true, top_logprobs: 2 };
    const response = { model: "talk", input: "你好 👋", seed: 5, max_output_tokens: 24, include: ["message.output_text.logprobs"], top_logprobs: 2 };
    const whole = (await answer(url, "/v1/chat/completions", chat))["choices"][0].logprobs.content;
    const own = (await answer(url, "/v1/responses", response))["output"][0].content[0].logprobs;
    assert.equal(Buffer.from(whole.flatMap(({ bytes }: Json) => bytes)).toString(), text);
    assert.deepEqual(whole.map(({ logprob }: Json) => logprob), tokens.slice(0, whole.length).map(({ logprob }) => logprob));
    assert.deepEqual(own, whole);
    const chunks = await stream("/v1/chat/completions", chat);
    assert.deepEqual(chunks.flatMap((chunk) => chunk.choices?.[0]?.logprobs?.content ?? []), whole);
    const events = await stream("/v1/responses", response);
    assert.deepEqual(events.flatMap(({ type, logprobs }) => (type === "response.output_text.delta" ? logprobs : [])), whole);
  });
});

describe("counts of tokens", () => {
  for (const { path, body } of routes.slice(0, 2)) {
    test(`${path}: asked for, they are null on each chunk, then in one without choices`, async () => {
      const request = body("reciter", "W", 20);
      const events = await stream(path, { ...request, stream_options: { include_usage: true } });
      assert.equal(events.at(-1), "[DONE]");
      const chunks = events.slice(0, -1);
      assert.ok(chunks.slice(0, -1).every(({ usage, choices }) => usage === null && choices.length === 1));
      const { choices, usage } = chunks.at(-1);
      assert.deepEqual(choices, []);
      assert.deepEqual(usage, (await answer(url, path, request))["usage"]);
      for (const options of [undefined, { include_usage: false }, {}]) {
        const plain = await stream(path, { ...request, stream_options: options });
        assert.ok(plain.slice(0, -1).every((chunk) => !("usage" in chunk) && chunk.choices.length === 1));
        assert.equal(plain.length, events.length - 1);
      }
    });

    test(`${path}: without a stream they cannot be asked for so`, async () => {
      const { status, error } = await refused(url, path, { ...body("reciter", "W", 20), stream_options: { include_usage: true } });
      assert.deepEqual([status, error["param"]], [400, "stream_options"]);
    });
  }
});

test("a response's metadata comes back with it, streamed and not", async () => {
  const request = { model: "talk", input: "hello", max_output_tokens: 2, metadata: { order: "17", 客: "x" } };
  assert.deepEqual((await answer(url, "/v1/responses", request))["metadata"], request.metadata);
  const events = await stream("/v1/responses", request);
  assert.deepEqual(events.at(-1)!["response"].metadata, request.metadata);
});

describe("how an answer ended", () => {
  const said = after(RECITED, 1);
  const bytes = Buffer.byteLength(said);
  const reasons = async (path: string, body: Json, read: (json: Json) => string): Promise<string> => read(await answer(url, path, body));

  describe.each(routes)("$path", ({ path, body, finish }) => {
    const first = path === "/v1/completions" ? 0 : 1;

    test("stop, if the model ended it, also with the last token that was asked for", async () => {
      assert.equal(await reasons(path, body("reciter", "W", bytes - first + 1), finish), "stop");
    });

    test("length, one token sooner", async () => {
      assert.equal(await reasons(path, body("reciter", "W", bytes - first), finish), "length");
    });

    test("stop, for an id that ends it", async () => {
      assert.equal(await reasons(path, { ...body("reciter", "W", 50), stop_token_ids: [Buffer.from("y")[0]] }, finish), "stop");
    });
  });

  test("stop, where a stop string ends with the last token that was asked for", async () => {
    const request = { model: "reciter", prompt: "W", stop: "say", max_tokens: 5 };
    assert.deepEqual(await complete(request).then(({ choices }) => [choices[0].text, choices[0].finish_reason]), ["e ", "stop"]);
    assert.equal((await complete({ ...request, max_tokens: 4 }))["choices"][0].finish_reason, "length");
  });

  test("length, where the positions end it", async () => {
    const { usage, choices } = await answer(url, "/v1/chat/completions", { model: "reciter", messages: asked("W"), ignore_eos: true });
    assert.equal(choices[0].finish_reason, "length");
    assert.equal(usage.total_tokens, reciter.info.positions);
    const exact = { model: "lm", prompt: "One", ignore_eos: true, max_tokens: 512 - (await lm.countTokens("One")) };
    assert.equal((await complete(exact))["choices"][0].finish_reason, "length");
  });

  test("a stream says it once for each choice, in its last chunk", async () => {
    for (const { path, body } of routes.slice(0, 2)) {
      const events = await stream(path, { ...body("reciter", "W", 7), n: 2 });
      const finishes = events.flatMap((event) => event.choices ?? []).filter((choice) => choice.finish_reason !== null);
      assert.deepEqual(finishes.map(({ index, finish_reason }) => [index, finish_reason]), [[0, "length"], [1, "length"]]);
    }
  });
});

describe("vectors", () => {
  const texts = ["The cat sat.", "猫坐在垫子上。", "Stocks fell."];

  test("base64 has all of each vector, and the same floats", async () => {
    const expected = (await minilm.embed(texts)).map((vector) => Array.from(vector));
    const floats = await answer(url, "/v1/embeddings", { model: "minilm", input: texts });
    assert.deepEqual(floats["data"].map(({ embedding }: Json) => embedding), expected);
    const encoded = await answer(url, "/v1/embeddings", { model: "minilm", input: texts, encoding_format: "base64" });
    for (const [at, { embedding, index }] of encoded["data"].entries()) {
      const bytes = Buffer.from(embedding, "base64");
      assert.equal(bytes.length, 4 * minilm.info.hiddenSize);
      assert.deepEqual(Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i)), expected[at]);
      assert.equal(index, at);
    }
  });

  test("token ids are refused, and the message says what to do", async () => {
    const { ids } = await minilm.encode(texts[0]!);
    for (const input of [Array.from(ids), [Array.from(ids)]]) {
      const { status, error } = await refused(url, "/v1/embeddings", { model: "minilm", input });
      assert.deepEqual([status, error["code"], error["param"]], [400, "token_ids_not_allowed", "input"]);
      assert.match(error["message"], /check_embedding_ctx_length=False/);
    }
  });

  test("token ids that the server allows are read as the text that they are", async () => {
    await using open = await startServer({ models: { minilm }, allowTokenIds: true });
    const known = [texts[0]!, "Stocks fell sharply, didn't they?"];
    const all = await Promise.all(known.map(async (text) => Array.from((await minilm.encode(text)).ids)));
    const expected = (await minilm.embed(known)).map((vector) => Array.from(vector));
    const vectors = async (input: unknown) => (await answer(open.url, "/v1/embeddings", { model: "minilm", input }))["data"].map(({ embedding }: Json) => embedding);
    assert.deepEqual(await vectors(all), expected);
    assert.deepEqual(await vectors(all[1]), [expected[1]]);
    assert.deepEqual(await vectors(all[1]!.slice(1, -1)), [expected[1]]);
    // Words that the model has no token for leave none in the text of their ids.
    const unknown = Array.from((await minilm.encode("猫坐在垫子上。")).ids);
    for (const input of [[all[0], [1, 999_999]], [all[0], unknown]]) {
      const { status, error } = await refused(open.url, "/v1/embeddings", { model: "minilm", input });
      assert.deepEqual([status, error["param"]], [400, "input[1]"]);
    }
  });
});

describe("inputs", () => {
  /** Some 700 tokens, for models of 512 positions and vectors of 256. */
  const long = "word ".repeat(700);
  const tooLong: [name: string, path: string, body: Json, param: string, positions: number][] = [
    ["completions", "/v1/completions", { model: "lm", prompt: long }, "prompt", 512],
    ["completions, of prompts", "/v1/completions", { model: "lm", prompt: ["a", "b", "c", long] }, "prompt[3]", 512],
    ["completions, prompt and answer together", "/v1/completions", { model: "lm", prompt: "a", max_tokens: 512 }, "prompt", 512],
    ["completions without tokens", "/v1/completions", { model: "lm", prompt: long, max_tokens: 0, echo: true }, "prompt", 512],
    ["chat", "/v1/chat/completions", { model: "talk", messages: asked(long) }, "messages", 512],
    ["responses", "/v1/responses", { model: "talk", input: long }, "input", 512],
    ["embeddings", "/v1/embeddings", { model: "minilm", input: long }, "input", 256],
    ["embeddings, of one in a list", "/v1/embeddings", { model: "minilm", input: [long] }, "input[0]", 256],
    ["embeddings, of several", "/v1/embeddings", { model: "minilm", input: ["a", "b", "c", long] }, "input[3]", 256],
    ["rerank", "/v1/rerank", { model: "topics", query: "a", documents: ["a", "b", "c", long] }, "documents[3]", 512],
    ["classify", "/v1/classify", { model: "topics", input: long }, "input", 512],
    ["classify, of several", "/v1/classify", { model: "topics", input: ["a", "b", "c", long] }, "input[3]", 512],
  ];
  for (const [name, path, body, param, positions] of tooLong) {
    for (const streamed of path.startsWith("/v1/c") && !path.endsWith("classify") || path.endsWith("responses") ? [false, true] : [false]) {
      test(`too long is 400 with both counts: ${name}${streamed ? ", streamed" : ""}`, async () => {
        const { status, error, headers } = await refused(url, path, streamed ? { ...body, stream: true } : body);
        assert.deepEqual([status, error["code"], error["param"], error["type"]], [400, "context_length_exceeded", param, "invalid_request_error"]);
        assert.match(headers.get("content-type")!, /^application\/json/);
        assert.match(error["message"], new RegExp(`\\b${positions}\\b`));
        assert.match(error["message"], name.includes("together") ? /\b1 prompt tokens and 512 new/ : /\b70\d\b/);
      });
    }
  }

  test("the limit of one text is that of each in a list", async () => {
    const { maxLength } = minilm.info.sentences;
    const fits = "word ".repeat(maxLength - 2);
    for (const input of [fits, [fits], ["a", fits]]) assert.equal((await post(url, "/v1/embeddings", { model: "minilm", input })).status, 200);
    for (const input of [`${fits}word`, [`${fits}word`], ["a", `${fits}word`]]) {
      assert.equal((await refused(url, "/v1/embeddings", { model: "minilm", input })).error["code"], "context_length_exceeded");
    }
  });

  test("what is too long is cut if the request says so", async () => {
    const { data, usage } = await answer(url, "/v1/embeddings", { model: "minilm", input: ["a", long], truncate: true });
    const expected = await minilm.embed(["a", long], { truncate: true });
    assert.deepEqual(data.map(({ embedding }: Json) => embedding), expected.map((vector) => Array.from(vector)));
    assert.equal(usage.prompt_tokens, 256 + (await minilm.countTokens("a")));
    const { data: classes } = await answer(url, "/v1/classify", { model: "topics", input: long, truncate: true });
    assert.equal(classes.length, 1);
    const { results } = await answer(url, "/v1/rerank", { model: "minilm", query: "a", documents: ["b", long], truncate: true });
    assert.equal(results.length, 2);
  });

  test("2,048 texts and prompts, and no more", async () => {
    // The smallest that there is.
    await using small = await loadShippedBERT("sentiment-zh");
    await using large = await startServer({ models: { small } });
    const many = Array.from({ length: 2_048 }, (_, i) => `n${i % 50}`);
    const { data } = await answer(large.url, "/v1/embeddings", { model: "small", input: many, encoding_format: "base64" });
    assert.deepEqual(data.map(({ index }: Json) => index), many.map((_, i) => i));
    for (let i = 50; i < many.length; i++) assert.equal(data[i].embedding, data[i - 50].embedding);
    const { choices } = await complete({ model: "reciter", prompt: many.map(() => "W"), max_tokens: 1 });
    assert.ok(choices.length === 2_048 && choices.every(({ text }: Json) => text === "e"));
    const more = [...many, "x"];
    for (const [path, body, param] of [
      ["/v1/embeddings", { model: "minilm", input: more }, "input"],
      ["/v1/classify", { model: "topics", input: more }, "input"],
      ["/v1/rerank", { model: "topics", query: "x", documents: more }, "documents"],
      ["/v1/completions", { model: "lm", prompt: more }, "prompt"],
    ] as const) {
      const { status, error } = await refused(url, path, body);
      assert.deepEqual([status, error["code"], error["param"]], [400, "invalid_value", param]);
      assert.match(error["message"], /2048/);
    }
  });

  const odd: [path: string, body: Json, param: string][] = [
    ["/v1/embeddings", { model: "minilm", input: ["a", "b", "c", ""] }, "input[3]"],
    ["/v1/embeddings", { model: "minilm", input: [""] }, "input[0]"],
    ["/v1/embeddings", { model: "minilm", input: "" }, "input"],
    ["/v1/embeddings", { model: "minilm", input: ["a", "b", "c", 4] }, "input[3]"],
    ["/v1/classify", { model: "topics", input: ["a", "b", "c", null] }, "input[3]"],
    ["/v1/rerank", { model: "topics", query: "a", documents: ["a", "b", "c", 4] }, "documents[3]"],
    ["/v1/completions", { model: "lm", prompt: ["a", "b", "c", 4] }, "prompt[3]"],
    ["/v1/completions", { model: "lm", prompt: [[1], [2], [3], [4, 999_999]] }, "prompt[3]"],
    ["/v1/completions", { model: "lm", prompt: [[1], [2], [3], ["x"]] }, "prompt[3]"],
    ["/v1/completions", { model: "lm", prompt: ["a", "b", "c", ""] }, "prompt[3]"],
  ];
  for (const [path, body, param] of odd) {
    test(`one that is wrong is named: ${path} ${JSON.stringify(body["input"] ?? body["prompt"] ?? body["documents"])}`, async () => {
      const { status, error } = await refused(url, path, body);
      assert.deepEqual([status, error["param"]], [400, param], error["message"]);
    });
  }
});

describe("prompts", () => {
  test("a text, texts, the ids of one and of several have the answers of the library, in the order asked", async () => {
    const texts = ["It was", "我们很高兴", "One"];
    const ids = (await lm.encode(texts)).map((one) => Array.from(one));
    const options = { maxNewTokens: 12, seed: 9, n: 2 };
    const expected = (await lm.generate(texts, options).result).sequences.map(({ text }) => text);
    const ask = async (prompt: unknown) => (await complete({ model: "lm", prompt, max_tokens: 12, seed: 9, n: 2 }))["choices"];
    for (const prompt of [texts, ids]) {
      const choices = await ask(prompt);
      assert.deepEqual(choices.map(({ text }: Json) => text), expected);
      assert.deepEqual(choices.map(({ index }: Json) => index), [0, 1, 2, 3, 4, 5]);
    }
    for (const [at, text] of texts.entries()) {
      const alone = expected.slice(2 * at, 2 * at + 2);
      assert.deepEqual((await ask(text)).map((choice: Json) => choice.text), alone);
      assert.deepEqual((await ask(ids[at])).map((choice: Json) => choice.text), alone);
    }
    const events = await stream("/v1/completions", { model: "lm", prompt: texts, max_tokens: 12, seed: 9, n: 2 });
    assert.deepEqual(expected.map((_, index) => textOf(events, index)), expected);
  });

  test("an echo without tokens is the library's score", async () => {
    const texts = ["It was a truth 👩‍👩‍👧", "我们很高兴能够与您合作！"];
    const scores = await lm.score(texts, { topLogprobs: 2 });
    const request = { model: "lm", prompt: texts, max_tokens: 0, echo: true, logprobs: 2 };
    const { choices, usage } = await complete(request);
    for (const [at, { text, logprobs, index, finish_reason }] of choices.entries()) {
      const { tokens } = scores[at]!;
      assert.deepEqual([index, text, finish_reason], [at, texts[at], "length"]);
      assert.deepEqual(logprobs.token_logprobs, tokens.map(({ logprob }) => logprob ?? null));
      assert.equal(logprobs.top_logprobs[0], null);
      assert.equal(logprobs.text_offset[0], 0);
      const sum = logprobs.token_logprobs.reduce((total: number, one: number | null) => total + (one ?? 0), 0);
      assert.ok(Math.abs(sum - scores[at]!.logprob) < 1e-9);
    }
    assert.deepEqual([usage.completion_tokens, usage.prompt_tokens], [0, scores.reduce((sum, { tokens }) => sum + tokens.length, 0)]);
    const events = await stream("/v1/completions", request);
    assert.deepEqual(events.slice(0, -1).map((chunk) => chunk.choices[0].logprobs), choices.map(({ logprobs }: Json) => logprobs));
  });

  test("an echo stands before each answer", async () => {
    const { choices } = await complete({ model: "reciter", prompt: ["W", "We"], max_tokens: 4, echo: true, n: 2 });
    assert.deepEqual(choices.map(({ text }: Json) => text), ["We sa", "We sa", "We say", "We say"]);
  });

  test("the best of several are those of the highest mean log-probability", async () => {
    const { sequences } = await lm.generate("It was", { maxNewTokens: 12, seed: 9, n: 6, logprobs: 0 }).result;
    const mean = (tokens: readonly { logprob?: number }[]) => tokens.reduce((sum, { logprob }) => sum + logprob!, 0) / tokens.length;
    const best = sequences.toSorted((a, b) => mean(b.tokens) - mean(a.tokens)).slice(0, 2);
    const { choices } = await complete({ model: "lm", prompt: "It was", max_tokens: 12, seed: 9, n: 2, best_of: 6 });
    assert.deepEqual(choices.map(({ text, index, logprobs }: Json) => [text, index, logprobs]), best.map(({ text }, index) => [text, index, null]));
  });
});

describe("the same seed and prompt", () => {
  const prompt = "It is a truth universally acknowledged, that a single man in possession of a good fortune must be in want of a wife. ".repeat(4);
  const request = { model: "lm", prompt, max_tokens: 32, seed: 11, temperature: 1, logprobs: 3 };

  test("have the same bytes alone, among 16 others, with a cold and a shared prefix", async () => {
    const alone = await complete(request);
    assert.equal(alone["usage"].prompt_tokens_details.cached_tokens, 0);
    const again = await complete(request);
    assert.ok(again["usage"].prompt_tokens_details.cached_tokens >= 64);
    const others = Array.from({ length: 16 }, (_, seed) => complete({ ...request, prompt: seed % 2 ? prompt.slice(seed) : `${prompt}${seed}`, seed, max_tokens: 20 + seed, logprobs: null }));
    const [among, streamed] = await Promise.all([complete(request), stream("/v1/completions", request), ...others]);
    for (const { choices } of [again, among as Json]) assert.equal(JSON.stringify(choices), JSON.stringify(alone["choices"]));
    assert.equal(textOf(streamed as any[]), alone["choices"][0].text);
    // A server of another scope has no part of the prefix.
    await using cold = await startServer({ models: { lm }, keys: [{ name: "other", key: "sk-a-key-of-its-own" }] });
    const first = await answer(cold.url, "/v1/completions", request, { headers: { authorization: "Bearer sk-a-key-of-its-own" } });
    assert.equal(first["usage"].prompt_tokens_details.cached_tokens, 0);
    assert.equal(JSON.stringify(first["choices"]), JSON.stringify(alone["choices"]));
  });

  test("a fingerprint says of which model they are", async () => {
    const of = async (model: string) => (await complete({ model, prompt: "W", max_tokens: 1 }))["system_fingerprint"];
    assert.match(await of("lm"), /^fp_/);
    assert.equal(await of("lm"), await of("lm"));
    assert.notEqual(await of("lm"), await of("reciter"));
  });
});
