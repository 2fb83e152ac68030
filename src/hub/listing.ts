/** What the hub says of a model: the commit of a revision, and the names of its files. */
import { CandlewickError } from "../errors.js";
import { COMMIT } from "./cache.js";
import { request, type Connection } from "./http.js";

export interface Listing {
  readonly commit: string;
  /** Name → bytes, if the hub says. The names are as it sent them: see `chooseFiles`. */
  readonly files: ReadonlyMap<string, number | undefined>;
}

const MAX_BYTES = 64 << 20;

export async function list(connection: Connection, revision: string, timeout: number): Promise<Listing> {
  const { model, settings } = connection;
  const url = new URL(`${settings.endpoint}/api/models/${model}/revision/${encodeURIComponent(revision)}?blobs=true`);
  const reply = await request(connection, url, { timeout });
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of reply.body()) {
    size += chunk.byteLength;
    if (size > MAX_BYTES) throw new CandlewickError("DOWNLOAD_FAILED", `"${model}": the listing by ${reply.url.host} has no end`);
    chunks.push(chunk);
  }
  const listing = parse(Buffer.concat(chunks).toString("utf8"));
  if (listing) return listing;
  throw new CandlewickError("DOWNLOAD_FAILED", `"${model}": ${reply.url.host} does not answer as a hub does (${url.pathname})`);
}

function parse(text: string): Listing | undefined {
  let answer: { sha?: unknown; siblings?: unknown } | null;
  try {
    answer = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!answer || typeof answer.sha !== "string" || !COMMIT.test(answer.sha) || !Array.isArray(answer.siblings)) return undefined;
  const files = new Map<string, number | undefined>();
  for (const sibling of answer.siblings as ({ rfilename?: unknown; size?: unknown } | null)[]) {
    if (typeof sibling?.rfilename !== "string") return undefined;
    files.set(sibling.rfilename, typeof sibling.size === "number" ? sibling.size : undefined);
  }
  return { commit: answer.sha, files };
}
