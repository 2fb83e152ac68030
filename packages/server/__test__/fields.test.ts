/** Every field of every route: what is taken, what has no effect, and what is refused by its name. */
import assert from "node:assert/strict";
import { type BERT, type GPT2, loadGPT2 } from "candlewick";
import { afterAll, beforeAll, describe, test } from "vitest";
import * as schemas from "../src/schemas.js";
import { talkingReciter } from "./contract/support/reciter.js";
import { type Json, loadShippedBERT, post, type Started, startServer } from "./support/server.js";

let lm: GPT2;
let minilm: BERT;
let topics: BERT;
let server: Started;
beforeAll(async () => {
  const folder = talkingReciter("What is said by one who always says the same, whatever it is asked.");
  [lm, minilm, topics] = await Promise.all([loadGPT2(folder, { threads: 1 }), loadShippedBERT("minilm"), loadShippedBERT("topics")]);
  server = await startServer({ models: { lm, minilm, topics } });
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await Promise.all([lm, minilm, topics].map((model) => model?.close()));
});

/** Values that a field takes, and values that it does not. */
type Field = readonly [taken: readonly unknown[], refused: readonly unknown[]];

const fraction: Field = [[0, 0.5, 1], [-0.1, 1.1, "0.5", true, [1], {}]];
const penalty: Field = [[-2, 0, 1.5, 2], [-2.1, 2.1, "1"]];
const whole = (least: number, most: number, ...taken: number[]): Field => [[least, ...taken], [least - 1, most + 1, least + 0.5, "1", true, [], {}]];
const yes: Field = [[true, false], [1, 0, "true", [], {}]];
const words: Field = [["a", "b"], [1, true, [], {}]];
const choice = (...taken: string[]): Field => [taken, ["other", 1, true, []]];
const TOKENS = 0xffff_ffff;

const responseSampling: Record<string, Field> = {
  temperature: [[0, 0.7, 2], [-0.1, 2.1, "1", true, [], {}]],
  top_p: fraction,
  stream: yes,
};
const sampling: Record<string, Field> = {
  ...responseSampling,
  seed: [[0, 7, -7, Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER], [0.5, "7", 1e300, true]],
  n: whole(1, 64, 3),
  stop: [["x", ["x", "yy"], [], ""], [1, [1], [""], true, {}, Array.from({ length: 65 }, () => "x")]],
  presence_penalty: penalty,
  frequency_penalty: penalty,
  logit_bias: [[{}, { "65": -100, "66": 100 }], [{ a: 1 }, { "1": 101 }, { "1": "1" }, 1, "1"]],
};
const extensions: Record<string, Field> = {
  top_k: whole(0, TOKENS, 5),
  min_p: fraction,
  repetition_penalty: [[0.01, 1.2, 10], [0, 10.1, "1"]],
  no_repeat_ngram_size: whole(0, TOKENS, 3),
  min_tokens: whole(0, TOKENS, 1),
  ignore_eos: yes,
  bad_words: [[[], ["bad", " worse"]], [[""], [1], "bad", ["x".repeat(1_025)], Array.from({ length: 1_025 }, () => "x")]],
  stop_token_ids: [[[], [1, 2]], [[-1], ["1"], [0.5], 1, Array.from({ length: 1_025 }, () => 1)]],
  priority: choice("interactive", "batch"),
};
const messages: Field = [
  [
    [{ role: "user", content: "W" }],
    [{ role: "user", content: "W" }, { role: "assistant", content: "x" }, { role: "user", content: [{ type: "text", text: "W" }] }],
    [{ role: "user", content: "W", name: null, tool_calls: null }],
  ],
  ["W", {}, [], [{}], [{ role: "user" }], [{ role: "tool", content: "W" }], [{ role: "user", content: 1 }], [{ role: "user", content: [] }]],
];
const inputs: Field = [["W", ["W", "e"]], [1, {}, [], [1, "W"], ["W", 1], [null], true]];
/** With what else a field is asked for, where it does nothing alone. */
const beside: Readonly<Record<string, Json>> = {
  stream_options: { stream: true },
  top_logprobs: { logprobs: true },
  best_of: { n: 1 },
};
const streamOptions: Field = [[{}, { include_usage: true }, { include_usage: null, include_obfuscation: false }], [1, "x", { include_usage: 1 }]];
const model: Field = [[], [1, "", true, []]];

interface Route {
  readonly path: string;
  readonly schema: { readonly entries: object };
  readonly body: Json;
  readonly fields: Readonly<Record<string, Field>>;
}

const routes: readonly Route[] = [
  {
    path: "/v1/completions",
    schema: schemas.completionSchema,
    body: { model: "lm", prompt: "W", max_tokens: 2 },
    fields: {
      model,
      prompt: [["W", ["W", "x"], [1, 2], [[1], [2, 3]]], [1, {}, [], ["W", 1], [-1], [0.5], [[]], [[-1]], true]],
      max_tokens: whole(0, TOKENS, 2),
      best_of: whole(1, 64, 3),
      echo: yes,
      logprobs: whole(0, 20, 20),
      stream_options: streamOptions,
      ...sampling,
      ...extensions,
    },
  },
  {
    path: "/v1/chat/completions",
    schema: schemas.chatSchema,
    body: { model: "lm", messages: [{ role: "user", content: "W" }], max_completion_tokens: 2 },
    fields: {
      model,
      messages,
      max_completion_tokens: whole(1, TOKENS, 2),
      max_tokens: whole(1, TOKENS, 2),
      logprobs: yes,
      top_logprobs: whole(0, 20, 20),
      stream_options: streamOptions,
      ...sampling,
      ...extensions,
    },
  },
  {
    path: "/v1/responses",
    schema: schemas.responseSchema,
    body: { model: "lm", input: "W", max_output_tokens: 2 },
    fields: {
      model,
      input: [
        ["W", [{ role: "user", content: "W" }], [{ type: "message", role: "user", content: [{ type: "input_text", text: "W" }] }]],
        [1, {}, [], ["W"], [{ type: "function_call_output", role: "user", content: "W" }], [{ role: "user" }]],
      ],
      // The model's files have no place for it, which is another error.
      instructions: [[], [1, true, []]],
      max_output_tokens: whole(1, TOKENS, 2),
      top_logprobs: whole(0, 20, 20),
      include: [[[], ["message.output_text.logprobs"]], [["reasoning.encrypted_content"], "x", [1]]],
      truncation: choice("auto", "disabled"),
      metadata: [
        [{}, { a: "b" }],
        [1, "a", { a: 1 }, { a: "x".repeat(513) }, { ["k".repeat(65)]: "x" }, Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, "x"]))],
      ],
      stream_options: streamOptions,
      seed: sampling["seed"]!,
      ...responseSampling,
      ...extensions,
    },
  },
  {
    path: "/v1/embeddings",
    schema: schemas.embeddingSchema,
    body: { model: "minilm", input: "W" },
    fields: { model, input: inputs, encoding_format: choice("float", "base64"), dimensions: [[384, 256, 1], [0, 385, "384", 0.5]], truncate: yes },
  },
  {
    path: "/v1/rerank",
    schema: schemas.rerankSchema,
    body: { model: "minilm", query: "W", documents: ["W"] },
    fields: {
      model,
      query: words,
      documents: [[["W"], [{ text: "W" }, "x"]], ["W", [], [1], [{}], [{ text: 1 }], {}]],
      top_n: whole(1, TOKENS, 5),
      return_documents: yes,
      truncate: yes,
    },
  },
  {
    path: "/v1/classify",
    schema: schemas.classifySchema,
    body: { model: "topics", input: "W" },
    fields: { model, input: inputs, truncate: yes },
  },
  {
    path: "/tokenize",
    schema: schemas.tokenizeSchema,
    body: { model: "lm", prompt: "W" },
    fields: { model, prompt: [["W", ""], [1, true, []]], messages: [[], messages[1]], return_token_strs: yes },
  },
  {
    path: "/detokenize",
    schema: schemas.detokenizeSchema,
    body: { model: "lm", tokens: [1, 2] },
    fields: { model, tokens: [[[], [1, 2]], ["W", [-1], [0.5], ["1"], {}, [99_999]]] },
  },
];

async function ask(path: string, body: Json): Promise<{ status: number; error: Json | undefined }> {
  const response = await post(server.url, path, body);
  const text = await response.text();
  return { status: response.status, error: response.ok ? undefined : (JSON.parse(text) as Json)["error"] };
}

describe.each(routes)("$path", ({ path, schema, body, fields }) => {
  test("every field of its schema is in this table", () => {
    assert.deepEqual(Object.keys(fields).sort(), Object.keys(schema.entries).sort());
  });

  for (const [name, [taken, refused]] of Object.entries(fields)) {
    test(`${name}: what it takes, and what it does not`, async () => {
      const extra = path === "/v1/responses" && name === "top_logprobs" ? {} : beside[name] ?? {};
      const { max_completion_tokens, ...without } = body;
      const base = name === "max_tokens" && max_completion_tokens !== undefined ? without : body;
      for (const value of [...taken, null]) {
        if (value === null && name in body && !name.startsWith("max_")) continue;
        const { status, error } = await ask(path, { ...base, ...extra, [name]: value });
        assert.equal(status, 200, `${JSON.stringify(value)}: ${JSON.stringify(error)}`);
      }
      for (const value of refused) {
        const { status, error } = await ask(path, { ...base, ...extra, [name]: value });
        assert.equal(status, 400, JSON.stringify(value));
        assert.ok(error!["param"]?.startsWith(name), `${JSON.stringify(value)}: ${JSON.stringify(error)}`);
        assert.equal(error!["type"], "invalid_request_error");
        assert.ok(["invalid_value", "unsupported_parameter", "context_length_exceeded"].includes(error!["code"]), error!["code"]);
        assert.doesNotMatch(error!["message"], /undefined|Invalid (type|key)/, JSON.stringify(value));
      }
    });
  }

  test("a field that must be there is missing", async () => {
    for (const name of Object.keys(body).filter((name) => !name.startsWith("max_") && path !== "/tokenize")) {
      for (const value of [undefined, null]) {
        const { status, error } = await ask(path, { ...body, [name]: value });
        assert.deepEqual([status, error!["code"], error!["param"]], [400, "missing_required_parameter", name]);
      }
    }
  });

  test("what nobody knows is refused", async () => {
    for (const name of ["temprature", "best of", "x".repeat(300), "constructor", "toString", "", "modle"]) {
      const { status, error } = await ask(path, { ...body, [name]: 1 });
      assert.deepEqual([status, error!["code"], error!["param"]], [400, "unknown_parameter", name.slice(0, 64)]);
    }
  });

  test("what changes no answer is taken", async () => {
    const ignored: Json = {
      user: "u",
      metadata: { a: "b" },
      store: true,
      service_tier: "auto",
      prompt_cache_key: "k",
      prompt_cache_retention: "24h",
      verbosity: "low",
      safety_identifier: "s",
      prediction: { type: "content", content: "x" },
    };
    assert.deepEqual(Object.keys(ignored).sort(), Array.from(schemas.IGNORED).sort());
    for (const [name, value] of Object.entries(ignored)) assert.equal((await ask(path, { ...body, [name]: value })).status, 200, name);
    assert.equal((await ask(path, { ...body, ...ignored })).status, 200);
  });

  test("what would change the answer is refused by its name, except where it asks for what is so", async () => {
    const text = { type: "text" };
    const json = { type: "json_object" };
    const tool = { type: "function", function: { name: "f" } };
    const unsupported: Readonly<Record<string, Field>> = {
      tools: [[[]], [[tool], "x"]],
      functions: [[[]], [[{ name: "f" }]]],
      tool_choice: [["none", "auto"], ["required", tool]],
      function_call: [["none", "auto"], [{ name: "f" }]],
      parallel_tool_calls: [[true, false], ["x"]],
      max_tool_calls: [[], [1]],
      response_format: [[text], [json, { type: "json_schema", json_schema: {} }, "text"]],
      text: [[{}, { format: text }, { format: text, verbosity: "low" }], [{ format: json }, { other: 1 }]],
      modalities: [[["text"]], [["text", "audio"], "text"]],
      audio: [[], [{ voice: "x" }]],
      suffix: [[""], ["x"]],
      reasoning: [[], [{ effort: "low" }]],
      reasoning_effort: [["none"], ["low"]],
      web_search_options: [[], [{}]],
      previous_response_id: [[], ["resp_1"]],
      conversation: [[], ["c"]],
      prompt: [[], [{ id: "p" }]],
      background: [[false], [true]],
      context_management: [[], [[]]],
      guided_json: [[], [{}]],
      guided_regex: [[], ["x"]],
      guided_choice: [[], [["x"]]],
      guided_grammar: [[], ["x"]],
    };
    assert.deepEqual(Object.keys(unsupported).sort(), Object.keys(schemas.UNSUPPORTED).sort());
    for (const [name, [taken, refused]] of Object.entries(unsupported)) {
      // Here it is a field of the route's own.
      if (name in fields) continue;
      for (const value of [...taken, null]) assert.equal((await ask(path, { ...body, [name]: value })).status, 200, `${name}: ${JSON.stringify(value)}`);
      for (const value of refused) {
        const { status, error } = await ask(path, { ...body, [name]: value });
        assert.deepEqual([status, error!["code"], error!["param"]], [400, "unsupported_parameter", name], JSON.stringify(value));
      }
    }
  });
});

describe("fields together", () => {
  const cases: [path: string, body: Json, param: string][] = [
    ["/v1/completions", { model: "lm", prompt: "W", n: 3, best_of: 2 }, "best_of"],
    ["/v1/completions", { model: "lm", prompt: "W", n: 1, best_of: 2, stream: true }, "best_of"],
    ["/v1/completions", { model: "lm", prompt: "W", stream_options: {} }, "stream_options"],
    ["/v1/chat/completions", { model: "lm", messages: [{ role: "user", content: "W" }], top_logprobs: 1 }, "top_logprobs"],
    ["/v1/chat/completions", { model: "lm", messages: [{ role: "user", content: "W" }], max_tokens: 1, max_completion_tokens: 1 }, "max_tokens"],
    ["/v1/chat/completions", { model: "lm", messages: [{ role: "user", content: "W", name: "Ann" }] }, "messages[0].name"],
    ["/v1/chat/completions", { model: "lm", messages: [{ role: "user", content: [{ type: "text", text: "W" }, { type: "image_url", image_url: {} }] }] }, "messages[0].content[1]"],
    ["/v1/chat/completions", { model: "lm", messages: [{ role: "user", content: "W" }, { role: "critic", content: "x" }] }, "messages[1].role"],
    ["/v1/chat/completions", { model: "lm", messages: [{ role: "user", content: "W" }, { role: "assistant", content: "x" }] }, "messages"],
    ["/tokenize", { model: "lm" }, "prompt"],
    ["/tokenize", { model: "lm", prompt: "W", messages: [{ role: "user", content: "W" }] }, "prompt"],
    ["/tokenize", { model: "minilm", messages: [{ role: "user", content: "W" }] }, "messages"],
  ];
  for (const [path, body, param] of cases) {
    test(`${path} ${JSON.stringify(body).slice(0, 120)}`, async () => {
      const { status, error } = await ask(path, body);
      assert.deepEqual([status, error!["param"]], [400, param], JSON.stringify(error));
    });
  }
});
