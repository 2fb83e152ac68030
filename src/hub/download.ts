/**
 * Downloads one file into the cache: what the hub says of it, its bytes, the check of them, its place in the snapshot.
 */
import { createHash, type Hash } from "node:crypto";
import { once } from "node:events";
import { mkdir, open, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { abortError, CandlewickError } from "../errors.js";
import type { ModelCache } from "./cache.js";
import { exists } from "./files.js";
import { MAX_FAILURES, redirected, request, retrying, Transient, type Connection, type Reply } from "./http.js";
import { abandonedPartials, adoptPartial, ownPartial, releasePartial } from "./partial.js";

export interface DownloadProgress {
  file: string;
  loaded: number;
  total: number;
}

export interface Download {
  readonly connection: Connection;
  readonly cache: ModelCache;
  readonly commit: string;
  readonly file: string;
  /** Bytes, if the listing says. */
  readonly listedSize: number | undefined;
  readonly onProgress: ((progress: DownloadProgress) => void) | undefined;
}

interface RemoteFile {
  readonly url: URL;
  readonly etag: string;
  readonly size: number;
}

/** Bytes. After this many more, a failure counts as the first. */
const PROGRESS = 1 << 20;
/** Milliseconds. */
const PROGRESS_INTERVAL = 100;

/** The blobs that this thread is downloading: a second call for one waits instead of downloading it again. */
const underway = new Map<string, Promise<unknown>>();

export async function downloadFile(download: Download): Promise<void> {
  const { connection, cache, commit, file } = download;
  const place = `${cache.snapshot(commit)}/${file}`;
  if (await exists(place)) return;
  const mark = { bytes: 0 };
  await retrying(connection, MAX_FAILURES, async () => {
    const remote = await describe(download);
    const blob = cache.blob(remote.etag);
    await oneAtATime(blob, connection.signal, async () => {
      if (await exists(place)) return;
      const isNew = (await sizeOf(blob)) !== remote.size;
      if (isNew) await fetchBlob(download, remote, blob, mark);
      await cache.place(remote.etag, commit, file, isNew);
    });
  });
}

/**
 * What the hub says of a file. The headers of its own last answer count, which may be a redirect to where the bytes
 * are: a storage host has etags of its own, which are not the file's.
 */
async function describe({ connection, commit, file, listedSize }: Download): Promise<RemoteFile> {
  const { model, settings } = connection;
  const url = new URL(`${settings.endpoint}/${model}/resolve/${commit}/${file.split("/").map(encodeURIComponent).join("/")}`);
  const reply = await request(connection, url, { method: "HEAD", until: leavesHub });
  reply.discard();
  const { headers } = reply;
  if (headers.get("x-repo-commit") !== commit) {
    const what = `${reply.url.host} does not answer for ${file} as a hub does (X-Repo-Commit)`;
    throw new CandlewickError("DOWNLOAD_FAILED", `"${model}": ${what}`);
  }
  const location = reply.status >= 300 ? headers.get("location") : null;
  const declared = headers.get("x-linked-size") ?? (location === null ? headers.get("content-length") : null);
  const size = declared === null ? listedSize : Number(declared);
  if (size === undefined || !Number.isSafeInteger(size) || size < 0) {
    throw new CandlewickError("DOWNLOAD_FAILED", `"${model}": ${reply.url.host} does not say how large ${file} is`);
  }
  return {
    url: location === null ? reply.url : redirected(connection, reply.url, location),
    etag: etagOf(headers.get("x-linked-etag") ?? headers.get("etag"), connection, file),
    size,
  };
}

const leavesHub = ({ url, headers }: Reply, next: URL): boolean => headers.has("x-repo-commit") && next.origin !== url.origin;

/** An etag names a file, so it must be a file's name and nothing else. */
function etagOf(header: string | null, { model }: Connection, file: string): string {
  const etag = (header ?? "").replace(/^W\//, "").replaceAll(/^"|"$/g, "");
  if (etag === "") throw new CandlewickError("DOWNLOAD_FAILED", `"${model}": the hub gives no ETag for ${file}`);
  if (/^[A-Za-z0-9_-][A-Za-z0-9_.+=-]{0,127}$/.test(etag) && !etag.endsWith(".incomplete")) return etag;
  throw new CandlewickError("PATH_ESCAPE", `"${model}": the ETag of ${file} is no name of a file: ${JSON.stringify(etag)}`);
}

/** Brings `remote` to `blob`, which appears there whole or not at all. What had come before a failure is kept. */
async function fetchBlob(download: Download, remote: RemoteFile, blob: string, mark: Mark): Promise<void> {
  await mkdir(dirname(blob), { recursive: true });
  const path = ownPartial(blob);
  await adoptPartial(blob, path);
  const handle = await open(path, "a+");
  const resumed = (await handle.stat()).size > 0;
  try {
    await receive(download, remote, handle, mark);
  } catch (error) {
    await handle.close();
    if (error instanceof Corrupt) {
      await rm(path, { force: true });
      // The bytes of an earlier try may be the wrong ones.
      if (resumed) throw new Transient(error.message);
      throw new CandlewickError("DOWNLOAD_FAILED", `"${download.connection.model}": ${error.message}`);
    }
    await releasePartial(blob, path);
    throw error;
  }
  await handle.close();
  await rename(path, blob);
  for (const left of await abandonedPartials(blob)) await rm(left, { force: true });
}

/** The most bytes of a file that any try has received: only more than that counts as progress. */
interface Mark {
  bytes: number;
}

/** The bytes are not the file's. */
class Corrupt extends Error {}

/** Appends to `handle` what it lacks of `remote`, and checks the whole. */
async function receive(download: Download, remote: RemoteFile, handle: FileHandle, mark: Mark): Promise<void> {
  const { connection, file } = download;
  const total = remote.size;
  let loaded = (await handle.stat()).size;
  let hash = hashOf(remote.etag);
  if (loaded > total) throw new Corrupt(`more of ${file} was on the disk than the hub has`);
  mark.bytes = Math.max(mark.bytes, loaded);
  if (hash && loaded > 0) {
    for await (const chunk of handle.createReadStream({ start: 0, autoClose: false })) {
      if (connection.signal?.aborted) throw abortError(connection.signal);
      hash.update(chunk as Uint8Array);
    }
  }
  const report = reporter(download, total);
  report(loaded);

  if (loaded < total) {
    const headers: Record<string, string> = loaded > 0 ? { range: `bytes=${loaded}-` } : {};
    const reply = await request(connection, remote.url, { headers, signed: true });
    if (reply.status === 206 && !reply.headers.get("content-range")?.startsWith(`bytes ${loaded}-`)) {
      reply.discard();
      throw new Corrupt(`${reply.url.host} sent another range of ${file} than was asked for`);
    }
    if (reply.status !== 206 && loaded > 0) {
      await handle.truncate(0);
      hash = hashOf(remote.etag);
      loaded = 0;
    }
    try {
      for await (const chunk of reply.body()) {
        loaded += chunk.byteLength;
        if (loaded > total) throw new Corrupt(`${reply.url.host} sent more of ${file} than the ${total} bytes it declared`);
        await handle.appendFile(chunk);
        hash?.update(chunk);
        report(loaded);
      }
      if (loaded < total) throw new Transient(`${reply.url.host} ended ${file} after ${loaded} of ${total} bytes`);
    } catch (error) {
      if (error instanceof Transient) error.progressed = loaded >= mark.bytes + PROGRESS;
      mark.bytes = Math.max(mark.bytes, loaded);
      throw error;
    }
  }
  if (hash && hash.digest("hex") !== remote.etag) throw new Corrupt(`the SHA-256 of ${file} is not the one the hub declares`);
}

/**
 * A file in LFS has its SHA-256 for an etag. Others have their git hash, or whatever a mirror makes up: not checked.
 */
const hashOf = (etag: string): Hash | undefined => (/^[0-9a-f]{64}$/.test(etag) ? createHash("sha256") : undefined);

/** Calls `onProgress` at the start, at the end and at most ten times a second between them. */
function reporter({ file, onProgress }: Download, total: number): (loaded: number) => void {
  let last = -Infinity;
  return (loaded) => {
    const now = performance.now();
    if (!onProgress || (loaded < total && now - last < PROGRESS_INTERVAL)) return;
    last = now;
    onProgress({ file, loaded, total });
  };
}

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => -1,
  );

/** Runs `task` when no other task of this thread runs under `key`. */
async function oneAtATime(key: string, signal: AbortSignal | undefined, task: () => Promise<void>): Promise<void> {
  for (let other = underway.get(key); other; other = underway.get(key)) await orAborted(other, signal);
  const running = task();
  underway.set(key, Promise.allSettled([running]));
  try {
    await running;
  } finally {
    underway.delete(key);
  }
}

async function orAborted(other: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return void (await other);
  const over = new AbortController();
  if (!signal.aborted) await Promise.race([other, once(signal, "abort", { signal: over.signal })]);
  over.abort();
  if (signal.aborted) throw abortError(signal);
}
