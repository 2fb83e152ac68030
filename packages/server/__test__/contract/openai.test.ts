/** OpenAI's own clients: npm's `openai` 6 and 7, and PyPI's `openai` 3. */
import assert from "node:assert/strict";
import { afterAll, beforeAll, describe } from "vitest";
import { cases } from "./support/cases.js";
import { type Ran, runInNode, runInPython } from "./support/clients.js";
import type { OfficialOutcome } from "./support/outcome.js";
import { after } from "./support/reciter.js";
import { type Servers, startServers } from "./support/servers.js";
import { clientTests, seenTest } from "./support/suite.js";

let servers: Servers;
beforeAll(async () => void (servers = await startServers()));
afterAll(() => servers?.[Symbol.asyncDispose]());

const classes = {
  badRequest: "BadRequestError",
  notFound: "NotFoundError",
  authentication: "AuthenticationError",
  rateLimit: "RateLimitError",
  server: "InternalServerError",
  stream: "APIError",
  timeout: "APIConnectionTimeoutError",
};

const clients = [
  { name: "npm openai 6", timeout: classes.timeout, run: () => runInNode<OfficialOutcome>(servers, "openai.mjs", ["openai6"], false) },
  { name: "npm openai 7 on Node 22", timeout: classes.timeout, run: () => runInNode<OfficialOutcome>(servers, "openai.mjs", ["openai7"], true) },
  { name: "PyPI openai 3", timeout: "APITimeoutError", run: () => runInPython<OfficialOutcome>(servers, "openai_client.py") },
];

describe.each(clients)("$name", ({ timeout, run }) => {
  let ran: Ran<OfficialOutcome>;
  beforeAll(async () => void (ran = await run()));
  const seen = () => ran;

  clientTests(() => servers, seen, { ...classes, timeout });

  seenTest(seen, "models are listed, and each is found", ({ models }) => {
    assert.deepEqual(models, { ids: ["default", "dialogue", "minilm", "reciter"], one: "minilm" });
  });

  seenTest(seen, "a completion is the library's, for the same seed", async ({ answered, recited }) => {
    const options = { maxNewTokens: 40, temperature: 0.8, seed: cases.seed };
    const { text, finishReason, usage } = await servers.models.default.generate(cases.chinese, options).result;
    const { completions } = answered;
    assert.equal(completions!.text, text);
    assert.equal(completions!.finish, finishReason);
    assert.deepEqual(completions!.usage, { prompt: usage.promptTokens, completion: usage.completionTokens, total: usage.totalTokens });
    assert.equal(recited["completions"]!.text, after(cases.recited, 1));
  });

  seenTest(seen, "wherever a proxy cuts a stream's bytes, the client reads the same", ({ cuts }) => {
    assert.ok(cuts.places > 500, `${cuts.places}`);
    assert.deepEqual(cuts.wrong, []);
    assert.equal(cuts.text, "我们很");
  });

  seenTest(seen, "a stream has counts where they are asked for, null on all chunks but the last, which has no choices", ({ asked, unasked }) => {
    assert.deepEqual(asked, { nulls: true, lastChoices: 0 });
    assert.equal(unasked, 0);
  });

  seenTest(seen, "log-probabilities of a stream are those of the whole answer", ({ logprobs }) => {
    assert.deepEqual(Object.keys(logprobs), ["completions", "chat", "responses"]);
    for (const [route, reports] of Object.entries(logprobs)) {
      for (const [kind, { whole, streamed }] of Object.entries(reports)) assert.deepEqual(streamed, whole, `${route}, ${kind}`);
    }
  });

  seenTest(seen, "log-probabilities are the library's, in each route's shape", async ({ logprobs }) => {
    const options = { seed: cases.seed, maxNewTokens: 40, logprobs: 3 };
    const { default: writer, dialogue } = servers.models;
    const { sequences } = await writer.generate(cases.chinese, options).result;
    const written = sequences[0]!.tokens;
    const lists = logprobs["completions"]!.written.whole;
    assert.deepEqual(lists.token_logprobs, written.map(({ logprob }) => logprob));
    assert.equal(lists.text_offset[0], Array.from(cases.chinese).length);
    for (const [at, top] of lists.top_logprobs.entries()) {
      const { logprob, topLogprobs } = written[at]!;
      const expected = new Set([...topLogprobs!.map((one) => one.logprob), logprob]);
      assert.deepEqual(new Set(Object.values(top)), expected);
    }
    const reply = await dialogue.chat(cases.question, options).result;
    const tokens = reply.tokens.slice(0, logprobs["chat"]!.written.whole.length);
    assert.ok(tokens.length > 3);
    for (const route of ["chat", "responses"]) {
      const { whole } = logprobs[route]!.written;
      assert.deepEqual(whole.map(({ logprob }: { logprob: number }) => logprob), tokens.map(({ logprob }) => logprob), route);
      const bytes = whole.flatMap(({ bytes }: { bytes: number[] }) => bytes);
      assert.equal(Buffer.from(bytes).toString(), reply.text, route);
      const top = whole.map(({ top_logprobs }: { top_logprobs: { logprob: number }[] }) => top_logprobs.map(({ logprob }) => logprob));
      assert.deepEqual(top, tokens.map(({ topLogprobs }) => topLogprobs!.map(({ logprob }) => logprob)), route);
    }
  });

  seenTest(seen, "a token that is a part of a character has its bytes", ({ logprobs }) => {
    const said = Array.from(cases.recited);
    const lists = logprobs["completions"]!.recited.whole;
    const torn = lists.tokens.filter((token: string) => token.startsWith("bytes:\\x"));
    assert.ok(torn.length > 10);
    // Each part is where its character is.
    for (const [at, token] of lists.tokens.entries()) {
      const offset = lists.text_offset[at];
      if (!token.startsWith("bytes:")) assert.equal(said[offset], token);
      else assert.ok(Buffer.from(said[offset]!).includes(Number.parseInt(token.slice(8), 16)), `${token} at ${offset}`);
    }
    const bytes = logprobs["chat"]!.recited.whole.flatMap((one: { bytes: number[] }) => one.bytes);
    assert.deepEqual(Buffer.from(bytes), Buffer.from(cases.recited).subarray(2, 2 + bytes.length));
  });

  seenTest(seen, "three samples, each with its index", async ({ samples }) => {
    const options = { n: 3, seed: cases.seed, temperature: 1.5, maxNewTokens: 30 };
    const { sequences } = await servers.models.dialogue.chat(cases.question, options).result;
    assert.deepEqual(samples.whole, sequences.map(({ text }) => text));
    assert.deepEqual(samples.streamed, samples.whole);
    assert.equal(new Set(samples.whole).size, 3);
  });

  seenTest(seen, "the client asks for base64 unasked, and its vectors are those of floats", ({ embeddings, floats }) => {
    assert.equal(embeddings.asked, "base64");
    assert.deepEqual(embeddings.vectors, floats);
  });
});
