/**
 * The same request has the same answer, alone and among others, with a cold and a warm prefix, in a memory so small
 * that pasts are computed again, while others come and go. `CANDLEWICK_LOAD=1000` for the long form.
 */
import assert from "node:assert/strict";
import { type GPT2, loadGPT2 } from "candlewick";
import { afterAll, beforeAll, test } from "vitest";
import { randomModel } from "../../../__test__/support/models.js";
import { allEvents, loadShippedBERT, post, shipped, startServer, type Json, until, untilIdle } from "./support/server.js";

const REQUESTS = Number(process.env["CANDLEWICK_LOAD"] ?? 160);

let models: { lm: GPT2; talk: GPT2; random: GPT2; minilm: Awaited<ReturnType<typeof loadShippedBERT>> };
beforeAll(async () => {
  const [lm, talk, random, minilm] = await Promise.all([
    // One sequence of all positions.
    loadGPT2(shipped("default"), { threads: 2, kvCacheBytes: 2 << 20 }),
    loadGPT2(shipped("dialogue"), { threads: 1 }),
    loadGPT2(randomModel({ n_positions: 512 }), { threads: 1, kvCacheBytes: 1 << 20 }),
    loadShippedBERT("minilm"),
  ]);
  models = { lm, talk, random, minilm };
});
afterAll(() => Promise.all(Object.values(models).map((model) => model.close())));

const BEGINNINGS = ["", "It is a truth universally acknowledged, that a single man in possession of a good fortune ", "我们很高兴能够与您合作！".repeat(6), "Once upon a time ".repeat(30)];
const THINGS = ["cats", "雨", "the sea", "🙂🙃", "Tuesday", "一个人"];

/** The i-th of all requests. */
function requestOf(i: number): [path: string, body: object] {
  const text = `${BEGINNINGS[i % BEGINNINGS.length]}${THINGS[i % THINGS.length]} ${i % 7}`;
  const sampling = { seed: i, temperature: [0, 0.7, 1, 1.3][i % 4], top_p: [1, 0.9][i % 2], top_k: [0, 40][i % 2], max_tokens: 8 + (i % 40), logprobs: i % 3 === 0 ? 2 : undefined };
  switch (i % 8) {
    case 0:
      return ["/v1/chat/completions", { model: "talk", messages: [{ role: "user", content: text.slice(-200) }], seed: i, max_tokens: 24, temperature: 0.9 }];
    case 1:
      return ["/v1/embeddings", { model: "minilm", input: [text, THINGS[i % THINGS.length]], truncate: true }];
    case 2:
      return ["/v1/completions", { model: "random", prompt: text.slice(-100), ...sampling, n: 3, ignore_eos: true, stream: i % 16 === 2 }];
    case 3:
      return ["/v1/completions", { model: "lm", prompt: [text, `${text}!`], ...sampling, stop: [" the", "。"] }];
    default:
      return ["/v1/completions", { model: "lm", prompt: text, ...sampling, repetition_penalty: [1, 1.2][i % 2], stream: i % 2 === 0, echo: i % 5 === 0 }];
  }
}

/** What may differ between two answers to one request. */
function plain(json: Json): Json {
  const { id: _, created: _created, usage, ...rest } = json;
  const { prompt_tokens_details: _details, ...counts } = (usage ?? {}) as Json;
  return { ...rest, usage: counts };
}

async function ask(url: string, i: number): Promise<string> {
  const [path, body] = requestOf(i);
  const response = await post(url, path, body);
  if (!response.ok) throw new Error(`${i}: ${response.status} ${await response.text()}`);
  if (response.headers.get("content-type")!.startsWith("application/json")) return JSON.stringify(plain((await response.json()) as Json));
  // Of several sequences the order of events is not the request's.
  const events = (await allEvents(response)).filter((event) => event.choices);
  const byChoice = [0, 1, 2].map((index) => events.flatMap(({ choices }) => choices.filter((choice: Json) => choice["index"] === index)));
  return JSON.stringify(byChoice);
}

test(`${REQUESTS} mixed requests have the same bytes alone and 32 at once`, async () => {
  await using server = await startServer({ models, maxWaitMs: 3_600_000 });
  const { url } = server;
  const alone: string[] = [];
  for (let i = 0; i < REQUESTS; i++) alone.push(await ask(url, i));

  let next = 0;
  const disturbing = new AbortController();
  const worker = async () => {
    while (next < REQUESTS) {
      const i = next++;
      assert.equal(await ask(url, i), alone[i], `request ${i}: ${JSON.stringify(requestOf(i))}`);
    }
  };
  const disturber = async (number: number) => {
    for (let i = number; !disturbing.signal.aborted; i += 3) {
      const controller = new AbortController();
      const body = { model: i % 2 ? "lm" : "random", prompt: `${BEGINNINGS[1]} ${i}`, max_tokens: 100, n: 2, stream: true };
      const asked = post(url, "/v1/completions", body, { signal: controller.signal });
      setTimeout(() => controller.abort(), (i * 7) % 50);
      await asked.then((response) => response.text()).catch(() => {});
    }
  };
  const disturbers = [0, 1, 2].map(disturber);
  await Promise.all(Array.from({ length: 32 }, worker));
  disturbing.abort();
  await Promise.all(disturbers);
  assert.ok(models.lm.stats().pauses > 0, "pasts were computed again");
  assert.ok(models.lm.stats().cachedTokens > 0, "prefixes were shared");
  await until(() => [models.lm, models.random].every((lm) => lm.stats().running === 0), "nothing runs");
  for (const lm of [models.lm, models.random, models.talk]) await untilIdle(lm);
});
