// What the programs of the clients for JavaScript have in common.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

/** `url`, `control`, `folder`, `packages`: see `support/servers.ts` and `support/clients.ts`. */
export const given = JSON.parse(process.argv[2]);
export const cases = JSON.parse(readFileSync(join(import.meta.dirname, "..", "cases.json"), "utf8"));
export const KEY = "sk-the-key-of-all-tests";

/** The packages' exports. */
export const use = createRequire(join(given.folder, "package.json"));

async function control(path, body) {
  const response = await fetch(given.control + path, { method: "POST", body: JSON.stringify(body) });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

/** A server of its own over the same models. */
export const start = async (options = {}) => (await control("/start", options)).url;
/** Ends it; what is under way is ended too. */
export const drain = (url) => control("/drain", { url });

/** Sequences that run on all models of a server. */
export async function running(url = given.url) {
  const text = await (await fetch(`${url}/metrics`)).text();
  const values = Array.from(text.matchAll(/^candlewick_requests_running\{.*\} (\d+)$/gm), ([, value]) => Number(value));
  return values.reduce((sum, value) => sum + value, 0);
}

/** Milliseconds until nothing runs any more, some at most. */
export async function idleAfter(url = given.url, most = 3_000) {
  const from = performance.now();
  for (;;) {
    const count = await running(url);
    const ms = performance.now() - from;
    if (count === 0 || ms > most) return ms;
  }
}

/** Sequences that run, once they are counted: a first token may be here before the count of its step is. */
export async function runningSoon() {
  const end = performance.now() + 2_000;
  for (;;) {
    const count = await running();
    if (count > 0 || performance.now() > end) return count;
  }
}

/** Runs `leave` while the model computes: what ran before, and for how many milliseconds something did after. */
export async function leaving(leave) {
  const before = await runningSoon();
  await leave();
  return { before, ms: await idleAfter() };
}

const classesOf = (error) => {
  const names = [];
  for (let one = error?.constructor; one?.name; one = Object.getPrototypeOf(one)) names.push(one.name);
  return names;
};

/** `describe` adds what the client's own classes tell. */
export async function failureOf(work, describe = () => ({})) {
  try {
    await work();
    return null;
  } catch (error) {
    return { classes: [...classesOf(error), error.name], message: String(error.message), ...describe(error) };
  }
}

/** `fetch`, and the requests that went through it; `answered` gets the status of each. */
export function counted(answered = () => {}) {
  const requests = [];
  const counting = async (url, init) => {
    requests.push({ url: String(url), body: init?.body === undefined ? undefined : JSON.parse(init.body) });
    const response = await fetch(url, init);
    answered(response.status);
    return response;
  };
  return { requests, fetch: counting };
}

/** One question to the model whose answer takes all positions: `ignore_eos` lets nothing else end it. */
export const endless = { max_tokens: 500, ignore_eos: true };

/**
 * All but a little of a model's room is taken, until `ask` is refused once: its client waits, and comes again. `ask`
 * gets the server and a `fetch`.
 */
export async function retried(ask) {
  // However fast the model is, no more than a batch may be under way.
  const url = await start({ maxWaitMs: 1 });
  const release = await hold(url);
  const network = counted((status) => status === 429 && release());
  const from = performance.now();
  const text = await ask(url, network.fetch);
  return { text, requests: network.requests.length, ms: performance.now() - from };
}

/** A stream of 8 × 510 tokens, all but 15 of those that may be under way, which nobody reads. */
async function hold(url) {
  const controller = new AbortController();
  const body = { model: "default", prompt: "One", n: 8, max_tokens: 510, ignore_eos: true, stream: true };
  const headers = { "content-type": "application/json" };
  const { status } = await fetch(`${url}/v1/completions`, { method: "POST", headers, body: JSON.stringify(body), signal: controller.signal });
  if (status !== 200) throw new Error(`held: ${status}`);
  return () => controller.abort();
}

/** Some 700 tokens: more than any of the models reads. */
export const tooLong = "word ".repeat(700);

export const print = (outcome) => process.stdout.write(`\n${JSON.stringify(outcome)}\n`, () => process.exit(0));
