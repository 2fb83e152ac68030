/** Answers to requests whose prompt cannot be taken, and streams through the servers that people use. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, request, type RequestListener, type Server } from "node:http";
import { connect, createServer as createHttp2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { getRequestListener } from "@hono/node-server";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import { afterAll, afterEach, beforeAll, describe, test } from "vitest";
import { type GPT2, loadGPT2, type TokenStream } from "../index.js";
import { hasCode, QUEUE } from "./support/assertions.js";
import { randomModel, recitingModel } from "./support/models.js";

let lm: GPT2;
let reciting: GPT2;
const servers: { close(): unknown }[] = [];
beforeAll(async () => {
  lm = await loadGPT2(randomModel({ n_positions: 32_768 }), { threads: 1 });
  reciting = await loadGPT2(recitingModel("A talker says this and no more."), { threads: 1 });
});
afterEach(() => servers.splice(0).forEach((server) => server.close()));
afterAll(() => Promise.all([lm.close(), reciting.close()]));

const TOO_LONG = "x".repeat(40_000);

describe("accepted", () => {
  test("is settled before a token is computed, with the prompt's length", async () => {
    const stream = lm.generate("abc", { maxNewTokens: 3, ignoreEos: true });
    assert.deepEqual(await stream.accepted, { promptTokens: 3 });
    assert.deepEqual(await lm.generate(["abc", "defg"], { maxNewTokens: 1 }).accepted, { promptTokens: 7 });
    assert.deepEqual(await lm.generate(TOO_LONG, { maxNewTokens: 8, truncate: "left" }).accepted, { promptTokens: 32_760 });
    await stream.result;
    assert.deepEqual(await stream.accepted, { promptTokens: 3 }, "also when it has ended");
  });

  test("is rejected with what is wrong, and never unhandled", async () => {
    const unhandled: unknown[] = [];
    const listener = (error: unknown) => unhandled.push(error);
    process.on("unhandledRejection", listener);
    const streams = [lm.generate(TOO_LONG), lm.generate([9999]), lm.generate("abc", { signal: AbortSignal.abort() })];
    for (const stream of streams) void stream.accepted;
    for (const [i, code] of (["CONTEXT_OVERFLOW", "INPUT_INVALID", "ABORTED"] as const).entries()) {
      await assert.rejects(streams[i]!.accepted, hasCode(code));
    }
    await sleep(10);
    process.off("unhandledRejection", listener);
    assert.deepEqual(unhandled, []);
  });

  test("is rejected for a stream that is cancelled or whose signal is aborted before", async () => {
    const controller = new AbortController();
    const text = "y".repeat(30_000);
    const cancelled = lm.generate(text, { maxNewTokens: 1 });
    const aborted = lm.generate(text, { maxNewTokens: 1, signal: controller.signal });
    cancelled.cancel();
    controller.abort();
    for (const stream of [cancelled, aborted]) await stream.accepted.catch((error) => assert.ok(hasCode("ABORTED")(error)));
  });
});

describe("toResponse", () => {
  test("answers a prompt that is too long with 400 and OpenAI's code", async () => {
    for (const format of ["sse", "text"] as const) {
      const response = await lm.generate(TOO_LONG).toResponse({ format });
      assert.equal(response.status, 400);
      assert.match(response.headers.get("content-type")!, /^application\/json/);
      const { error } = (await response.json()) as { error: Record<string, string> };
      assert.deepEqual([error["code"], error["type"], error["param"]], ["context_length_exceeded", "invalid_request_error", null]);
      assert.match(error["message"]!, /32768|32,768/);
    }
  });

  test("has the status of what else is wrong with a request", async () => {
    const closed = await loadGPT2(randomModel(), { threads: 1 });
    const running = closed.generate("z".repeat(200), { maxNewTokens: 10 });
    const requests: [Promise<Response>, number, string][] = [
      [lm.generate([9999]).toResponse(), 400, "INPUT_INVALID"],
      [lm.generate("abc", { signal: AbortSignal.abort() }).toResponse(), 499, "ABORTED"],
    ];
    await running.accepted;
    await closed.close();
    for (const [response, status, code] of requests) {
      assert.equal((await response).status, status);
      assert.equal(((await (await response).json()) as { error: { code: string } }).error.code, code);
    }
  });
});

const kinds = {
  "node:http": (make: (prompt: string) => TokenStream): RequestListener => (asked, response) => {
    void make(promptOf(asked)).pipeTo(response, { format: "text", headers: { "x-own": "1" } });
  },
  express: (make: (prompt: string) => TokenStream): RequestListener => {
    const app = express();
    app.get("/", async (asked, response) => {
      await make(promptOf(asked)).pipeTo(response, { headers: { "x-own": "1" } });
    });
    return app;
  },
  hono: (make: (prompt: string) => TokenStream): RequestListener => {
    const app = new Hono();
    app.get("/", (c) => make(promptOf(c.req.raw)).toResponse({ headers: { "x-own": "1" } }));
    return getRequestListener(app.fetch);
  },
};

for (const [name, kind] of Object.entries(kinds)) {
  describe(name, () => {
    test("streams a text, refuses a long prompt with 400, and keeps the connection", async () => {
      const port = await listen(createServer(kind((prompt) => (prompt === "A" ? reciting.generate(prompt, { temperature: 0 }) : lm.generate(prompt)))));
      for (let round = 0; round < 2; round++) {
        const good = await fetch(`http://127.0.0.1:${port}/?prompt=A`);
        assert.deepEqual([good.status, good.headers.get("x-own")], [200, "1"]);
        assert.equal(await good.text(), " talker says this and no more.");
        const bad = await ask(port, "xxx");
        assert.equal(bad.statusCode, 400);
        assert.equal(JSON.parse(await read(bad)).error.code, "context_length_exceeded");
      }
    });

    test("a client that leaves ends the compute", async () => {
      let stream!: TokenStream;
      const port = await listen(createServer(kind((prompt) => (stream = lm.generate(prompt, { maxNewTokens: 30_000, ignoreEos: true })))));
      const response = await ask(port, "A");
      await once(response, "readable");
      response.destroy();
      const { finishReason, usage } = await stream.result;
      assert.equal(finishReason, "aborted");
      assert.ok(usage.completionTokens < 20_000, `${usage.completionTokens} tokens`);
    });
  });
}

test("Fastify: a hijacked reply, and a Node stream as the payload", async () => {
  const app = fastify();
  servers.push(app);
  app.get("/pipe", async (_, reply) => {
    reply.hijack();
    await reciting.generate("A", { temperature: 0 }).pipeTo(reply.raw);
  });
  app.get("/stream", (_, reply) => reply.type("text/plain").send(reciting.generate("A", { temperature: 0 }).toNodeStream()));
  await app.listen({ port: 0, host: "127.0.0.1" });
  const { port } = app.server.address() as AddressInfo;
  for (const path of ["/pipe", "/stream"]) {
    assert.equal(await (await fetch(`http://127.0.0.1:${port}${path}`)).text(), " talker says this and no more.");
  }
});

test("HTTP/2: status, headers and body", async () => {
  const server = createHttp2Server((_, response) => void reciting.generate("A", { temperature: 0 }).pipeTo(response, { format: "sse" }));
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const stream = client.request({ ":path": "/" });
  const [headers] = await once(stream, "response");
  assert.equal(headers[":status"], 200);
  let body = "";
  for await (const chunk of stream.setEncoding("utf8")) body += chunk;
  assert.match(body, /data: \[DONE\]\n\n$/);
  client.close();
});

describe("pipeTo", () => {
  test("gives the result, or nothing where an error was the answer; events end in an error when the model is closed", async () => {
    const results: unknown[] = [];
    const closing = await loadGPT2(randomModel({ n_positions: 16_384 }), { threads: 1 });
    const port = await listen(
      createServer(async (asked, response) => {
        const prompt = promptOf(asked);
        const model = prompt === "close" ? closing : reciting;
        results.push(await model.generate(prompt, { ignoreEos: prompt === "close", maxNewTokens: prompt === "close" ? 16_000 : 20 }).pipeTo(response, { format: "sse" }));
      }),
    );
    await read(await ask(port, "A"));
    assert.equal((results[0] as { usage: { completionTokens: number } }).usage.completionTokens, 20);
    const response = await ask(port, "close");
    await once(response, "readable");
    await closing.close();
    const events = (await read(response)).split("\n\n");
    assert.equal(JSON.parse(events.at(-2)!.slice("data: ".length)).error.code, "MODEL_CLOSED");
    await sleep(10);
    assert.equal(results[1], undefined);
  });

  test("a response that is closed already costs nothing", async () => {
    const stream = lm.generate("A", { maxNewTokens: 30_000, ignoreEos: true });
    const port = await listen(
      createServer(async (_, response) => {
        response.destroy();
        await stream.pipeTo(response);
      }),
    );
    await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
    const { finishReason, usage } = await stream.result;
    assert.equal(finishReason, "aborted");
    assert.ok(usage.completionTokens <= QUEUE);
  });

  test("a Node stream that is destroyed ends the compute", async () => {
    const stream = lm.generate("A", { maxNewTokens: 30_000, ignoreEos: true });
    const readable = stream.toNodeStream();
    await once(readable, "readable");
    readable.destroy();
    const { finishReason, usage } = await stream.result;
    assert.equal(finishReason, "aborted");
    assert.ok(usage.completionTokens <= 2 * QUEUE, "a stream that is not read is not computed");
  });
});

const promptOf = (asked: { url?: string }): string => {
  const prompt = new URL(asked.url!, "http://localhost").searchParams.get("prompt")!;
  return prompt.startsWith("xxx") ? TOO_LONG : prompt;
};

async function listen(server: Server): Promise<number> {
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function ask(port: number, prompt: string): Promise<IncomingMessage> {
  const sent = request({ host: "127.0.0.1", port, path: `/?prompt=${prompt}`, agent: false }).end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return response;
}

async function read(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) text += chunk;
  return text;
}
