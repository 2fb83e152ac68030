/** What whoever runs a server relies on: health, draining, keys, limits, metrics, logs, tracing. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { type GPT2, loadGPT2 } from "candlewick";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { context, propagation, trace } from "@opentelemetry/api";
import { afterAll, beforeAll, describe, test } from "vitest";
import { fixturePath } from "../../../__test__/support/fixtures.js";
import { newFolder, randomModel, recitingModel } from "../../../__test__/support/models.js";
import { allEvents, answer, eventsOf, loadShipped, loadShippedBERT, metric, post, refused, startServer, textOf, until, untilIdle } from "./support/server.js";

let lm: GPT2;
/** Talks nonsense and does not stop. */
let endless: GPT2;
beforeAll(async () => {
  [lm, endless] = await Promise.all([loadShipped("default"), loadGPT2(randomModel({ n_positions: 8_192 }), { threads: 1 })]);
});
afterAll(() => Promise.all([lm.close(), endless.close()]));

const longRequest = { model: "endless", prompt: "abc", max_tokens: 4_000, ignore_eos: true, stream: true };

describe("health", () => {
  test("readyz waits for models that are being loaded, and requests for them are told so", async () => {
    let give!: (model: GPT2) => void;
    await using server = await startServer({ models: { lm, late: new Promise<GPT2>((resolve) => (give = resolve)) } });
    assert.equal((await fetch(`${server.url}/readyz`)).status, 503);
    assert.equal((await fetch(`${server.url}/livez`)).status, 200);
    const { status, error, headers } = await refused(server.url, "/v1/completions", { model: "late", prompt: "x" });
    assert.deepEqual([status, error["code"]], [503, "model_loading"]);
    assert.ok(Number(headers.get("retry-after")) >= 1);
    assert.equal((await post(server.url, "/v1/completions", { model: "lm", prompt: "x", max_tokens: 1 })).status, 200);
    give(endless);
    await until(async () => (await fetch(`${server.url}/readyz`)).status === 200, "ready");
    assert.equal((await post(server.url, "/v1/completions", { model: "late", prompt: "x", max_tokens: 1 })).status, 200);
  });

  test("a model that stands still while somebody waits fails livez, and nothing else does", async () => {
    const never = new Promise<never>(() => {});
    // Its scheduler has taken the request and makes no step any more.
    const wedged = Object.create(lm, {
      generate: { value: () => ({ accepted: Promise.resolve({ promptTokens: 1 }), next: () => never, result: never, cancel() {} }) },
      info: { value: lm.info },
      stats: { value: () => ({ ...lm.stats(), running: 1, steps: { ...lm.stats().steps, secondsSinceLast: 3_600 } }) },
    }) as GPT2;
    await using server = await startServer({ models: { wedged, lm }, livenessMs: 300 });
    assert.equal((await fetch(`${server.url}/livez`)).status, 200, "nobody waits yet");
    const controller = new AbortController();
    const waiting = post(server.url, "/v1/completions", { model: "wedged", prompt: "x" }, { signal: controller.signal }).catch(() => {});
    await until(async () => (await fetch(`${server.url}/livez`)).status === 503, "livez fails");
    const { status, models } = (await (await fetch(`${server.url}/livez`)).json()) as { status: string; models: string[] };
    assert.deepEqual([status, models], ["stuck", ["wedged"]]);
    assert.equal((await fetch(`${server.url}/readyz`)).status, 200);
    controller.abort();
    await waiting;
    await until(async () => (await fetch(`${server.url}/livez`)).status === 200, "who waited has left");
  });

  test("an idle model, and a client that does not read, do not fail livez", async () => {
    await using server = await startServer({ models: { endless }, livenessMs: 100 });
    const response = await post(server.url, "/v1/completions", longRequest);
    const reader = response.body!.getReader();
    await reader.read();
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal((await fetch(`${server.url}/livez`)).status, 200);
    await reader.cancel();
  });
});

describe("draining", () => {
  test("fails readyz alone, refuses what comes, and lets what runs finish", async () => {
    await using server = await startServer({ models: { lm } });
    const running = post(server.url, "/v1/completions", { model: "lm", prompt: "Once", max_tokens: 200, stream: true, seed: 1 });
    const response = await running;
    const draining = server.handler.drain(30_000);
    assert.equal((await fetch(`${server.url}/readyz`)).status, 503);
    assert.equal((await fetch(`${server.url}/livez`)).status, 200);
    const { status, error, headers } = await refused(server.url, "/v1/completions", { model: "lm", prompt: "x" });
    assert.deepEqual([status, error["code"], headers.has("retry-after")], [503, "server_draining", true]);
    const events = await allEvents(response);
    assert.equal(events.at(-1), "[DONE]");
    await draining;
    assert.equal(textOf(events), (await lm.generate("Once", { maxNewTokens: 200, seed: 1 }).result).text);
  });

  test("ends 32 streams that outlast the grace with an error event each, none without", async () => {
    await using server = await startServer({ models: { endless }, maxWaitMs: 3_600_000 });
    const responses = await Promise.all(Array.from({ length: 8 }, () => post(server.url, "/v1/completions", { ...longRequest, max_tokens: 2_000, n: 4 })));
    const reading = responses.map(allEvents);
    await until(() => endless.stats().running === 32, "all run");
    await server.handler.drain(200);
    for (const events of await Promise.all(reading)) {
      const last = events.at(-1);
      assert.deepEqual([last.error.code, last.error.type, last.error.param], ["server_draining", "server_error", null]);
      assert.ok(!events.includes("[DONE]"));
    }
    await until(() => endless.stats().running === 0, "nothing runs");
    assert.equal(await metric(server.handler, "requests_total", 'outcome="ended_by_drain"'), 8);
  });

  test("ends a request that is not streamed with 503", async () => {
    await using server = await startServer({ models: { endless } });
    const waiting = refused(server.url, "/v1/completions", { ...longRequest, stream: false });
    await until(() => endless.stats().running === 1, "it runs");
    await server.handler.drain(0);
    const { status, error } = await waiting;
    assert.deepEqual([status, error["code"]], [503, "server_draining"]);
  });
});

test("a stream that is silent has comments, in the queue too, from its beginning on", async () => {
  const busy = await loadGPT2(randomModel({ n_positions: 4_096, n_embd: 128, n_layer: 4 }), { threads: 1 });
  await using server = await startServer({ models: { busy }, keepAliveMs: 30 });
  const response = await post(server.url, "/v1/completions", { model: "busy", prompt: "y".repeat(4_000), max_tokens: 2, ignore_eos: true, stream: true });
  const events = await allEvents(response);
  assert.deepEqual(events[0], { comment: "keep-alive" });
  assert.equal(events.at(-1), "[DONE]");
  await busy.close();
});

test("a client that reads nothing is cut off, and its memory is free", async () => {
  await using server = await startServer({ models: { endless }, stallMs: 200 });
  const response = await post(server.url, "/v1/completions", { ...longRequest, max_tokens: 8_000, logprobs: 20 });
  await until(() => endless.stats().running === 1, "it runs");
  // Nothing is read: what the sockets hold is full after a while.
  await until(() => endless.stats().running === 0, "the stream was ended");
  await untilIdle(endless);
  const events = await allEvents(response);
  assert.equal(events.at(-1).error.code, "client_stalled", "should it read again, it is told");
  assert.equal(await metric(server.handler, "requests_total", 'outcome="client_closed"'), 1);
});

test("draining does not wait for a client that reads nothing", async () => {
  await using server = await startServer({ models: { endless } });
  const response = await post(server.url, "/v1/completions", { ...longRequest, max_tokens: 8_000, logprobs: 20 });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const began = performance.now();
  await server.handler.drain(100);
  assert.ok(performance.now() - began < 5_000);
  await until(() => endless.stats().running === 0, "nothing runs");
  assert.equal((await allEvents(response)).at(-1).error.code, "server_draining");
});

describe("keys", () => {
  const digest = (text: string) => createHash("sha256").update(text).digest("hex");
  const keys = [
    { name: "one", key: "sk-one-0123456789" },
    { name: "two", sha256: digest("sk-two-0123456789"), requestsPerMinute: 2 },
    { name: "three", key: "sk-three-0123456789", tokensPerMinute: 40 },
  ];
  const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });

  test("are asked for on every route but those that watch the server", async () => {
    await using server = await startServer({ models: { lm }, keys });
    for (const path of ["/livez", "/readyz", "/metrics"]) assert.equal((await fetch(server.url + path)).status, 200, path);
    for (const path of ["/", "/v1/models", "/v1/models/lm", "/openapi.json"]) assert.equal((await fetch(server.url + path)).status, 401, path);
    for (const path of ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank", "/v1/classify", "/tokenize", "/detokenize"]) {
      const { status, error } = await refused(server.url, path, "no JSON at all");
      assert.deepEqual([status, error["code"]], [401, "invalid_api_key"], path);
    }
    for (const header of ["Bearer", "Bearer ", "Bearer sk-one", "sk-one-0123456789", "Basic !!!!", `Bearer ${keys[1]!.sha256}`, "Bearer sk-one-0123456789 x"]) {
      assert.equal((await fetch(`${server.url}/v1/models`, { headers: { authorization: header } })).status, 401, header);
    }
    assert.equal((await fetch(`${server.url}/v1/models`, as("sk-one-0123456789"))).status, 200);
    const basic = Buffer.from("anybody:sk-two-0123456789").toString("base64");
    assert.equal((await fetch(`${server.url}/v1/models`, { headers: { authorization: `Basic ${basic}` } })).status, 200, "a browser's");
  });

  test("have limits of their own, with when to come again", async () => {
    await using server = await startServer({ models: { lm }, keys });
    const ask = (key: string, more = {}) => post(server.url, "/v1/completions", { model: "lm", prompt: "x", max_tokens: 1, ...more }, as(key));
    assert.deepEqual([(await ask("sk-two-0123456789")).status, (await ask("sk-two-0123456789")).status], [200, 200]);
    const third = await ask("sk-two-0123456789");
    assert.equal(third.status, 429);
    const seconds = Number(third.headers.get("retry-after"));
    assert.ok(seconds >= 1 && seconds <= 59, String(seconds));
    assert.ok(Math.abs(Number(third.headers.get("retry-after-ms")) / 1_000 - seconds) <= 1);
    assert.equal((await ask("sk-one-0123456789")).status, 200, "another key's is its own");
    assert.equal((await ask("sk-three-0123456789", { max_tokens: 30 })).status, 200);
    assert.equal((await ask("sk-three-0123456789", { max_tokens: 30 })).status, 429);
    assert.equal((await ask("sk-three-0123456789", { max_tokens: 100 })).status, 400, "more than a minute has");
    assert.equal((await ask("sk-three-0123456789", { max_tokens: 8 })).status, 200, "what was refused is not used up");
  });

  test("keep their prompts apart, unless the server shares prefixes", async () => {
    const prompt = `${"A shared beginning, ".repeat(20)}and an end.`;
    const cachedFor = async (sharePrefixes: boolean) => {
      const own = await loadShipped("default");
      await using server = await startServer({ models: { own }, keys, sharePrefixes });
      const cached = async (key: string, more = {}) => {
        const { usage } = await answer(server.url, "/v1/completions", { model: "own", prompt, max_tokens: 1, ...more }, as(key));
        return usage.prompt_tokens_details.cached_tokens > 0;
      };
      const seen = [await cached("sk-one-0123456789"), await cached("sk-one-0123456789"), await cached("sk-two-0123456789", { user: "one" })];
      await own.close();
      return seen;
    };
    assert.deepEqual(await cachedFor(false), [false, true, false]);
    assert.deepEqual(await cachedFor(true), [false, true, true]);
  });
});

describe("metrics", () => {
  test("have no more series whatever is asked", async () => {
    const bert = await loadShippedBERT("minilm");
    await using server = await startServer({ models: { lm, endless, minilm: bert } });
    const series = async () => (await server.handler.metrics()).split("\n").filter((line) => line && !line.startsWith("#")).length;
    for (let i = 0; i < 200; i++) {
      await post(server.url, "/v1/completions", { model: `no-such-${i}`, prompt: "x" });
      await post(server.url, `/no/route/${i}`, {});
    }
    for (const model of ["lm", "endless"]) {
      await answer(server.url, "/v1/completions", { model, prompt: "x", max_tokens: 3 });
      await allEvents(await post(server.url, "/v1/completions", { model, prompt: "x", max_tokens: 3, stream: true }));
      await refused(server.url, "/v1/completions", { model, prompt: "x", max_tokens: 1e9 });
    }
    await answer(server.url, "/v1/embeddings", { model: "minilm", input: "x" });
    assert.ok((await series()) <= 300, `${await series()} series`);
    assert.equal(await metric(server.handler, "rejections_total", 'status="404"'), 400);
    assert.equal(await metric(server.handler, "tokens_total", 'model="lm",kind="completion"'), 6);
    assert.ok((await metric(server.handler, "time_to_first_token_seconds_count")) >= 4);
    await bert.close();
  });

  test("are what the models say of themselves", async () => {
    await using server = await startServer({ models: { endless } });
    const response = await post(server.url, "/v1/completions", longRequest);
    const reader = response.body!.getReader();
    await reader.read();
    // Counted at the end of a step, after its tokens were sent.
    await until(async () => (await metric(server.handler, "requests_running")) === 1, "it runs");
    assert.ok((await metric(server.handler, "kv_cache_usage_ratio")) > 0);
    assert.equal(await metric(server.handler, "kv_blocks"), endless.stats().blocks);
    await reader.cancel();
    await until(async () => (await metric(server.handler, "requests_running")) === 0, "nothing runs");
    const { steps } = endless.stats();
    assert.equal(await metric(server.handler, "steps_total"), steps.count);
  });
});

test("what a request may make of little is bounded before it is made", async () => {
  await using server = await startServer({ models: { lm } });
  const prompt = Array.from({ length: 30 }, () => "word ".repeat(400));
  const refusedWith = async (body: object) => {
    const { status, error } = await refused(server.url, "/v1/completions", { model: "lm", ...body });
    return [status, error["code"], error["param"]];
  };
  assert.deepEqual(await refusedWith({ prompt, max_tokens: 0, echo: true, logprobs: 20, n: 64 }), [400, "too_many_logprobs", "logprobs"]);
  assert.deepEqual(await refusedWith({ prompt: Array.from({ length: 2_048 }, () => "a"), max_tokens: 0, n: 64 }), [400, "too_many_choices", "n"]);
  const chat = { prompt: "a", max_tokens: 400, n: 64, logprobs: 20 };
  assert.deepEqual(await refusedWith(chat), [400, "too_many_logprobs", "logprobs"]);
});

test("a request that was left before it came is no request, and draining twice is draining once", async () => {
  await using server = await startServer({ models: { lm, endless } });
  const left = new Request("http://127.0.0.1/v1/completions", {
    method: "POST",
    body: JSON.stringify({ model: "lm", prompt: "x" }),
    headers: { "content-type": "application/json" },
    signal: AbortSignal.abort(),
  });
  const response = await server.handler(left).catch(() => undefined);
  assert.ok(response === undefined || [400, 499].includes(response.status), String(response?.status));
  assert.equal(server.handler.working, 0);
  const running = allEvents(await post(server.url, "/v1/completions", longRequest));
  await Promise.all([server.handler.drain(300), server.handler.drain(100)]);
  assert.equal((await running).at(-1).error.code, "server_draining");
});

test("two adapters of one name are refused, also of models that come later", async () => {
  const adapters = { all: join(fixturePath("adapters"), "all") };
  const load = () => loadGPT2(fixturePath("gpt2-base"), { dtype: "f32", adapters });
  const [first, second] = await Promise.all([load(), load()]);
  await using server = await startServer({ models: { first, second: Promise.resolve(second) } });
  await until(async () => (await post(server.url, "/v1/completions", { model: "second", prompt: [1] })).status === 503, "the second is not there");
  assert.equal((await post(server.url, "/v1/completions", { model: "all", prompt: [1], max_tokens: 1 })).status, 200);
  await Promise.all([first.close(), second.close()]);
});

test("a slow reader does not hold the model's memory without end", async () => {
  await using server = await startServer({ models: { endless }, stallMs: 100 });
  const response = await server.handler(
    new Request("http://127.0.0.1/v1/completions", { method: "POST", body: JSON.stringify(longRequest), headers: { "content-type": "application/json" } }),
  );
  const reader = response.body!.getReader();
  for (let reads = 0; server.handler.working > 0; reads++) {
    assert.ok(reads < 20, "it reads just in time, and is cut off all the same");
    await reader.read();
    await new Promise((resolve) => setTimeout(resolve, 80));
  }
  await untilIdle(endless);
  await using unread = await startServer({ models: { endless }, stallMs: 100 });
  await unread.handler(
    new Request("http://127.0.0.1/v1/completions", { method: "POST", body: JSON.stringify(longRequest), headers: { "content-type": "application/json" } }),
  );
  await until(() => unread.handler.working === 0, "a response that nobody reads is let go");
});

test("the log has a line for each request, and nothing of its texts", async () => {
  const lines: any[] = [];
  const write = (line: object) => void lines.push(line);
  await using server = await startServer({ models: { lm }, log: { info: write, warn: write, error: write } as never });
  await answer(server.url, "/v1/completions", { model: "lm", prompt: "the secret garden", max_tokens: 2 }, { headers: { "x-request-id": "mine-1" } });
  await refused(server.url, "/v1/completions", { model: "the secret model", prompt: "x" });
  await fetch(`${server.url}/livez`);
  assert.equal(lines.length, 2);
  await fetch(`${server.url}/v1/models/guess/metrics`);
  assert.equal(lines.length, 3, "no path keeps a request out of it");
  const [good, bad] = lines;
  assert.deepEqual([good.request_id, good.status, good.model, good.completion_tokens, good.outcome], ["mine-1", 200, "lm", 2, "completed"]);
  assert.deepEqual([bad.status, bad.model, bad.error], [404, "unknown", "model_not_found"]);
  assert.doesNotMatch(JSON.stringify(lines), /secret/);
});

test("spans have the attributes of generative models, in the caller's trace", async () => {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  trace.setGlobalTracerProvider(provider);
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  await using server = await startServer({ models: { lm } });
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-01` };
  await answer(server.url, "/v1/completions", { model: "lm", prompt: "Once", max_tokens: 3, temperature: 0.5 }, { headers });
  const [span] = exporter.getFinishedSpans();
  assert.equal(span!.name, "text_completion lm");
  assert.equal(span!.spanContext().traceId, traceId);
  const { attributes } = span!;
  assert.deepEqual(
    [attributes["gen_ai.request.max_tokens"], attributes["gen_ai.request.temperature"], attributes["gen_ai.usage.output_tokens"], attributes["gen_ai.response.finish_reasons"]],
    [3, 0.5, 3, ["length"]],
  );
});

describe("the socket", () => {
  const raw = (url: string, headers: Record<string, string>) =>
    new Promise<number>((resolve, reject) => {
      request(`${url}/v1/models`, { headers }, (response) => resolve(response.resume().statusCode!)).on("error", reject).end();
    });

  test("answers on loopback to its own names alone", async () => {
    await using server = await startServer({ models: { lm } });
    const { port } = new URL(server.url);
    for (const [host, status] of [[`localhost:${port}`, 200], [`127.0.0.1:${port}`, 200], [`evil.example:${port}`, 421], ["evil.example", 421]] as const) {
      assert.equal(await raw(server.url, { host }), status, host);
    }
  });
});

test("adapters are models by their names, beside their base", async () => {
  const folder = newFolder();
  cpSync(fixturePath("gpt2-base"), folder, { recursive: true });
  const { vocab_size } = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
  // A word of one letter for each id.
  const words = Array.from({ length: vocab_size }, (_, id) => [String.fromCodePoint(0x4e00 + id), id]);
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ model: { type: "WordLevel", vocab: Object.fromEntries(words), unk_token: words[0]![0] } }));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ tokenizer_class: "PreTrainedTokenizerFast" }));
  const adapters = { all: join(fixturePath("adapters"), "all"), stabilised: join(fixturePath("adapters"), "stabilised") };
  const base = await loadGPT2(folder, { dtype: "f32", adapters });
  await using server = await startServer({ models: { base } });
  const { data } = (await (await fetch(`${server.url}/v1/models`)).json()) as { data: { id: string; parent: string | null }[] };
  assert.deepEqual(data.map(({ id, parent }) => [id, parent]), [["base", null], ["all", "base"], ["stabilised", "base"]]);
  assert.equal((await fetch(`${server.url}/v1/models/all`)).status, 200);
  const texts = new Set<string>();
  for (const model of ["base", "all", "stabilised"]) {
    const { choices, model: answered } = await answer(server.url, "/v1/completions", { model, prompt: [5, 6, 7], max_tokens: 12, temperature: 0, ignore_eos: true });
    const { text } = await base.generate([5, 6, 7], { maxNewTokens: 12, temperature: 0, ignoreEos: true, ...(model !== "base" && { adapter: model }) }).result;
    assert.deepEqual([choices[0].text, answered], [text, model]);
    texts.add(text);
  }
  assert.equal(texts.size, 3);
  assert.match(await server.handler.metrics(), /candlewick_lora_requests_info\{max_lora="2",running_lora_adapters="",waiting_lora_adapters=""\} 1/);
  await base.close();
});

test("no other site's page may use it", async () => {
  await using server = await startServer({ models: { lm } });
  const headers = { origin: "https://evil.example", "access-control-request-method": "POST", "access-control-request-headers": "content-type" };
  const asked = await fetch(`${server.url}/v1/completions`, { method: "OPTIONS", headers });
  assert.equal(asked.status, 405);
  assert.ok(!Array.from(asked.headers.keys()).some((name) => name.startsWith("access-control")));
  // What a page may send without asking is not read.
  assert.equal((await post(server.url, "/v1/completions", { model: "lm", prompt: "x" }, { headers: { "content-type": "text/plain" } })).status, 415);
});

test("a reciting model's text comes whole through every route", async () => {
  const text = "It says this. 说这个，🙂 no more.";
  const reciting = await loadGPT2(recitingModel(`A${text}`), { threads: 1 });
  await using server = await startServer({ models: { reciting } });
  const body = { model: "reciting", prompt: "A", max_tokens: 60, temperature: 0 };
  const whole = await answer(server.url, "/v1/completions", body);
  assert.deepEqual([whole["choices"][0].text, whole["choices"][0].finish_reason], [text, "stop"]);
  const events: any[] = [];
  for await (const event of eventsOf(await post(server.url, "/v1/completions", { ...body, stream: true }))) events.push(event);
  assert.equal(textOf(events), text);
  assert.deepEqual(events.at(-2).choices[0].finish_reason, "stop");
  await reciting.close();
});
