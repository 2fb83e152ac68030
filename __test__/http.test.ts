/** The examples, served over real sockets. They import the built package, so this file does as well. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createAdaptorServer } from "@hono/node-server";
import { type GPT2, loadGPT2, type TokenStream } from "candlewick";
import { afterAll, afterEach, beforeAll, describe, test } from "vitest";
import { createApp } from "../examples/hono-stream.js";
import { createExampleServer } from "../examples/http-stream.js";
import { QUEUE } from "./support/assertions.js";
import { randomModel, recitingModel } from "./support/models.js";

const poem = "Ah, 我们很高兴能够与您合作！👩‍👩‍👧";

let reciting: GPT2;
let endless: GPT2;
const servers: Server[] = [];

beforeAll(async () => {
  reciting = await loadGPT2(recitingModel(poem), { threads: 1 });
  // So many positions that the model is busy with them for seconds.
  endless = await loadGPT2(randomModel({ n_positions: 30_000 }), { threads: 1 });
});
afterAll(() => Promise.all([reciting.close(), endless.close()]));
afterEach(() => servers.splice(0).forEach((server) => (server.closeAllConnections(), server.close())));

const frameworks = {
  "node:http": createExampleServer,
  hono: (lm: GPT2) => createAdaptorServer({ fetch: createApp(lm).fetch }) as Server,
};

for (const [name, create] of Object.entries(frameworks)) {
  describe(name, () => {
    test("text streams as chunks, whole characters each", async () => {
      const response = await get(await listen(create(reciting)), "/text?prompt=A");
      assert.equal(response.statusCode, 200);
      assert.match(String(response.headers["content-type"]), /^text\/plain; charset=utf-8/);
      assert.equal(response.headers["content-length"], undefined);
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      assert.equal(Buffer.concat(chunks).toString(), poem.slice(1));
    });

    test("server-sent events", async () => {
      const response = await get(await listen(create(reciting)), "/sse?prompt=A");
      assert.match(String(response.headers["content-type"]), /^text\/event-stream/);
      const events = (await read(response)).trimEnd().split("\n\n");
      const text = events
        .map((event) => event.split("\n").at(-1)!.replace(/^data: /, ""))
        .filter((data) => data !== "[DONE]")
        .map((data) => JSON.parse(data) as { text?: string; choices?: { text: string }[] })
        .map((data) => data.text ?? data.choices?.[0]?.text ?? "")
        .join("");
      assert.equal(text, poem.slice(1));
      assert.ok(events.length > 10, "one event per token");
    });

    test("what is the client's fault gets a 4xx with a code", async () => {
      const server = await listen(create(reciting));
      for (const [query, status, code] of [
        ["prompt=A&maxNewTokens=0", 400, "OPTION_INVALID"],
        ["prompt=", 400, "PROMPT_EMPTY"],
        ["prompt=A&maxNewTokens=x", 400, "OPTION_INVALID"],
      ] as const) {
        const response = await get(server, `/text?${query}`);
        assert.equal(response.statusCode, status);
        assert.equal((JSON.parse(await read(response)) as { error: { code: string } }).error.code, code);
      }
    });

    for (const path of ["/text", "/sse"]) {
      test(`${path}: a client that hangs up stops the compute within one token`, async () => {
        // Watches what the server generates.
        const streams: TokenStream[] = [];
        let sent = 0;
        const watched = {
          generate(...args: Parameters<GPT2["generate"]>): TokenStream {
            const stream = endless.generate(...args);
            const next = stream.next.bind(stream);
            stream.next = async () => {
              const result = await next();
              if (!result.done) sent++;
              return result;
            };
            streams.push(stream);
            return stream;
          },
        } as unknown as GPT2;
        const server = await listen(create(watched));
        const response = await get(server, `${path}?prompt=A&maxNewTokens=29000`);
        await once(response, "data");
        await once(response, "data");
        response.destroy();
        const stream = streams[0]!;
        // The stream ends by itself, long before it is full: nobody here cancels it.
        const { finishReason, usage } = await stream.result;
        assert.equal(finishReason, "aborted");
        assert.ok(usage.completionTokens <= sent + QUEUE, `${usage.completionTokens} tokens were computed, ${sent} were sent`);
        const then = sent;
        await sleep(50);
        assert.equal(sent, then);
        // The next client gets the whole model.
        assert.equal((await endless.generate("A", { maxNewTokens: 5, ignoreEos: true }).result).usage.completionTokens, 5);
      });
    }
  });
}

describe("web responses", () => {
  test("events as OpenAI's clients read them", async () => {
    const response = await reciting.generate("A", { temperature: 0, logprobs: 2 }).toResponse({ format: "sse", headers: { "x-own": "1" } });
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
    assert.equal(response.headers.get("x-own"), "1");
    const events = (await response.text()).split("\n\n").slice(0, -1);
    assert.equal(events.pop(), "data: [DONE]");
    const chunks = events.map((event) => JSON.parse(event.slice("data: ".length)));
    const counts = chunks.pop();
    assert.deepEqual(counts.choices, []);
    assert.equal(counts.usage.prompt_tokens, 1);
    assert.equal(counts.usage.total_tokens, 1 + counts.usage.completion_tokens);
    const last = chunks.pop();
    assert.equal(last.choices[0].finish_reason, "stop");
    for (const chunk of chunks) {
      assert.deepEqual([chunk.object, chunk.choices[0].index, chunk.choices[0].finish_reason], ["text_completion", 0, null]);
      assert.equal(Object.keys(chunk.choices[0].logprobs.top_logprobs[0]).length, 2);
    }
    assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
    assert.ok(!last.model.includes("/") && reciting.source.endsWith(last.model), "a model's folder is nobody's business");
  });

  test("an error after the headers is an event, and ends the text", async () => {
    for (const format of ["sse", "text"] as const) {
      const lm = await loadGPT2(randomModel({ n_positions: 4096 }), { threads: 1 });
      const response = await lm.generate("A", { maxNewTokens: 4000, ignoreEos: true }).toResponse({ format });
      const [[body]] = await Promise.all([Promise.allSettled([response.text()]), lm.close()]);
      if (format === "text") {
        assert.ok(body.status === "rejected" && body.reason.code === "MODEL_CLOSED");
        continue;
      }
      assert.ok(body.status === "fulfilled");
      const events = body.value.split("\n\n");
      assert.equal(JSON.parse(events.at(-2)!.slice("data: ".length)).error.code, "MODEL_CLOSED");
      assert.ok(!events.includes("data: [DONE]"));
    }
  });

  test("nothing is pulled before somebody reads, and cancelling the body ends the compute", async () => {
    const stream = endless.generate("A", { maxNewTokens: 29_000 });
    let pulled = 0;
    const next = stream.next.bind(stream);
    stream.next = () => (pulled++, next());
    const readable = stream.toReadable();
    await sleep(20);
    assert.equal(pulled, 0);
    const reader = readable.getReader();
    const { value } = await reader.read();
    assert.ok(value instanceof Uint8Array);
    await reader.cancel();
    const { finishReason, usage } = await stream.result;
    assert.equal(finishReason, "aborted");
    assert.ok(usage.completionTokens <= QUEUE + QUEUE);
  });
});

async function listen(server: Server): Promise<number> {
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function get(port: number, path: string): Promise<IncomingMessage> {
  const sent = request({ host: "127.0.0.1", port, path, agent: false }).end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return response;
}

async function read(response: IncomingMessage): Promise<string> {
  let text = "";
  response.setEncoding("utf8");
  for await (const chunk of response) text += String(chunk);
  return text;
}
