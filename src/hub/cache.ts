/**
 * One model in the hub's cache, laid out as `huggingface_hub` does:
 *
 *     models--org--name/
 *       refs/main                         the commit that a branch or tag was last seen at
 *       blobs/<etag>                      contents, under the git or LFS hash
 *       snapshots/<commit>/config.json    -> ../../blobs/<etag>
 *       .no_exist/<commit>/merges.txt     empty: the commit is known to have no such file
 */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { assertInside, exists, missingFrom, sideFiles } from "./files.js";
import { readModules } from "./modules.js";

export const COMMIT = /^[0-9a-f]{40}$/;

export class ModelCache {
  readonly folder: string;

  constructor(
    cache: string,
    model: string,
    private readonly symlinks: boolean,
  ) {
    this.folder = join(cache, `models--${model.replaceAll("/", "--")}`);
  }

  blob(etag: string): string {
    return join(this.folder, "blobs", etag);
  }

  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  /** The commit of a branch or tag when it was last downloaded. */
  async readRef(revision: string): Promise<string | undefined> {
    const text = await readFile(join(this.folder, "refs", revision), "utf8").catch(() => "");
    return COMMIT.test(text.trim()) ? text.trim() : undefined;
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if ((await this.readRef(revision)) === commit) return;
    const path = join(this.folder, "refs", revision);
    await mkdir(dirname(path), { recursive: true });
    await replace(path, (temporary) => writeFile(temporary, commit));
  }

  /** The files without which the snapshot is not a model, and the side files it may or may not have at the hub. */
  async inspect(commit: string): Promise<{ missing: string[]; unknown: string[] }> {
    const modules = await readModules(this.snapshot(commit), assertInside);
    const names = sideFiles(modules);
    const known = await Promise.all(
      names.map(async (name) => (await exists(join(this.snapshot(commit), name))) || exists(this.absence(commit, name))),
    );
    return { missing: await missingFrom(this.snapshot(commit), modules), unknown: names.filter((_, i) => !known[i]) };
  }

  /** Notes that `commit` has no such files, so that the next look at it needs no listing. */
  async markAbsent(commit: string, names: readonly string[]): Promise<void> {
    for (const name of names) {
      const path = this.absence(commit, name);
      if (await exists(path)) continue;
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, "");
    }
  }

  private absence(commit: string, name: string): string {
    return join(this.folder, ".no_exist", commit, name);
  }

  /**
   * Puts a blob into a snapshot. Where links are not possible (Windows without developer mode), a new blob moves there,
   * so that it is not on the disk twice; one that another snapshot may use is copied.
   */
  async place(etag: string, commit: string, name: string, isNew: boolean): Promise<void> {
    const blob = this.blob(etag);
    const path = join(this.snapshot(commit), name);
    await mkdir(dirname(path), { recursive: true });
    await replace(path, async (temporary) => {
      if (this.symlinks && (await linked(relative(dirname(path), blob), temporary))) return;
      await (isNew ? rename(blob, temporary) : copyFile(blob, temporary));
    });
  }
}

const linked = (target: string, path: string): Promise<boolean> =>
  symlink(target, path, "file").then(
    () => true,
    () => false,
  );

/** Makes `path` under another name and renames it, so that no reader sees a part of it. */
async function replace(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${path}.${randomUUID().slice(0, 8)}.tmp`;
  try {
    await make(temporary);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
