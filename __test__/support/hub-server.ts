/**
 * A hub and its storage host on two ports, speaking what the real ones speak: a listing of a revision, HEAD and GET of
 * a file, git files behind a redirect within the hub and LFS files behind one to the storage host, ranges, refusals.
 */
import { createHash, randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface HubRequest {
  host: "hub" | "storage";
  method: string;
  /** As it was sent. */
  url: string;
  /** Decoded, with the query. */
  path: string;
  range: string | undefined;
  authorization: string | undefined;
}

/** Answers in place of the server by returning true (or by leaving the response open). */
export type Fault = (request: HubRequest, response: ServerResponse) => boolean | void;

export interface HubModel {
  commit: string;
  /** A name → its bytes. Weights are in LFS, other files in git. */
  files: Record<string, Uint8Array>;
  /** What the listing says instead of the files' names. */
  listed?: string[];
}

export interface HubServer extends AsyncDisposable {
  endpoint: string;
  models: Map<string, HubModel>;
  requests: HubRequest[];
  faults: Fault[];
  /** Paths of requests, as "GET /path", to files or the storage host. */
  downloads(): string[];
}

export const commitOf = (text: string): string => createHash("sha1").update(text).digest("hex");
export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
export const gitHash = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.byteLength}\0`).update(bytes).digest("hex");
const inLfs = (name: string): boolean => /\.(safetensors|bin|h5|onnx)$/.test(name);
export const etagOf = (name: string, bytes: Uint8Array): string => (inLfs(name) ? sha256(bytes) : gitHash(bytes));

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

/** A small model with more files than are needed. */
export function smallModel(seed = "one", weights = 200_000): HubModel {
  return {
    commit: commitOf(seed),
    files: {
      ".gitattributes": Buffer.from("*.safetensors filter=lfs"),
      "README.md": Buffer.from("# a model"),
      "config.json": json({ model_type: "gpt2", seed }),
      "generation_config.json": json({ eos_token_id: 0 }),
      "tokenizer.json": json({ model: { type: "BPE" } }),
      "1_Pooling/config.json": json({ pooling_mode_mean_tokens: true }),
      "model.safetensors": randomBytes(weights),
      "pytorch_model.bin": randomBytes(50),
      "tf_model.h5": randomBytes(50),
      "onnx/model.onnx": randomBytes(50),
      "onnx/model.safetensors": randomBytes(50),
    },
  };
}

const origin = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

export async function startHub(models: Record<string, HubModel> = {}): Promise<HubServer> {
  const requests: HubRequest[] = [];
  const faults: Fault[] = [];
  const served = new Map(Object.entries(models));
  const listen = async (host: HubRequest["host"], answer: (request: HubRequest, response: ServerResponse) => void) => {
    const server = createServer((message: IncomingMessage, response) => {
      const { authorization, range } = message.headers;
      const { method = "", url = "" } = message;
      const request = { host, method, url, path: decodeURIComponent(url), range, authorization };
      requests.push(request);
      for (const fault of faults) if (fault(request, response) === true) return;
      if (!response.headersSent) answer(request, response);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return server;
  };

  const storage = await listen("storage", (request, response) => {
    const [id, name] = request.path.slice(1).replace(/\?.*/, "").split(":") as [string, string];
    const bytes = served.get(id)?.files[name];
    if (!bytes || !request.path.endsWith("?signature=1")) return end(response, 403);
    sendBytes(request, response, bytes, { etag: '"of-the-storage-host"' });
  });
  const hub = await listen("hub", (request, response) => {
    const listing = /^\/api\/models\/(.+)\/revision\/([^/?]+)/.exec(request.url);
    if (listing) return sendListing(served.get(listing[1]!), decodeURIComponent(listing[2]!), response);
    const cached = /^\/cached\/(.+):(.+)$/.exec(request.path);
    const [, id = "", revision = "", name = ""] = /^\/(.+)\/resolve\/([^/]+)\/(.+)$/.exec(request.path) ?? [];
    const model = served.get(cached?.[1] ?? id);
    const bytes = model?.files[cached?.[2] ?? name];
    if (!model || !bytes || !(cached || revision === "main" || revision === model.commit)) {
      return end(response, 404, { "x-error-code": model ? "EntryNotFound" : "RepoNotFound" });
    }
    const commit = { "x-repo-commit": model.commit };
    if (cached) return sendBytes(request, response, bytes, { ...commit, etag: `"${gitHash(bytes)}"` });
    if (!inLfs(name)) return end(response, 307, { ...commit, etag: '"of-the-redirect"', location: `/cached/${id}:${name}` });
    const linked = { "x-linked-size": String(bytes.byteLength), "x-linked-etag": `"${sha256(bytes)}"`, etag: '"of-the-pointer"' };
    end(response, 302, { ...commit, ...linked, location: `${origin(storage)}/${id}:${name}?signature=1` });
  });

  return {
    endpoint: origin(hub),
    models: served,
    requests,
    faults,
    downloads: () =>
      requests.filter(({ path }) => !path.startsWith("/api/")).map(({ method, path }) => `${method} ${path}`),
    async [Symbol.asyncDispose]() {
      for (const server of [hub, storage]) {
        const closed = new Promise((done) => server.close(done));
        // More than once: what was on its way is only accepted after the first.
        const closing = setInterval(() => server.closeAllConnections(), 50);
        await closed;
        clearInterval(closing);
      }
    },
  };
}

export function end(response: ServerResponse, status: number, headers: Record<string, string> = {}): void {
  response.writeHead(status, headers).end();
}

function sendListing(model: HubModel | undefined, revision: string, response: ServerResponse): void {
  if (!model) return end(response, 404, { "x-error-code": "RepoNotFound" });
  if (revision !== "main" && revision !== "refs/pr/1" && revision !== model.commit) {
    return end(response, 404, { "x-error-code": "RevisionNotFound" });
  }
  const siblings = (model.listed ?? Object.keys(model.files)).map((rfilename) => ({ rfilename }));
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ sha: model.commit, siblings }));
}

type Headers = Record<string, string>;

function sendBytes({ method, range }: HubRequest, response: ServerResponse, bytes: Uint8Array, headers: Headers): void {
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const rest = bytes.subarray(start);
  const length = { "content-length": String(rest.byteLength), "accept-ranges": "bytes" };
  const ranged = range ? { "content-range": `bytes ${start}-${bytes.byteLength - 1}/${bytes.byteLength}` } : {};
  response.writeHead(range ? 206 : 200, { ...headers, ...length, ...ranged });
  response.end(method === "HEAD" ? undefined : rest);
}
