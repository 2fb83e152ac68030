/** `@langchain/openai` 1: conversations by both of OpenAI's APIs, completions, vectors. */
import assert from "node:assert/strict";
import { afterAll, beforeAll, describe } from "vitest";
import { cases } from "./support/cases.js";
import { type Ran, runInNode } from "./support/clients.js";
import type { Outcome } from "./support/outcome.js";
import { type Servers, startServers } from "./support/servers.js";
import { clientTests, seenTest } from "./support/suite.js";

interface LangChainOutcome extends Outcome {
  readonly completion: { text: string; joined: string; several: string[] };
  readonly logprobs: { whole: { logprob: number }[]; streamed: unknown };
  readonly samples: string[];
}

let servers: Servers;
let ran: Ran<LangChainOutcome>;
beforeAll(async () => {
  servers = await startServers();
  ran = await runInNode<LangChainOutcome>(servers, "langchain.mjs", [], true);
});
afterAll(() => servers?.[Symbol.asyncDispose]());
const seen = () => ran;

const classes = {
  badRequest: "BadRequestError",
  notFound: "NotFoundError",
  authentication: "AuthenticationError",
  rateLimit: "RateLimitError",
  server: "InternalServerError",
  stream: "APIError",
  timeout: "TimeoutError",
};

describe("@langchain/openai 1, on Node 22", () => {
  clientTests(() => servers, seen, classes);

  seenTest(seen, "completions, alone, streamed and of several prompts, are the library's", async ({ completion }) => {
    const options = { maxNewTokens: 40, temperature: 0.8, seed: cases.seed };
    const texts = await Promise.all([cases.prompt, cases.chinese].map((prompt) => servers.models.default.generate(prompt, options).text()));
    assert.deepEqual(completion, { text: texts[1], joined: texts[1], several: texts });
  });

  seenTest(seen, "log-probabilities, streamed and not, are the library's", async ({ logprobs }) => {
    const options = { maxNewTokens: 40, temperature: 0.8, seed: cases.seed, logprobs: 3 };
    const { tokens } = await servers.models.dialogue.chat(cases.question, options).result;
    const expected = tokens.slice(0, logprobs.whole.length).map(({ logprob }) => logprob);
    assert.ok(expected.length > 3);
    assert.deepEqual(logprobs.whole.map(({ logprob }) => logprob), expected);
    assert.deepEqual(logprobs.streamed, logprobs.whole);
  });

  seenTest(seen, "three samples are the library's", async ({ samples }) => {
    const options = { n: 3, seed: cases.seed, temperature: 1.5, maxNewTokens: 30 };
    const { sequences } = await servers.models.dialogue.chat(cases.question, options).result;
    assert.deepEqual(samples, sequences.map(({ text }) => text));
  });
});
