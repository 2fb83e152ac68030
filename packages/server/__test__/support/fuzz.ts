/**
 * Requests that are wrong in random ways, against a server on a socket: each must get a documented status with an error
 * that says nothing of the machine, and a bystander's stream must stay what it was.
 *
 *   npm run test:fuzz -- [requests, 1,000,000 by default] [seed, 1 by default]
 */
import { connect } from "node:net";
import { Agent, request as httpRequest } from "node:http";
import { loadBERT, loadGPT2 } from "candlewick";
import { randomModel } from "../../../../__test__/support/models.js";
import { allEvents, post, shipped, startServer, textOf, until, untilIdle } from "./server.js";

export interface FuzzReport {
  readonly requests: number;
  readonly seconds: number;
  readonly statuses: Record<string, number>;
  /** Milliseconds that refusals took. */
  readonly refusalP99: number;
  readonly refusalMost: number;
  readonly comparisons: number;
  /** What must not be, the first of each kind. */
  readonly findings: string[];
}

type Value = unknown;

const SMALL = { max_tokens: 2, seed: 1 };
const BASES: readonly [path: string, body: Record<string, Value>][] = [
  ["/v1/completions", { model: "random", prompt: "abc", ...SMALL, logprobs: 1 }],
  ["/v1/completions", { model: "random", prompt: ["a", "b"], ...SMALL, n: 2, stream: true, stream_options: { include_usage: true } }],
  ["/v1/completions", { model: "random", prompt: [1, 2, 3], ...SMALL, echo: true, stop: ["x"], logit_bias: { 5: 1 }, top_k: 5, min_p: 0.1 }],
  ["/v1/chat/completions", { model: "talk", messages: [{ role: "user", content: "hi" }], ...SMALL }],
  ["/v1/chat/completions", { model: "talk", messages: [{ role: "user", content: [{ type: "text", text: "hi" }] }], ...SMALL, stream: true, logprobs: true, top_logprobs: 2 }],
  ["/v1/responses", { model: "talk", input: "hi", max_output_tokens: 2, stream: true }],
  ["/v1/embeddings", { model: "minilm", input: ["a", "b"], encoding_format: "base64" }],
  ["/v1/rerank", { model: "minilm", query: "a", documents: ["b", { text: "c" }], top_n: 1 }],
  ["/v1/classify", { model: "minilm", input: "a" }],
  ["/tokenize", { model: "random", prompt: "abc" }],
  ["/detokenize", { model: "random", tokens: [1, 2] }],
];

const ODD: readonly Value[] = [
  null, true, false, 0, -0, -1, 1, 0.5, 1e308, -1e308, 2 ** 53, 2 ** 31, 4_294_967_295, 4_294_967_296, 1e-320, 65, 1_000_000,
  "", "x", "\u0000", "\ud800", "🙂".repeat(50), "a".repeat(20_000), "<|endoftext|>", "../../etc/passwd", "__proto__", "constructor",
  [], {}, [[]], [{}], [null], [1], [-1], [1.5], ["a", 1], [[1], "a"], { toString: 1 }, { type: "text" }, { type: "json_object" }, Array.from({ length: 3_000 }, () => "a"),
  [[[[[[1]]]]]], { a: { b: { c: {} } } }, { role: "user", content: "x" }, [{ role: "tool", content: "x" }], [{ role: "user" }], [{ role: "user", content: 5 }],
];
const FIELDS = [
  "model", "prompt", "messages", "input", "max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "top_p", "top_k", "min_p", "n", "best_of", "stop", "seed", "stream", "stream_options",
  "logprobs", "top_logprobs", "logit_bias", "echo", "suffix", "tools", "tool_choice", "response_format", "user", "metadata", "priority", "min_tokens", "ignore_eos", "stop_token_ids", "bad_words", "presence_penalty",
  "frequency_penalty", "repetition_penalty", "no_repeat_ngram_size", "encoding_format", "dimensions", "truncate", "query", "documents", "top_n", "tokens", "instructions", "truncation", "include", "__proto__", "constructor", "toString", "nobody-knows-this",
];
const STATUSES = new Set([200, 400, 401, 404, 405, 408, 413, 415, 421, 429, 431, 503]);
/** Nothing of the machine: paths, files, stacks. */
const LEAK = /\/(?:work|root|home|tmp|usr|var|dist|src|node_modules)\/|node:internal|\bat \w+ \(|\.[cm]?[jt]s:\d|\.rs:\d|\/etc\/(?!passwd)/;

class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }
  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

interface Attempt {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

function attempt(random: Random): Attempt {
  const [route, base] = random.of(BASES);
  let path = route;
  const body: Record<string, Value> = structuredClone(base);
  for (let edits = random.below(3); edits >= 0; edits--) {
    const field = random.below(2) ? random.of(Object.keys(body)) : random.of(FIELDS);
    if (random.below(5) === 0) delete body[field];
    else Object.defineProperty(body, field, { value: random.of(ODD), enumerable: true, configurable: true, writable: true });
  }
  // What is generated stays small, so that time goes into what is wrong.
  if (typeof body["max_tokens"] === "number" && body["max_tokens"] > 8 && body["max_tokens"] < 400) body["max_tokens"] = 8;
  let text = JSON.stringify(body);
  let method = "POST";
  const headers: Record<string, string> = { "content-type": "application/json" };
  switch (random.below(24)) {
    case 0:
      text = text.slice(0, random.below(text.length));
      break;
    case 1:
      text = text.replace("{", `{"${random.of(FIELDS)}": 1, `);
      break;
    case 2:
      text = text.replace(/:(?=[^:]*$)/, `:${random.of(["NaN", "1e999", "-", "0x1", "undefined", "'a'", "1e400"])}`);
      break;
    case 3:
      text = "[".repeat(random.below(5_000)) + text;
      break;
    case 4:
      text = `${'{"a":'.repeat(random.below(100))}${text}`;
      break;
    case 5:
      headers["content-type"] = random.of(["text/plain", "application/jsonx", "", "multipart/form-data; boundary=x"]);
      break;
    case 6:
      headers["content-encoding"] = random.of(["gzip", "br", "identity", "x"]);
      break;
    case 7:
      method = random.of(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"]);
      break;
    case 8:
      path = random.of([`/${"x".repeat(random.below(3_000))}`, "//", "/v1", "/v1/models/%00", "/v1/models/..%2f..%2fetc", "/%ff", "/v1/models/nope", "/page/../package.json", "/v1/completions/", "/v1//completions", "/metrics", "/livez?x=%00"]);
      method = random.of(["GET", "POST"]);
      break;
    case 9:
      headers["x-request-id"] = random.of(["a".repeat(500), "a b", "ok-1", "é"].map((id) => Buffer.from(id).toString("latin1")));
      break;
    case 10:
      headers["authorization"] = random.of(["Bearer", "Basic ====", "Bearer \u00ff", "x".repeat(5_000)]);
      break;
  }
  let bytes = Buffer.from(text);
  if (random.below(20) === 0 && bytes.length > 0) {
    bytes = Buffer.from(bytes);
    for (let flips = 1 + random.below(3); flips > 0; flips--) bytes[random.below(bytes.length)] = random.below(256);
  }
  return { method, path, headers, body: method === "GET" || method === "HEAD" ? Buffer.alloc(0) : bytes };
}

interface Answered {
  readonly status: number;
  readonly id: string | undefined;
  readonly type: string;
  readonly text: string;
}

function send(port: number, agent: Agent, { method, path, headers, body }: Attempt, leaveAfter: number): Promise<Answered | "left"> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ host: "127.0.0.1", port, agent, method, path: encodeURI(decodeOr(path)), headers: { ...headers, "content-length": String(body.length) } }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", () => resolve("left"));
      response.on("end", () =>
        resolve({
          status: response.statusCode!,
          id: response.headers["x-request-id"] as string | undefined,
          type: response.headers["content-type"] ?? "",
          text: Buffer.concat(parts).toString(),
        }),
      );
    });
    sent.on("error", (error) => (leaveAfter > 0 ? resolve("left") : reject(error)));
    sent.end(body);
    if (leaveAfter > 0) setTimeout(() => sent.destroy(), leaveAfter);
  });
}

/** Paths that are no URLs are sent as they are. */
function decodeOr(path: string): string {
  try {
    return decodeURI(path);
  } catch {
    return path.replaceAll("%", "");
  }
}

const RAW: readonly string[] = [
  "GET\r\n\r\n",
  "\r\n\r\n\r\n",
  "GET / HTTP/9.9\r\n\r\n",
  "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
  "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
  "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nZZ\r\n",
  `GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n${Array.from({ length: 3_000 }, (_, i) => `x-${i}: ${"y".repeat(10)}\r\n`).join("")}\r\n`,
  `GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ${"y".repeat(40_000)}\r\n\r\n`,
  "GET http:// HTTP/1.1\r\nhost: ::::\r\n\r\n",
  "\x16\x03\x01\x02\x00\x01\x00",
];

/** What a socket that is no good client is answered. */
function raw(port: number, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
    const timer = setTimeout(() => socket.destroy(), 500);
    socket.on("data", (part) => (text += String(part)));
    socket.on("error", () => {});
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(text);
    });
    socket.on("end", () => socket.end());
  });
}

export async function fuzz(count: number, seed: number, progress: (done: number) => void = () => {}): Promise<FuzzReport> {
  const [random, talk, minilm] = await Promise.all([
    loadGPT2(randomModel({ n_positions: 512, n_embd: 16, n_layer: 1 }), { threads: 1 }),
    loadGPT2(shipped("dialogue"), { threads: 1 }),
    loadBERT(shipped("minilm"), { threads: 1, dtype: "q8_0" }),
  ]);
  const server = await startServer({ models: { random, talk, minilm }, maxBodyBytes: 100_000, bodyTimeoutMs: 2_000 });
  const port = Number(new URL(server.url).port);
  const agent = new Agent({ keepAlive: true, maxSockets: 16 });
  const draws = new Random(seed);
  const statuses: Record<string, number> = {};
  const findings = new Map<string, string>();
  const refusals: number[] = [];
  const bystander = async () => {
    const body = { model: "random", prompt: "bystander", max_tokens: 60, seed: 5, ignore_eos: true, stream: true };
    const response = await post(server.url, "/v1/completions", body);
    // There may be no room for it.
    if (response.status === 429) return response.text().then(() => undefined);
    return textOf(await allEvents(response));
  };
  const alone = await bystander();
  const progressed = { done: 0 };
  const more = () => progressed.done < count;
  let comparisons = 0;
  const began = performance.now();

  const check = (sent: Attempt, { status, id, type, text }: Answered) => {
    statuses[status] = (statuses[status] ?? 0) + 1;
    const say = (kind: string) => {
      if (!findings.has(kind)) findings.set(kind, `${kind}: ${sent.method} ${sent.path.slice(0, 80)} ${sent.body.toString().slice(0, 300)} → ${status} ${text.slice(0, 300)}`);
    };
    if (!STATUSES.has(status)) say(`status ${status}`);
    if (id === undefined) say("no x-request-id");
    if (LEAK.test(text) && status !== 200) say("says something of the machine");
    if (status !== 200 && sent.method !== "HEAD") {
      let error: Record<string, unknown> | undefined;
      try {
        error = (JSON.parse(text) as { error: Record<string, unknown> }).error;
      } catch {
        // Said below.
      }
      if (!type.startsWith("application/json") || Object.keys(error ?? {}).join() !== "message,type,param,code") say("no error of the API's form");
    }
  };
  const worker = async () => {
    while (more()) {
      const done = ++progressed.done;
      if (done % 1_000 === 0) progress(done);
      if (draws.below(100) === 0) {
        const text = await raw(port, draws.of(RAW));
        if (text !== "" && !/^HTTP\/1.1 (200|400|401|404|405|408|415|421|431) /.test(text)) findings.set("raw", `raw: ${text.slice(0, 200)}`);
        continue;
      }
      const made = attempt(draws);
      const started = performance.now();
      const answered = await send(port, agent, made, draws.below(30) === 0 ? 1 + draws.below(10) : 0);
      if (answered === "left") continue;
      if (answered.status !== 200 && refusals.length < 200_000) refusals.push(performance.now() - started);
      check(made, answered);
    }
  };
  const watcher = async () => {
    while (more()) {
      const text = await bystander();
      if (text !== undefined) comparisons++;
      if (text !== undefined && text !== alone) findings.set("bystander", "A bystander's text changed");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  await Promise.all([...Array.from({ length: 8 }, worker), watcher()]);
  await until(() => server.handler.working === 0 && random.stats().running === 0 && talk.stats().running === 0, "nothing is under way");
  for (const lm of [random, talk]) await untilIdle(lm);
  agent.destroy();
  await server.listening.close(0);
  await Promise.all([random.close(), talk.close(), minilm.close()]);
  refusals.sort((a, b) => a - b);
  return {
    requests: progressed.done,
    seconds: (performance.now() - began) / 1_000,
    statuses,
    refusalP99: refusals[Math.floor(refusals.length * 0.99)] ?? 0,
    refusalMost: refusals.at(-1) ?? 0,
    comparisons,
    findings: Array.from(findings.values()),
  };
}

if (require.main === module) {
  const [count = "1000000", seed = "1"] = process.argv.slice(2);
  const run = async () => {
    const report = await fuzz(Number(count), Number(seed), (done) => process.stderr.write(done % 10_000 === 0 ? `\r${done} requests` : ""));
    console.log(JSON.stringify(report, null, 2));
    process.exitCode = report.findings.length > 0 ? 1 : 0;
  };
  void run();
}
