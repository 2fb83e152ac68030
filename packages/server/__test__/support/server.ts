/** Servers that tests start in their own process, and how they talk to them. */
import { type GPT2, loadBERT, loadGPT2 } from "candlewick";
import { join } from "node:path";
import { createHandler, type CreateHandlerOptions, type Handler, listen, type Listening } from "../../index.js";

export const shipped = (name: string): string => join(__dirname, "..", "..", "..", "..", "models", name);
export const loadShipped = (name: string): Promise<GPT2> => loadGPT2(shipped(name), { threads: 1 });
export const loadShippedBERT = (name: string) => loadBERT(shipped(name), { threads: 1 });

export interface Started extends AsyncDisposable {
  readonly url: string;
  readonly handler: Handler;
  readonly listening: Listening;
}

/** On a free port. Its models stay open when it ends. */
export async function startServer(options: CreateHandlerOptions): Promise<Started> {
  const handler = createHandler(options);
  const listening = await listen(handler, { port: 0 });
  return { url: listening.url, handler, listening, [Symbol.asyncDispose]: () => listening.close(0) };
}

export type Json = Record<string, any>;

export function post(url: string, path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  const headers = { "content-type": "application/json", ...(init.headers as Record<string, string> | undefined) };
  return fetch(url + path, { ...init, method: "POST", headers, body: typeof body === "string" ? body : JSON.stringify(body) });
}

export async function answer(url: string, path: string, body: unknown, init?: RequestInit): Promise<Json> {
  const response = await post(url, path, body, init);
  const json = (await response.json()) as Json;
  if (!response.ok) throw new Error(`${response.status}: ${JSON.stringify(json)}`);
  return json;
}

/** Status and error of a request that must be refused. */
export async function refused(url: string, path: string, body: unknown, init?: RequestInit): Promise<{ status: number; error: Json; headers: Headers }> {
  const response = await post(url, path, body, init);
  const json = (await response.json()) as Json;
  return { status: response.status, error: json["error"], headers: response.headers };
}

/** The `data:` lines of a stream, `[DONE]` as it is; comments as `{comment}`. */
export async function* eventsOf(response: Response): AsyncGenerator<any, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of response.body!) {
    rest += decoder.decode(bytes, { stream: true });
    for (let at = rest.indexOf("\n\n"); at !== -1; at = rest.indexOf("\n\n")) {
      const block = rest.slice(0, at);
      rest = rest.slice(at + 2);
      if (block.startsWith(":")) yield { comment: block.slice(1).trim() };
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (data !== undefined) yield data === "[DONE]" ? data : JSON.parse(data);
    }
  }
}

export async function allEvents(response: Response): Promise<any[]> {
  const events = [];
  for await (const event of eventsOf(response)) events.push(event);
  return events;
}

/** The joined text of completion or chat chunks, of one choice. */
export const textOf = (events: readonly any[], index = 0): string =>
  events
    .flatMap((event) => event.choices ?? [])
    .filter((choice) => choice.index === index)
    .map((choice) => choice.text ?? choice.delta?.content ?? "")
    .join("");

/** Resolves when `holds()`; fails after 10 s. */
export async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const end = Date.now() + 10_000;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`It did not come to pass: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The value of a metric, summed over its series. */
export async function metric(handler: Handler, name: string, labels = ""): Promise<number> {
  const lines = (await handler.metrics()).split("\n").filter((line) => line.startsWith(`candlewick_${name}{`) || line.startsWith(`candlewick_${name} `));
  return lines.filter((line) => line.includes(labels)).reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

/** Resolves when nothing runs on a model or waits for it, and nobody holds its memory. */
export async function untilIdle(lm: GPT2): Promise<void> {
  const facts = () => {
    const { running, waiting, blocks, freeBlocks, prefixBlocks, queuedTokens } = lm.stats();
    return JSON.stringify({ running, waiting, queuedTokens, held: blocks - freeBlocks - prefixBlocks });
  };
  const idle = JSON.stringify({ running: 0, waiting: 0, queuedTokens: 0, held: 0 });
  await until(() => facts() === idle, "the model is idle").catch(() => {
    throw new Error(`The model is not idle: ${facts()}`);
  });
}
