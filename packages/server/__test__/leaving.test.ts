/**
 * Clients that go away: wherever they do, in every framework that the handler is mounted in, the compute for them ends,
 * their memory is free, and nobody else's answer changes. `CANDLEWICK_LEAVES=2000` for the long form.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { type BERT, type GPT2, loadGPT2 } from "candlewick";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import { afterAll, beforeAll, describe, test } from "vitest";
import { randomModel } from "../../../__test__/support/models.js";
import { createHandler, type Handler } from "../index.js";
import { allEvents, answer, loadShippedBERT, post, startServer, textOf, until, untilIdle } from "./support/server.js";

const LEAVES = Number(process.env["CANDLEWICK_LEAVES"] ?? 240);

let endless: GPT2;
let bert: BERT;
beforeAll(async () => {
  [endless, bert] = await Promise.all([loadGPT2(randomModel({ n_positions: 8_192 }), { threads: 1, kvCacheBytes: 64 << 20 }), loadShippedBERT("minilm")]);
});
afterAll(() => Promise.all([endless.close(), bert.close()]));

/** Each mounts the handler at /ai. */
const frameworks: Record<string, (models: { endless: GPT2 }) => Promise<{ server: Server; handler: Handler }>> = {
  "node:http": async (models) => {
    const handler = createHandler({ models, basePath: "/ai" });
    return { handler, server: createServer(getRequestListener(handler)) };
  },
  hono: async (models) => {
    const handler = createHandler({ models });
    const app = new Hono().mount("/ai", handler);
    return { handler, server: createServer(getRequestListener(app.fetch)) };
  },
  express: async (models) => {
    const handler = createHandler({ models });
    // Express takes the path off before the handler sees it.
    const app = express().use("/ai", getRequestListener(handler) as unknown as RequestListener);
    return { handler, server: createServer(app) };
  },
  fastify: async (models) => {
    const handler = createHandler({ models, basePath: "/ai" });
    const listener = getRequestListener(handler);
    const app = fastify();
    // The handler reads bodies itself.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser("*", (_request, _body, done) => done(null));
    app.all("/ai/*", (request, reply) => {
      reply.hijack();
      void listener(request.raw, reply.raw);
    });
    await app.ready();
    return { handler, server: app.server };
  },
};

/** Where a client leaves. */
const moments = {
  "before the headers": async (url: string) => {
    const controller = new AbortController();
    const asked = post(url, "/v1/completions", { ...long, prompt: "z".repeat(6_000) }, { signal: controller.signal });
    controller.abort();
    await asked.catch(() => {});
  },
  "in the middle of the prompt": async (url: string) => {
    const controller = new AbortController();
    const asked = post(url, "/v1/completions", { ...long, prompt: "y".repeat(6_000) }, { signal: controller.signal });
    await until(() => endless.stats().running > 0, "the prompt is being read");
    controller.abort();
    await asked.catch(() => {});
  },
  "in the middle of the text": (url: string) => leaveAfterToken(url, long),
  "in the middle of four texts": (url: string) => leaveAfterToken(url, { ...long, n: 4 }),
  "of an answer that is not streamed": async (url: string) => {
    const controller = new AbortController();
    const asked = post(url, "/v1/completions", { ...long, stream: false, n: 4 }, { signal: controller.signal });
    await until(() => endless.stats().running === 4, "it runs");
    controller.abort();
    await asked.catch(() => {});
  },
};

const long = { model: "endless", prompt: "abc", max_tokens: 2_000, ignore_eos: true, stream: true };

async function leaveAfterToken(url: string, body: object): Promise<void> {
  const controller = new AbortController();
  const response = await post(url, "/v1/completions", body, { signal: controller.signal });
  const reader = response.body!.getReader();
  await reader.read();
  await reader.read();
  controller.abort();
  await reader.read().catch(() => {});
}

for (const [name, mount] of Object.entries(frameworks)) {
  describe(name, () => {
    for (const [moment, leave] of Object.entries(moments)) {
      test(`a client that leaves ${moment} ends the compute, and frees its memory`, async () => {
        const { server, handler } = await mount({ endless });
        await once(server.listen(0, "127.0.0.1"), "listening");
        const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/ai`;
        await leave(url);
        await until(() => endless.stats().running === 0 && endless.stats().waiting === 0, "nothing runs");
        const { count } = endless.stats().steps;
        await until(() => handler.working === 0, "the handler has let go of it");
        assert.ok(endless.stats().steps.count - count <= 1, "it was over when it was over");
        await untilIdle(endless);
        server.close();
        server.closeAllConnections();
        await handler.close();
      });
    }
  });
}

test("a socket that is cut off in the middle of a body, or says nothing, harms nobody", async () => {
  await using server = await startServer({ models: { endless }, bodyTimeoutMs: 300 });
  const { port } = new URL(server.url);
  const head = `POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"model":`;
  const slow = Array.from({ length: 128 }, () => connect(Number(port), "127.0.0.1").on("error", () => {}));
  for (const socket of slow) socket.write(head);
  // Who comes meanwhile does not wait for them.
  const began = performance.now();
  await answer(server.url, "/v1/completions", { model: "endless", prompt: "x", max_tokens: 1 });
  assert.ok(performance.now() - began < 5_000);
  for (const socket of slow.slice(0, 64)) socket.destroy();
  const said = await Promise.all(slow.slice(64).map((socket) => once(socket, "data").then(([bytes]) => String(bytes))));
  for (const text of said) assert.match(text, /^HTTP\/1.1 408 /);
  for (const socket of slow) socket.destroy();
});

test("a client that closes its half of the socket has left", async () => {
  await using server = await startServer({ models: { endless } });
  const { port } = new URL(server.url);
  const body = JSON.stringify({ ...long, max_tokens: 8_000 });
  const socket = connect({ port: Number(port), host: "127.0.0.1", allowHalfOpen: true });
  socket.write(`POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  socket.resume();
  await until(() => endless.stats().running === 1, "it runs");
  socket.end();
  await until(() => endless.stats().running === 0 && server.handler.working === 0, "nothing runs");
  await untilIdle(endless);
  socket.destroy();
});

test(`${LEAVES} clients that leave at random change no bystander's bytes`, async () => {
  await using server = await startServer({ models: { endless, minilm: bert }, maxWaitMs: 3_600_000 });
  const { url } = server;
  const seeds = [11, 12, 13, 14];
  const bystander = async (seed: number) => {
    const body = { ...long, prompt: `seed ${seed}`, max_tokens: 120, seed, logprobs: 1, stop: ["\u0000\u0001"] };
    return textOf(await allEvents(await post(url, "/v1/completions", body)));
  };
  const alone = new Map<number, string>();
  for (const seed of seeds) alone.set(seed, await bystander(seed));

  let random = 12_345;
  const draw = (below: number) => (random = (random * 1_103_515_245 + 12_345) % 2 ** 31) % below;
  const progress = { left: 0 };
  const more = () => progress.left < LEAVES;
  const leaver = async () => {
    while (more()) {
      progress.left++;
      const controller = new AbortController();
      const { signal } = controller;
      const stream = draw(2) === 0;
      const body = { ...long, stream, n: [1, 1, 4][draw(3)], prompt: "p".repeat(1 + draw(2_000)), max_tokens: 500 };
      const asked = draw(8) === 0 ? post(url, "/v1/embeddings", { model: "minilm", input: Array.from({ length: 64 }, () => "w ".repeat(1 + draw(200))) }, { signal }) : post(url, "/v1/completions", body, { signal });
      const timer = setTimeout(() => controller.abort(), draw(60));
      await asked.then((response) => response.text()).catch(() => {});
      clearTimeout(timer);
    }
  };
  let compared = 0;
  const watcher = async () => {
    while (more()) {
      const seed = seeds[compared++ % seeds.length]!;
      assert.equal(await bystander(seed), alone.get(seed));
    }
  };
  await Promise.all([...Array.from({ length: 6 }, leaver), watcher(), watcher()]);
  assert.ok(compared >= 4, `${compared} comparisons`);
  await until(() => endless.stats().running === 0 && server.handler.working === 0, "nothing runs");
  await untilIdle(endless);
  assert.deepEqual([bert.stats().running, bert.stats().waiting], [0, 0]);
});
