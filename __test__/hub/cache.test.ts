/** What is in the cache already, and who else uses it. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, test } from "vitest";
import { resolveModel } from "../../src/hub.js";
import { commitOf, end } from "../support/hub-server.js";
import { MODEL, WEIGHTS, NEEDED, cache, hub, folder, model, weights, blobOf, filesBelow, blobs, rejects, fail, BODY } from "../support/hub-fixture.js";
import { describeUnless } from "../support/skip.js";

describe("a cached model", () => {
  test("of a branch costs one request", async () => {
    const path = await resolveModel(MODEL);
    hub.requests.length = 0;
    assert.equal(await resolveModel(MODEL), path);
    assert.deepEqual(hub.requests.map(({ method, path: asked }) => `${method} ${asked.replace(/\?.*/, "")}`), [
      `GET /api/models/${MODEL}/revision/main`,
    ]);
  });

  test("of a commit costs none", async () => {
    const path = await resolveModel(MODEL, { revision: model().commit });
    assert.ok(!existsSync(join(folder(), "refs")), "a commit needs no ref");
    hub.requests.length = 0;
    assert.equal(await resolveModel(MODEL, { revision: model().commit }), path);
    assert.equal(hub.requests.length, 0);
  });

  test("is brought up to date, and blobs that stayed the same are kept", async () => {
    const before = await resolveModel(MODEL);
    model().commit = commitOf("two");
    model().files["config.json"] = Buffer.from('{"model_type":"bert"}');
    hub.requests.length = 0;
    const after = await resolveModel(MODEL);
    assert.equal(after, join(folder(), "snapshots", commitOf("two")));
    assert.equal(await readFile(join(folder(), "refs", "main"), "utf8"), commitOf("two"));
    assert.deepEqual(hub.downloads().filter((line) => line.startsWith("GET")), [`GET /cached/${MODEL}:config.json`]);
    assert.deepEqual(await filesBelow(after), NEEDED);
    assert.notDeepEqual(await readFile(join(before, "config.json")), await readFile(join(after, "config.json")));
  });

  test("is used when the hub cannot or does not answer", async () => {
    const path = await resolveModel(MODEL);
    for (const status of [500, 429, 401, 404]) {
      hub.requests.length = 0;
      fail(1, /^GET hub \/api/, (_, response) => end(response, status, { "retry-after": "60" }));
      assert.equal(await resolveModel(MODEL), path);
      assert.equal(hub.requests.length, 1);
    }
    process.env["HF_HUB_ETAG_TIMEOUT"] = "0.2";
    fail(1, /^GET hub \/api/, () => {});
    hub.requests.length = 0;
    assert.equal(await resolveModel(MODEL), path);
    assert.equal(hub.requests.length, 1);
    process.env["HF_ENDPOINT"] = "http://127.0.0.1:9";
    assert.equal(await resolveModel(MODEL), path);
  });

  test("stays what the ref points to until a newer one is there whole", async () => {
    const before = await resolveModel(MODEL);
    model().commit = commitOf("two");
    model().files[WEIGHTS] = Buffer.from("new weights");
    fail(Infinity, BODY, (_, response) => response.destroy());
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED");
    assert.equal(await resolveModel(MODEL, { localFilesOnly: true }), before);
  });

  test("that lacks a file gets it, also for a commit", async () => {
    const path = await resolveModel(MODEL);
    const { commit } = model();
    for (const [name, revision] of [["tokenizer.json", commit], [WEIGHTS, commit], ["config.json", "main"]] as const) {
      await rm(join(path, name));
      await resolveModel(MODEL, { revision });
      assert.ok(existsSync(join(path, name)));
    }
    await rm(blobOf(WEIGHTS)); // The link stays, and leads nowhere.
    await resolveModel(MODEL);
    assert.deepEqual(await readFile(join(path, WEIGHTS)), weights());
  });

  test("is used where its marks cannot be written", async () => {
    const path = await resolveModel(MODEL);
    await rm(join(folder(), ".no_exist"), { recursive: true });
    await writeFile(join(folder(), ".no_exist"), "");
    assert.equal(await resolveModel(MODEL), path);
  });

  test("under another revision has its own ref", async () => {
    const path = await resolveModel(MODEL, { revision: "refs/pr/1" });
    assert.equal(await readFile(join(folder(), "refs", "refs", "pr", "1"), "utf8"), model().commit);
    assert.equal(await resolveModel(MODEL, { revision: "refs/pr/1", localFilesOnly: true }), path);
  });
});

describe("at the same time", () => {
  test("two calls download each file once", async () => {
    const [one, two] = await Promise.all([resolveModel(MODEL), resolveModel(MODEL)]);
    assert.equal(one, two);
    assert.equal(hub.downloads().filter((line) => line.startsWith("GET")).length, NEEDED.length);
  });

  test("several processes end with one whole cache", async () => {
    model().files[WEIGHTS] = Buffer.alloc(5_000_000, "candle");
    const script = `require("./src/hub.ts").resolveModel(${JSON.stringify(MODEL)}).then(console.log)`;
    const child = () => run(process.execPath, ["--import", "tsx", "-e", script], { env: process.env });
    const results = await Promise.all([child(), child(), child()]);
    const path = join(folder(), "snapshots", model().commit);
    for (const { stdout } of results) assert.equal(stdout.trim(), path);
    assert.deepEqual(await filesBelow(path), NEEDED);
    assert.deepEqual(await readFile(join(path, WEIGHTS)), weights());
    assert.equal((await blobs()).length, NEEDED.length);
  });
});

const run = promisify(execFile);
const python = join(homedir(), ".cache", "candlewick", "venv", "bin", "python");
const skip = existsSync(python) ? false : `no ${python.replace(homedir(), "~")}, so the cross-check did not run`;

async function askPython(script: string, variables: NodeJS.ProcessEnv = {}): Promise<string> {
  const quiet = { HF_HUB_DISABLE_TELEMETRY: "1", HF_HUB_DISABLE_PROGRESS_BARS: "1" };
  const { stdout } = await run(python, ["-c", script], { env: { ...process.env, ...quiet, ...variables } });
  return stdout.trim();
}

describeUnless(skip, "huggingface_hub in Python", () => {
  test("reads offline what was written here", async () => {
    const path = await resolveModel(MODEL);
    const answer = await askPython(
      `
import json, huggingface_hub as h
from huggingface_hub.file_download import _CACHED_NO_EXIST
id = "${MODEL}"
info = h.scan_cache_dir()
print(json.dumps({
  "snapshot": h.snapshot_download(id),
  "files": [h.hf_hub_download(id, name) for name in ${JSON.stringify(NEEDED)}],
  "absent": h.try_to_load_from_cache(id, "merges.txt") is _CACHED_NO_EXIST,
  "repos": [[r.repo_id, r.nb_files, r.size_on_disk, sorted(r.refs)] for r in info.repos],
  "warnings": [str(w) for w in info.warnings],
}))`,
      { HF_HUB_OFFLINE: "1" },
    );
    const size = NEEDED.reduce((sum, name) => sum + model().files[name]!.byteLength, 0);
    assert.deepEqual(JSON.parse(answer), {
      snapshot: path,
      files: NEEDED.map((name) => join(path, name)),
      absent: true,
      repos: [[MODEL, NEEDED.length, size, ["main"]]],
      warnings: [],
    });
  });

  test("writes what is read here, without a further download", async () => {
    const script = `
import huggingface_hub as h
for name in ${JSON.stringify(NEEDED)}: path = h.hf_hub_download("${MODEL}", name)`;
    await askPython(script);
    const theirs = await filesBelow(folder());
    const path = join(folder(), "snapshots", model().commit);
    hub.requests.length = 0;
    assert.equal(await resolveModel(MODEL, { localFilesOnly: true }), path);
    assert.equal(await resolveModel(MODEL), path);
    assert.deepEqual(hub.downloads(), []);
    await rm(cache, { recursive: true });
    await resolveModel(MODEL);
    const own = await filesBelow(folder());
    assert.deepEqual(own.filter((name) => !name.startsWith(".no_exist")), theirs);
    assert.ok((await stat(path)).isDirectory());
  });
});
