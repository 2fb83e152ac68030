/**
 * From what a user calls a model to files on this machine: a path, or a hub id in the hub's own cache, downloaded if
 * need be.
 */
import { resolve } from "node:path";
import { abortError, CandlewickError } from "./errors.js";
import { COMMIT, ModelCache } from "./hub/cache.js";
import { downloadFile, type DownloadProgress } from "./hub/download.js";
import { assertInside, chooseFiles, chooseShards, exists, sideFiles } from "./hub/files.js";
import { MAX_FAILURES, retrying, type Connection } from "./hub/http.js";
import { list, type Listing } from "./hub/listing.js";
import { MODULES, readModules, type Module } from "./hub/modules.js";
import { readSettings, type HubSettings } from "./hub/settings.js";
import { checkOptions, checks, type OptionTable } from "./options.js";
import { isShippedName, MODEL_PREFIX, modelFolder } from "./package.js";

export type { DownloadProgress } from "./hub/download.js";

export interface ResolveOptions {
  /** A branch, a tag or a commit of the hub's model; `main` unless given. */
  revision?: string;
  /** Never uses the network. */
  localFilesOnly?: boolean;
  signal?: AbortSignal;
  /** Called for each file that is downloaded, several of which may be at the same time. */
  onProgress?: (progress: DownloadProgress) => void;
}

/** Files downloaded at once. */
const PARALLEL = 4;

/**
 * The absolute path of a model's files. What exists on this machine comes first, then the package of weights of this
 * name (`candlewick-model-…`, or the short name of one that Candlewick has: `default`, `sentiment-zh`); otherwise
 * `source` is a hub id, and what the hub's cache lacks of it is downloaded there.
 *
 * A commit that is cached whole needs no network. Of a branch or tag the hub is asked for the present commit, in one
 * request; if it cannot or does not say, the commit in the cache is used.
 */
export async function resolveModel(source: string, options: ResolveOptions = {}): Promise<string> {
  if (typeof source !== "string" || source === "") throw invalid("model: a path or a hub id is needed");
  const checked = checkOptions("model", options, resolveOptions);
  const { revision, signal } = checked;
  if (signal?.aborted) throw abortError(signal);
  let path = resolve(source);
  const there = await exists(path);
  const named = !there && (source.startsWith(MODEL_PREFIX) || isShippedName(source));
  if (named) path = modelFolder(source);
  if (there || named) {
    if (revision === undefined) return path;
    throw invalid(`revision: ${path} is a path, and only the hub's models have revisions`);
  }
  if (!isHubId(source)) throw new CandlewickError("MODEL_NOT_FOUND", `Model not found as a path: there is nothing at ${path}, and ${JSON.stringify(source)} is not the id of a model on the hub (owner/name)`);
  const followed = follow(signal);
  try {
    return await resolveHubModel(source, { ...checked, signal: followed.signal }, await readSettings());
  } catch (error) {
    if (!(error instanceof Error && "syscall" in error)) throw error;
    const message = `Could not write "${source}" to the hub's cache: ${error.message}`;
    throw new CandlewickError("DOWNLOAD_FAILED", message, { cause: error });
  } finally {
    followed.end();
  }
}

/** One of Node's own signals that is aborted when `signal` is: Node's functions take no others. */
function follow(signal: AbortSignal | undefined): { signal: AbortSignal | undefined; end(): void } {
  if (!signal || signal instanceof AbortSignal) return { signal, end: () => {} };
  const other: AbortSignal = signal;
  const controller = new AbortController();
  const abort = () => controller.abort(other.reason);
  other.addEventListener("abort", abort, { once: true });
  return { signal: controller.signal, end: () => other.removeEventListener("abort", abort) };
}

async function resolveHubModel(model: string, options: ResolveOptions, settings: HubSettings): Promise<string> {
  const { revision = "main", localFilesOnly, signal } = options;
  const cache = new ModelCache(settings.cache, model, settings.symlinks);
  const pinned = COMMIT.test(revision);
  const cached = pinned ? revision : await cache.readRef(revision);
  const { missing, unknown } = cached ? await cache.inspect(cached) : { missing: ["config.json"], unknown: [] };
  const usable = cached !== undefined && missing.length === 0 ? cache.snapshot(cached) : undefined;

  const offline = localFilesOnly ? "localFilesOnly is true" : settings.offline && `${settings.offline} is set`;
  if (offline) {
    if (usable) return usable;
    const where = cached ? `${cache.snapshot(cached)}, which lacks ${missing.join(", ")}` : cache.folder;
    throw notCached(model, revision, where, offline);
  }
  if (usable && pinned && unknown.length === 0) return usable;

  const connection: Connection = { settings, model, signal };
  let listing: Listing;
  try {
    // If the cache has the model, the hub gets one try with a shorter timeout.
    const timeout = usable ? settings.checkTimeout : settings.stallTimeout;
    listing = await retrying(connection, usable ? 1 : MAX_FAILURES, () => list(connection, revision, timeout));
  } catch (error) {
    if (usable && error instanceof CandlewickError && error.code !== "ABORTED" && error.code !== "PATH_ESCAPE") return usable;
    throw error;
  }
  const { commit } = listing;
  if (pinned && commit !== revision) {
    throw new CandlewickError("DOWNLOAD_FAILED", `"${model}": the hub answers with ${commit} for ${revision}`);
  }
  const modules = await download(listing, cache, connection, options);
  try {
    await cache.markAbsent(commit, sideFiles(modules).filter((name) => !listing.files.has(name)));
    if (!pinned) await cache.writeRef(revision, commit);
  } catch (error) {
    // A complete cache may be on a read-only disk.
    if (!usable) throw error;
  }
  return cache.snapshot(commit);
}

/** Downloads what a model is loaded from and the snapshot lacks; gives what its `modules.json` lists. */
async function download(listing: Listing, cache: ModelCache, connection: Connection, options: ResolveOptions): Promise<Module[]> {
  const listed = [...listing.files.keys()];
  for (const name of listed) assertInside(name);
  const snapshot = cache.snapshot(listing.commit);
  const get = (wanted: readonly string[]) => downloadAll(wanted, listing, cache, connection, options);
  // It says where the other files are.
  if (listing.files.has(MODULES)) await get([MODULES]);
  const modules = await readModules(snapshot, assertInside);
  const names = chooseFiles(listed, connection.model, modules);
  await get(names);
  const shards = await chooseShards(snapshot, names);
  const lacking = shards.find((name) => !listing.files.has(name));
  if (lacking !== undefined) {
    throw new CandlewickError("MODEL_NOT_FOUND", `The hub's model "${connection.model}" has no ${lacking}, which its index of shards names`);
  }
  await get(shards);
  return modules;
}

/** The first failure ends the other downloads. */
async function downloadAll(
  names: readonly string[],
  { commit, files }: Listing,
  cache: ModelCache,
  connection: Connection,
  { onProgress }: ResolveOptions,
): Promise<void> {
  const queue = [...names];
  const failed = new AbortController();
  const signal = connection.signal ? AbortSignal.any([connection.signal, failed.signal]) : failed.signal;
  let failure: { error: unknown } | undefined;
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined && !failure; file = queue.shift()) {
      const listedSize = files.get(file);
      try {
        await downloadFile({ connection: { ...connection, signal }, cache, commit, file, listedSize, onProgress });
      } catch (error) {
        failure ??= { error };
        failed.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  if (failure) throw failure.error;
}

function notCached(model: string, revision: string, where: string, offline: string): CandlewickError {
  return new CandlewickError(
    "MODEL_NOT_FOUND",
    `Revision ${revision} of the hub's model "${model}" is not in the cache (looked in ${where}), and it was not downloaded ` +
      `because ${offline}. Allow the download, or fetch it first, for example with: hf download ${model}`,
  );
}

const invalid = (message: string): CandlewickError => new CandlewickError("OPTION_INVALID", message);

const resolveOptions: OptionTable<ResolveOptions> = {
  revision: (value) => (isRevision(value) ? undefined : "must be a branch, tag or commit"),
  localFilesOnly: checks.boolean,
  signal: checks.signal,
  onProgress: checks.function,
};

/** `name` or `organisation/name`, by the hub's rules; `--` is what the cache's folder names have for `/`. */
function isHubId(source: string): boolean {
  return /^(?:\w[\w.-]*\/)?\w[\w.-]{0,95}$/.test(source) && !/--|\.\.|[.-](?:\/|$)|\.git$/.test(source);
}

/** A name that git allows, of which no part leads out of a folder: `main`, `v1.0`, `refs/pr/1`. */
function isRevision(revision: unknown): boolean {
  if (typeof revision !== "string" || /[\p{Cc}\s\\:~^?*[]/u.test(revision)) return false;
  return revision.split("/").every((part) => part !== "" && !part.startsWith(".")) && !revision.includes("..");
}
