/**
 * Partly downloaded blobs. Each download writes to a file of its own, `<etag>.<host>-<process>-<random>.incomplete`, so
 * two processes, or a broken lock on a network disk, never append to one file. A download that fails leaves its file as
 * `<etag>.idle.incomplete`. Who comes next takes over what is idle or whose process has ended, by renaming it to its
 * own name: a rename has one winner, and a name that no one else uses cannot be mistaken for an older file's.
 */
import { createHash, randomUUID } from "node:crypto";
import { readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";

/** Milliseconds. Stalls and pauses end a download long before; `huggingface_hub`'s files are known by this alone. */
const STALE = 3_600_000;

const host = createHash("sha256").update(hostname()).digest("hex").slice(0, 8);

export const ownPartial = (blob: string): string => `${blob}.${host}-${process.pid}-${randomUUID().slice(0, 8)}.incomplete`;

/** Leaves `path` for the next download of `blob`, unless it is empty. */
export async function releasePartial(blob: string, path: string): Promise<void> {
  const { size } = await stat(path);
  await (size > 0 ? rename(path, `${blob}.idle.incomplete`) : rm(path));
}

/** Renames the largest abandoned part of `blob`, if there is one, to `path`. */
export async function adoptPartial(blob: string, path: string): Promise<void> {
  for (const candidate of await abandonedPartials(blob)) {
    try {
      // Before the rename: from then on it must not look stale.
      await utimes(candidate, new Date(), new Date());
      await rename(candidate, path);
      return;
    } catch {
      // Another process renamed it first.
    }
  }
}

/** The parts of `blob` that no one writes to, the largest first. */
export async function abandonedPartials(blob: string): Promise<string[]> {
  const prefix = `${basename(blob)}.`;
  const names = await readdir(dirname(blob));
  const found: { path: string; size: number }[] = [];
  for (const name of names) {
    if (!name.startsWith(prefix) || !name.endsWith("incomplete")) continue;
    const path = join(dirname(blob), name);
    const file = await stat(path).catch(() => undefined);
    if (!file) continue;
    const owner = name.slice(prefix.length, -".incomplete".length);
    if (owner === "idle" || hasEnded(owner) || Date.now() - file.mtimeMs > STALE) found.push({ path, size: file.size });
  }
  return found.toSorted((a, b) => b.size - a.size).map(({ path }) => path);
}

/** Whether `owner` is a process of this host that is no more. */
function hasEnded(owner: string): boolean {
  const [where, process_] = owner.split("-");
  const id = Number(process_);
  if (where !== host || !Number.isInteger(id) || id <= 0) return false;
  try {
    process.kill(id, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}
