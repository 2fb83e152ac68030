// Clients of a server, many in one process of their own: what they measure is told to serve.ts (workers/protocol.mjs).
import { Agent, request } from "node:http";
import { serve, sleep } from "../workers/protocol.mjs";

const agent = new Agent({ keepAlive: true, maxSockets: Infinity });

/**
 * One request. `times`: when each piece of text came, in milliseconds from the beginning. Of a refusal `retryMs`, when
 * it may come again.
 */
function ask(url, path, body, { leaveAfter } = {}) {
  const began = performance.now();
  return new Promise((resolve) => {
    const times = [];
    let usage;
    let error;
    let rest = "";
    const answered = { status: 0, began };
    const done = (fields) => resolve({ ...answered, times, usage, error, ms: performance.now() - began, ...fields });
    const { hostname, port } = new URL(url);
    const bytes = typeof body === "string" ? Buffer.from(body) : Buffer.from(JSON.stringify(body));
    const headers = { "content-type": "application/json", "content-length": bytes.length };
    const sent = request({ host: hostname, port, path, method: "POST", agent, headers }, (response) => {
      answered.status = response.statusCode;
      const retry = response.headers["retry-after-ms"];
      if (retry !== undefined) answered.retryMs = Number(retry);
      response.setEncoding("utf8");
      response.on("data", (part) => {
        const now = performance.now() - began;
        rest += part;
        for (let at = rest.indexOf("\n\n"); at !== -1; at = rest.indexOf("\n\n")) {
          const line = rest.slice(0, at);
          rest = rest.slice(at + 2);
          if (!line.startsWith("data: {")) continue;
          // What a token brings is not parsed: on two cores a client's work is the server's loss.
          if (line.includes('"text":"') && !line.includes('"text":""')) {
            times.push(now);
            continue;
          }
          const event = JSON.parse(line.slice(6));
          if (event.error) error = event.error.code;
          if (event.usage) ({ usage } = event);
        }
      });
      response.on("error", () => done({ left: true }));
      response.on("end", () => done({}));
    });
    sent.on("error", () => done({ left: true }));
    sent.end(bytes);
    if (leaveAfter !== undefined) setTimeout(() => sent.destroy(), leaveAfter);
  });
}

const completion = (model, prompt, tokens, more = {}) => ({
  model,
  prompt,
  max_tokens: tokens,
  ignore_eos: true,
  temperature: 0,
  stream: true,
  stream_options: { include_usage: true },
  ...more,
});

const tokensOf = (answers) => answers.reduce((sum, { usage }) => sum + (usage?.completion_tokens ?? 0), 0);

/** Milliseconds between two pieces of a stream. */
const gapsOf = ({ times }) => times.slice(1).map((time, i) => time - times[i]);

let seed = 1;
const random = () => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
const ids = (count, vocabulary) => Array.from({ length: count }, () => Math.floor(random() * vocabulary));

/** Requests that no good client sends. */
function hostile(model, vocabulary) {
  const kinds = [
    "{",
    `{"model":"${model}","prompt":"x","prompt":"y"}`,
    JSON.stringify({ model: "nobody", prompt: "x" }),
    JSON.stringify({ model, prompt: "x", max_tokens: 1e9 }),
    JSON.stringify({ model, prompt: ids(5_000, vocabulary), max_tokens: 1 }),
    JSON.stringify({ model, prompt: Array.from({ length: 2_048 }, () => "x"), n: 64, max_tokens: 900 }),
    "[".repeat(20_000),
    JSON.stringify({ model, prompt: [vocabulary + 5], max_tokens: 1 }),
  ];
  return kinds[Math.floor(random() * kinds.length)];
}

await serve({
  hello: () => ({}),

  /** All at once. */
  async streams({ url, model, prompts, tokens }) {
    const began = performance.now();
    const answers = await Promise.all(prompts.map((prompt) => ask(url, "/v1/completions", completion(model, prompt, tokens))));
    const ms = performance.now() - began;
    const bad = answers.find(({ status, error }) => status !== 200 || error);
    if (bad) throw new Error(`a stream ended with ${bad.status} ${bad.error ?? ""}`);
    return { ms, tokens: tokensOf(answers), first: answers.map(({ times }) => times[0]), gaps: answers.flatMap(gapsOf) };
  },

  /** Streams decode while prompts arrive one after the other; the longest gap of each stream. */
  async arriving({ url, model, prompts, tokens, long, pause }) {
    let over = false;
    const decoding = Promise.all(prompts.map((prompt) => ask(url, "/v1/completions", completion(model, prompt, tokens)))).finally(() => (over = true));
    await sleep(500);
    let arrived = 0;
    for (const prompt of long) {
      if (over) break;
      await ask(url, "/v1/completions", completion(model, prompt, 1));
      arrived++;
      await sleep(pause);
    }
    const gaps = (await decoding).map((answer) => Math.max(...gapsOf(answer)));
    return { gaps, arrived };
  },

  /** Requests that come at random, so many a second on average, whoever else is still being served. */
  async rate({ url, model, perSecond, seconds, promptTokens, tokens, vocabulary }) {
    const began = performance.now();
    const asked = [];
    while (performance.now() - began < seconds * 1_000) {
      asked.push(ask(url, "/v1/completions", completion(model, ids(promptTokens, vocabulary), tokens)));
      await sleep((-Math.log(1 - random()) / perSecond) * 1_000);
    }
    const answers = await Promise.all(asked);
    const good = answers.filter(({ status, error, left }) => status === 200 && !error && !left);
    return {
      asked: answers.length,
      good: good.length,
      tokens: tokensOf(good),
      ms: performance.now() - began,
      first: good.map(({ times }) => times[0]),
      gaps: good.flatMap(gapsOf),
    };
  },

  /** Clients that ask again and again, and wait as long as they are told when they are refused. */
  async rush({ url, model, clients, seconds, promptTokens, tokens, vocabulary, share, arrive }) {
    const end = performance.now() + seconds * 1_000;
    const refusals = [];
    let [goodTokens, good, again, admitted, failed] = [0, 0, 0, 0, 0];
    let [badOnes, hostileSent, leaves] = [0, 0, 0];
    const client = async () => {
      // They do not all come in the same instant.
      await sleep(random() * 1_000 * (arrive ?? 0));
      let body = completion(model, ids(promptTokens, vocabulary), tokens);
      let told = false;
      while (performance.now() < end) {
        if (share !== undefined && random() < share) {
          hostileSent++;
          const { status } = await ask(url, "/v1/completions", hostile(model, vocabulary));
          if (status < 400 || status >= 500) badOnes++;
          continue;
        }
        const leaveAfter = share !== undefined && random() < 0.05 ? random() * 500 : undefined;
        const answer = await ask(url, "/v1/completions", body, { leaveAfter });
        if (leaveAfter !== undefined && answer.left) {
          leaves++;
        } else if (answer.status === 429) {
          if (told) again++;
          refusals.push(answer.ms);
          told = true;
          if (performance.now() + answer.retryMs > end) break;
          await sleep(answer.retryMs);
          continue;
        } else if (answer.status === 200 && !answer.error && !answer.left) {
          good++;
          goodTokens += answer.usage.completion_tokens;
          if (told) {
            again++;
            admitted++;
          }
        } else {
          failed++;
        }
        told = false;
        body = completion(model, ids(promptTokens, vocabulary), tokens);
      }
    };
    const began = performance.now();
    await Promise.all(Array.from({ length: clients }, client));
    return { ms: performance.now() - began, good, tokens: goodTokens, refusals: refusals.toSorted((a, b) => a - b), again, admitted, failed, hostile: hostileSent, badOnes, leaves };
  },
});
