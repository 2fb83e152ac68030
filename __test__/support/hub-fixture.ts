/**
 * Importing it gives each test of a file a hub of its own, an empty cache, and an environment without the hub's
 * variables.
 */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach } from "vitest";
import { CandlewickError } from "../../src/errors.js";
import { pauses } from "../../src/hub/http.js";
import { etagOf, sha256, smallModel, startHub, type HubRequest, type HubServer } from "./hub-server.js";

export const MODEL = "candle/wick";
export const WEIGHTS = "model.safetensors";
export const NEEDED = ["1_Pooling/config.json", "config.json", "generation_config.json", WEIGHTS, "tokenizer.json"];

pauses.first = 10;

export let home: string;
export let cache: string;
export let hub: HubServer;
export let environment: NodeJS.ProcessEnv;

beforeEach(async () => {
  environment = { ...process.env };
  for (const name of Object.keys(process.env)) {
    if (/^(HF_|HUGGING|TRANSFORMERS_)/.test(name)) delete process.env[name];
  }
  home = await mkdtemp(join(tmpdir(), "candlewick-hub-"));
  cache = join(home, "hub");
  hub = await startHub({ [MODEL]: smallModel() });
  process.env["HF_HOME"] = home;
  process.env["HF_ENDPOINT"] = hub.endpoint;
});

afterEach(async () => {
  await hub[Symbol.asyncDispose]();
  await rm(home, { recursive: true, force: true });
  process.env = environment;
});

export const folder = (model = MODEL): string => join(cache, `models--${model.replaceAll("/", "--")}`);
export const model = () => hub.models.get(MODEL)!;
export const weights = () => model().files[WEIGHTS]!;
export const blobOf = (name: string): string => join(folder(), "blobs", etagOf(name, model().files[name]!));

/** Paths of the files below `root`. */
export async function filesBelow(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
  return paths.map((path) => relative(root, path).replaceAll(sep, "/")).toSorted();
}

/** Requests to the storage host, all of which are for weights. */
export const bodies = () => hub.requests.filter(({ host }) => host === "storage");
export const ranges = () => bodies().map(({ range }) => range);
export const tokens = (host: string) => hub.requests.filter((request) => request.host === host).map(({ authorization }) => authorization);

/** Leaves a part of a blob, of the weights unless said otherwise. */
export async function leave(owner: string, name = WEIGHTS, bytes = weights().subarray(0, 5000), modified = new Date()): Promise<void> {
  const path = `${blobOf(name)}.${owner}.incomplete`;
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
  await utimes(path, modified, modified);
}


export const blobs = (): Promise<string[]> => readdir(join(folder(), "blobs")).then((names) => names.toSorted());

export async function rejects(promise: Promise<unknown>, code: string, message?: RegExp): Promise<CandlewickError> {
  const error = await promise.then(
    (value) => assert.fail(`resolved with ${String(value)}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof CandlewickError, `not a CandlewickError: ${String(error)}`);
  assert.equal(error.code, code, error.stack);
  if (message) assert.match(error.message, message);
  return error;
}

export type Answer = (request: HubRequest, response: ServerResponse) => void;

/** Answers the first `times` requests that match with `answer`. */
export function fail(times: number, matching: RegExp, answer: Answer): void {
  let left = times;
  hub.faults.push((request, response) => {
    if (left === 0 || !matching.test(`${request.method} ${request.host} ${request.path}`)) return false;
    left--;
    answer(request, response);
    return true;
  });
}

export const BODY = /^GET storage/;
/**
 * Waits until the client has written `count` bytes of the weights: what it has not read of a cut connection is lost.
 */
export async function received(count: number): Promise<void> {
  for (;;) {
    const names = await blobs().catch(() => []);
    const parts = names.filter((name) => name.startsWith(sha256(weights())) && name.endsWith(".incomplete"));
    const sizes = await Promise.all(parts.map((name) => stat(join(folder(), "blobs", name)).catch(() => undefined)));
    if (sizes.some((file) => file && file.size >= count)) return;
    await sleep(5);
  }
}

/** Sends the weights up to the byte `to`, waits for the client to have them, and cuts the connection. */
export const cutAt = (to: number, onward = false): Answer => (request, response) => {
  const start = onward ? Number(/\d+/.exec(request.range ?? "0")![0]) : 0;
  const range = { "content-range": `bytes ${start}-${weights().byteLength - 1}/${weights().byteLength}` };
  response.writeHead(start > 0 ? 206 : 200, start > 0 ? range : {});
  response.write(weights().subarray(start, start + to));
  void received(start + to).finally(() => response.destroy());
};
