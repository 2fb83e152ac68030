/** The AI SDK, with its provider for servers that speak OpenAI's API: `ai` 6 and 7. */
import assert from "node:assert/strict";
import { afterAll, beforeAll, describe } from "vitest";
import { type Ran, runInNode } from "./support/clients.js";
import type { Outcome } from "./support/outcome.js";
import { type Servers, startServers } from "./support/servers.js";
import { clientTests, seenTest } from "./support/suite.js";

let servers: Servers;
beforeAll(async () => void (servers = await startServers()));
afterAll(() => servers?.[Symbol.asyncDispose]());

const error = "APICallError";
const classes = { badRequest: error, notFound: error, authentication: error, rateLimit: error, server: error, timeout: "TimeoutError" };

const clients = [
  // It hands an error in a stream on as it came.
  { name: "ai 6 with @ai-sdk/openai-compatible 2", packages: ["ai6", "openai-compatible2"], newNode: false, stream: "no Error" },
  { name: "ai 7 with @ai-sdk/openai-compatible 3, on Node 22", packages: ["ai7", "openai-compatible3"], newNode: true, stream: "AI_StreamProviderError" },
];

describe.each(clients)("$name", ({ packages, newNode, stream }) => {
  let ran: Ran<Outcome>;
  beforeAll(async () => void (ran = await runInNode<Outcome>(servers, "ai.mjs", packages, newNode)));

  clientTests(() => servers, () => ran, { ...classes, stream });

  seenTest(() => ran, "floats are asked for", ({ embeddings }) => assert.equal(embeddings.asked, "float"));
});
