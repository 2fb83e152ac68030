import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, type Stats } from "node:fs";
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, utimes, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { homedir, hostname, tmpdir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { CandlewickError } from "../src/errors.js";
import { resolveModel, type DownloadProgress } from "../src/hub.js";
import { pauses, redirected } from "../src/hub/http.js";
import { hubCache, readSettings } from "../src/hub/settings.js";
import { commitOf, end, etagOf, sha256, smallModel, startHub, type HubRequest, type HubServer } from "./support/hub-server.js";

const run = promisify(execFile);
const MODEL = "candle/wick";
const WEIGHTS = "model.safetensors";
const NEEDED = ["1_Pooling/config.json", "config.json", "generation_config.json", WEIGHTS, "tokenizer.json"];

pauses.first = 10;

let home: string;
let cache: string;
let hub: HubServer;
let environment: NodeJS.ProcessEnv;

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

const folder = (model = MODEL): string => join(cache, `models--${model.replaceAll("/", "--")}`);
const model = () => hub.models.get(MODEL)!;
const weights = () => model().files[WEIGHTS]!;
const blobOf = (name: string): string => join(folder(), "blobs", etagOf(name, model().files[name]!));

/** Paths of the files below `root`. */
async function filesBelow(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
  return paths.map((path) => relative(root, path).replaceAll(sep, "/")).toSorted();
}

/** Requests to the storage host, all of which are for weights. */
const bodies = () => hub.requests.filter(({ host }) => host === "storage");
const ranges = () => bodies().map(({ range }) => range);
const tokens = (host: string) => hub.requests.filter((request) => request.host === host).map(({ authorization }) => authorization);

/** Leaves a part of a blob, of the weights unless said otherwise. */
async function leave(owner: string, name = WEIGHTS, bytes = weights().subarray(0, 5000), modified = new Date()): Promise<void> {
  const path = `${blobOf(name)}.${owner}.incomplete`;
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
  await utimes(path, modified, modified);
}


const blobs = (): Promise<string[]> => readdir(join(folder(), "blobs")).then((names) => names.toSorted());

async function rejects(promise: Promise<unknown>, code: string, message?: RegExp): Promise<CandlewickError> {
  const error = await promise.then(
    (value) => assert.fail(`resolved with ${String(value)}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof CandlewickError, `not a CandlewickError: ${String(error)}`);
  assert.equal(error.code, code, error.stack);
  if (message) assert.match(error.message, message);
  return error;
}

type Answer = (request: HubRequest, response: ServerResponse) => void;

/** Answers the first `times` requests that match with `answer`. */
function fail(times: number, matching: RegExp, answer: Answer): void {
  let left = times;
  hub.faults.push((request, response) => {
    if (left === 0 || !matching.test(`${request.method} ${request.host} ${request.path}`)) return false;
    left--;
    answer(request, response);
    return true;
  });
}

const BODY = /^GET storage/;
/** Waits until the client has written `count` bytes of the weights: what it has not read of a cut connection is lost. */
async function received(count: number): Promise<void> {
  for (;;) {
    const names = await blobs().catch(() => []);
    const parts = names.filter((name) => name.startsWith(sha256(weights())) && name.endsWith(".incomplete"));
    const sizes = await Promise.all(parts.map((name) => stat(join(folder(), "blobs", name)).catch(() => undefined)));
    if (sizes.some((file) => file && file.size >= count)) return;
    await sleep(5);
  }
}

/** Sends the weights up to the byte `to`, waits for the client to have them, and cuts the connection. */
const cutAt = (to: number, onward = false): Answer => (request, response) => {
  const start = onward ? Number(/\d+/.exec(request.range ?? "0")![0]) : 0;
  const range = { "content-range": `bytes ${start}-${weights().byteLength - 1}/${weights().byteLength}` };
  response.writeHead(start > 0 ? 206 : 200, start > 0 ? range : {});
  response.write(weights().subarray(start, start + to));
  void received(start + to).finally(() => response.destroy());
};

describe("paths", () => {
  test("what exists is returned, absolute, and the hub is not asked", async () => {
    const file = join(home, "model.gguf");
    await writeFile(file, "");
    assert.equal(await resolveModel(home), home);
    assert.equal(await resolveModel(file), file);
    assert.equal(await resolveModel(relative(process.cwd(), file)), file);
    assert.equal(hub.requests.length, 0);
  });

  test("a folder comes before a hub id of the same name", async () => {
    assert.equal(await resolveModel("src"), join(process.cwd(), "src"));
    assert.equal(await resolveModel("src/hub"), join(process.cwd(), "src", "hub"));
    assert.equal(hub.requests.length, 0);
  });

  test("what is neither a path nor shaped like a hub id is not looked for", async () => {
    const sources = ["./x", "../x", "/nowhere/x", "~/x", "a/b/c", "a/../b", "a..b", "a--b/c", ".x", "a/.x", "x y", "C:\\x", "a\\b"];
    for (const source of sources) await rejects(resolveModel(source), "MODEL_NOT_FOUND");
    assert.equal(hub.requests.length, 0);
  });

  test("options that cannot be meant", async () => {
    await rejects(resolveModel(""), "OPTION_INVALID");
    await rejects(resolveModel(home, { revision: "main" }), "OPTION_INVALID");
    for (const revision of ["", "..", "a/../b", "/a", "a/", "a\\b", "C:a", ".a", "a b", 3]) {
      await rejects(resolveModel(MODEL, { revision: revision as string }), "OPTION_INVALID");
    }
    await rejects(resolveModel(MODEL, { localFilesOnly: 1 as unknown as boolean }), "OPTION_INVALID");
    process.env["HF_ENDPOINT"] = "ftp://x";
    await rejects(resolveModel(MODEL), "OPTION_INVALID");
    assert.equal(hub.requests.length, 0);
  });

  test("the cache's place", () => {
    const user = join(homedir(), ".cache");
    assert.equal(hubCache({}), join(user, "huggingface", "hub"));
    assert.equal(hubCache({ XDG_CACHE_HOME: "/x" }), join("/x", "huggingface", "hub"));
    assert.equal(hubCache({ XDG_CACHE_HOME: "/x", HF_HOME: "/h" }), join("/h", "hub"));
    assert.equal(hubCache({ HF_HOME: "/h", HF_HUB_CACHE: "/c" }), "/c");
    assert.equal(hubCache({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" }), "/old");
    assert.equal(hubCache({ HF_HOME: "~/h" }), join(homedir(), "h", "hub"));
    assert.equal(hubCache({ HF_HOME: "$D/${D}", D: "/d" }), "/d/d/hub");
  });
});

describe("a download", () => {
  test("is laid out as the hub's own tools do, with the needed files only", async () => {
    const path = await resolveModel(MODEL);
    assert.equal(path, join(folder(), "snapshots", model().commit));
    assert.deepEqual(await filesBelow(path), NEEDED);
    for (const name of NEEDED) {
      assert.deepEqual(await readFile(join(path, name)), Buffer.from(model().files[name]!));
      const link = join(path, name);
      assert.equal(await readlink(link), relative(dirname(link), blobOf(name)));
    }
    assert.deepEqual(await blobs(), NEEDED.map((name) => etagOf(name, model().files[name]!)).toSorted());
    assert.equal(await readFile(join(folder(), "refs", "main"), "utf8"), model().commit);
    const absent = await filesBelow(join(folder(), ".no_exist", model().commit));
    assert.ok(absent.includes("merges.txt") && absent.includes("modules.json"), absent.join());
    assert.ok(!absent.some((name) => NEEDED.includes(name)));
    assert.ok(!hub.requests.some(({ path: asked }) => /README|h5|onnx|\.bin/.test(asked)));
  });

  test("of shards takes the index and what it names", async () => {
    const { files } = model();
    const shards = ["model-00001-of-00002.safetensors", "parts/two.safetensors"];
    files["model.safetensors.index.json"] = Buffer.from(JSON.stringify({ weight_map: { a: shards[0], b: shards[1], c: shards[0] } }));
    for (const name of [...shards, "adapter.safetensors", "model.fp16.safetensors"]) files[name] = Buffer.from(name);
    delete files[WEIGHTS];
    const names = await filesBelow(await resolveModel(MODEL));
    assert.deepEqual(
      names.filter((name) => name.includes("safetensors")),
      [shards[0], "model.safetensors.index.json", shards[1]],
    );
    delete files["parts/two.safetensors"];
    model().commit = commitOf("two");
    await rejects(resolveModel(MODEL), "MODEL_NOT_FOUND");
  });

  test("takes nothing that the loader does not read", async () => {
    const { files } = model();
    files["pytorch_model.bin.index.json"] = Buffer.from(JSON.stringify({ weight_map: { a: "pytorch_model-00001-of-00001.bin" } }));
    files["pytorch_model-00001-of-00001.bin"] = Buffer.from("one");
    delete files[WEIGHTS];
    delete files["pytorch_model.bin"];
    await rejects(resolveModel(MODEL), "MODEL_NOT_FOUND", /safetensors/);
    assert.deepEqual(hub.downloads(), []);
  });

  test("takes pytorch_model.bin where there are no safetensors", async () => {
    delete model().files[WEIGHTS];
    const names = await filesBelow(await resolveModel(MODEL));
    assert.ok(names.includes("pytorch_model.bin"));
  });

  test("of what is no model of these kinds fails before any file", async () => {
    delete model().files[WEIGHTS];
    delete model().files["pytorch_model.bin"];
    await rejects(resolveModel(MODEL), "MODEL_NOT_FOUND", /safetensors/);
    model().files[WEIGHTS] = Buffer.from("x");
    delete model().files["config.json"];
    await rejects(resolveModel(MODEL), "MODEL_NOT_FOUND", /config\.json/);
    assert.deepEqual(hub.downloads(), []);
  });

  test("reports progress from nothing to all of each file", async () => {
    model().files[WEIGHTS] = Buffer.alloc(3_000_000, "candle");
    const seen: DownloadProgress[] = [];
    await resolveModel(MODEL, { onProgress: (progress) => seen.push(progress) });
    for (const name of NEEDED) {
      const total = model().files[name]!.byteLength;
      const loaded = seen.filter(({ file }) => file === name).map((progress) => progress.loaded);
      assert.ok(seen.filter(({ file }) => file === name).every((progress) => progress.total === total));
      assert.equal(loaded[0], 0);
      assert.equal(loaded.at(-1), total);
      assert.deepEqual(loaded, loaded.toSorted((a, b) => a - b));
    }
  });

  test("ends with what onProgress throws, without another try", async () => {
    const mine = new RangeError("mine");
    const promise = resolveModel(MODEL, {
      onProgress: ({ file, loaded }) => {
        if (file === WEIGHTS && loaded > 0) throw mine;
      },
    });
    await assert.rejects(promise, (error) => error === mine);
    assert.equal(hub.downloads().filter((line) => line.startsWith("GET /candle/wick:")).length, 1);
  });

  test("copies where there are no symbolic links", async () => {
    process.env["HF_HUB_DISABLE_SYMLINKS"] = "1";
    const path = await resolveModel(MODEL);
    const kinds = await Promise.all(NEEDED.map((name) => lstat(join(path, name)).then((file: Stats) => file.isFile())));
    assert.ok(kinds.every(Boolean));
    assert.deepEqual(await readFile(join(path, WEIGHTS)), weights());
    assert.deepEqual(await blobs(), [], "a new blob is not kept twice");
  });

  test("of which one file fails ends the others at once", async () => {
    fail(1, BODY, (_, response) => response.writeHead(200).write("x"));
    fail(1, /^HEAD hub .*generation_config/, (_, response) => setTimeout(() => end(response, 403), 200));
    await rejects(resolveModel(MODEL), "MODEL_GATED");
    assert.ok(bodies().length <= 1, "the body that never ends was left, not tried again");
  });

  test("to where nothing can be written says so", async () => {
    await writeFile(cache, "a file where the cache should be");
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED", /ENOTDIR|EEXIST|ENOENT/);
  });

  test("by a name that the hub redirects", async () => {
    hub.faults.push((request, response) => {
      if (!request.path.includes("old-name")) return false;
      end(response, 307, { location: request.path.replace("old-name", MODEL) });
      return true;
    });
    assert.equal(await resolveModel("old-name"), join(folder("old-name"), "snapshots", model().commit));
  });
});

describe("the token", () => {
  test("goes to the hub and to no other host", async () => {
    process.env["HF_TOKEN"] = "hf_secret";
    await resolveModel(MODEL);
    assert.ok(tokens("hub").every((value) => value === "Bearer hf_secret"));
    assert.deepEqual(tokens("storage"), [undefined]);
  });

  test("does not follow a redirect of the listing to another host", async () => {
    process.env["HF_TOKEN"] = "hf_secret";
    const other = await startHub({ [MODEL]: model() });
    fail(1, /^GET hub \/api/, (request, response) => end(response, 302, { location: `${other.endpoint}${request.path}` }));
    await resolveModel(MODEL);
    assert.deepEqual(other.requests.map(({ authorization }) => authorization), [undefined]);
    await other[Symbol.asyncDispose]();
  });

  test("comes from the token file, and HF_TOKEN is before it", async () => {
    await writeFile(join(home, "token"), "hf_file\n");
    await resolveModel(MODEL);
    assert.ok(tokens("hub").every((value) => value === "Bearer hf_file"));
    process.env["HF_TOKEN"] = "hf_variable";
    await resolveModel(MODEL);
    assert.equal(tokens("hub").at(-1), "Bearer hf_variable");
    process.env["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1";
    await resolveModel(MODEL);
    assert.equal(tokens("hub").at(-1), undefined);
  });

  test("never stands in an error", async () => {
    process.env["HF_TOKEN"] = "hf_sëcret";
    const error = await rejects(resolveModel(MODEL), "OPTION_INVALID");
    assert.ok(!`${error.stack}${String(error.cause)}`.includes("cret"));
  });
});

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

describe("without the network", () => {
  const ways = [
    ["HF_HUB_OFFLINE", { HF_HUB_OFFLINE: "1" }, {}],
    ["TRANSFORMERS_OFFLINE", { TRANSFORMERS_OFFLINE: "yes" }, {}],
    ["localFilesOnly", {}, { localFilesOnly: true }],
  ] as const;
  for (const [name, variables, options] of ways) {
    test(`(${name}) the cache is used, and what it lacks is said`, async () => {
      const path = await resolveModel(MODEL);
      Object.assign(process.env, variables);
      hub.requests.length = 0;
      assert.equal(await resolveModel(MODEL, options), path);
      assert.equal(await resolveModel(MODEL, { ...options, revision: model().commit }), path);
      const error = await rejects(resolveModel("candle/other", options), "MODEL_NOT_FOUND");
      assert.ok(error.message.includes(folder("candle/other")) && error.message.includes(name), error.message);
      await rejects(resolveModel(MODEL, { ...options, revision: "v2" }), "MODEL_NOT_FOUND");
      await rm(join(path, WEIGHTS));
      const partly = await rejects(resolveModel(MODEL, options), "MODEL_NOT_FOUND");
      assert.ok(partly.message.includes(WEIGHTS), partly.message);
      assert.equal(hub.requests.length, 0);
    });
  }

  test("HF_HUB_OFFLINE=0 is before TRANSFORMERS_OFFLINE", async () => {
    Object.assign(process.env, { HF_HUB_OFFLINE: "0", TRANSFORMERS_OFFLINE: "1" });
    await resolveModel(MODEL);
  });

  test("a shard that the index names and the folder lacks is missing", async () => {
    const path = join(folder(), "snapshots", model().commit);
    await mkdir(path, { recursive: true });
    await writeFile(join(path, "config.json"), "{}");
    const index = join(path, "model.safetensors.index.json");
    await writeFile(index, JSON.stringify({ weight_map: { a: "a.safetensors", b: "b.safetensors" } }));
    await writeFile(join(path, "a.safetensors"), "");
    const options = { localFilesOnly: true, revision: model().commit };
    await rejects(resolveModel(MODEL, options), "MODEL_NOT_FOUND", /b\.safetensors/);
    await writeFile(join(path, "b.safetensors"), "");
    assert.equal(await resolveModel(MODEL, options), path);
    await writeFile(index, JSON.stringify({ weight_map: { a: "../../../../secret" } }));
    await rejects(resolveModel(MODEL, options), "PATH_ESCAPE");
  });
});

describe("refusals", () => {
  test("an unknown model, revision or file is not found", async () => {
    await rejects(resolveModel("candle/nothing"), "MODEL_NOT_FOUND");
    await rejects(resolveModel(MODEL, { revision: "v9" }), "MODEL_NOT_FOUND");
    // The hub does not tell who asks without a token whether a private model exists.
    fail(1, /^GET hub \/api/, (_, response) => end(response, 401, { "x-error-code": "RepoNotFound" }));
    await rejects(resolveModel(MODEL), "MODEL_NOT_FOUND", /HF_TOKEN/);
    delete model().files[WEIGHTS];
    model().listed = ["config.json", WEIGHTS];
    await rejects(resolveModel(MODEL), "MODEL_NOT_FOUND");
  });

  for (const status of [401, 403]) {
    test(`a gated model (${status}), whose listing is public`, async () => {
      fail(Infinity, /hub .*resolve/, (_, response) => end(response, status, { "x-error-code": "GatedRepo" }));
      await rejects(resolveModel(MODEL), "MODEL_GATED");
      assert.ok(hub.downloads().every((line) => line.startsWith("HEAD")));
    });
  }

  test("what does not speak as a hub does", async () => {
    const nameless = JSON.stringify({ sha: model().commit, siblings: [{ rfilename: 3 }] });
    const answers = ["<html>", "null", "{}", '{"sha":"../../x","siblings":[]}', nameless];
    for (const body of answers) {
      fail(1, /^GET hub \/api/, (_, response) => response.writeHead(200).end(body));
      await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED");
    }
    const descriptions: [Record<string, string>, RegExp][] = [
      [{ etag: '"x"', "content-length": "1" }, /X-Repo-Commit/],
      [{ etag: '"x"', "content-length": "1", "x-repo-commit": commitOf("another") }, /X-Repo-Commit/],
      [{ "content-length": "1", "x-repo-commit": model().commit }, /ETag/],
      [{ etag: '"x"', "x-linked-size": "many", "x-repo-commit": model().commit }, /how large/],
    ];
    for (const [headers, message] of descriptions) {
      hub.faults.length = 0;
      fail(Infinity, /^HEAD/, (_, response) => end(response, 200, headers));
      await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED", message);
    }
  });

  test("another commit than was asked for", async () => {
    const asked = commitOf("asked");
    fail(1, /^GET hub \/api/, (_, response) => response.end(JSON.stringify({ sha: model().commit, siblings: [] })));
    await rejects(resolveModel(MODEL, { revision: asked }), "DOWNLOAD_FAILED", new RegExp(asked));
  });

  test("redirects without end, or to what is not http", async () => {
    for (const location of [`/api/models/${MODEL}/revision/main`, "ftp://127.0.0.1/x", "http://"]) {
      hub.faults.length = 0;
      fail(Infinity, /^GET hub \/api/, (_, response) => end(response, 302, { location }));
      await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED");
    }
    assert.ok(hub.requests.length < 20);
    const connection = { model: MODEL, settings: await readSettings(), signal: undefined };
    assert.throws(() => redirected(connection, new URL("https://a/b"), "http://a/b"), { code: "DOWNLOAD_FAILED" });
    assert.equal(redirected(connection, new URL("https://a/b"), "/c").href, "https://a/c");
  });
});

describe("names from the server", () => {
  const evil = [
    "../evil.safetensors",
    "a/../../evil.json",
    "/evil.safetensors",
    "C:/evil.safetensors",
    "a/C:evil",
    "..\\evil.safetensors",
    "\\\\host\\evil",
    "evil\0.json",
  ];
  for (const name of evil) {
    test(`${JSON.stringify(name)} is refused with its whole listing`, async () => {
      model().listed = [...Object.keys(model().files), name];
      const before = await filesBelow(home);
      await rejects(resolveModel(MODEL), "PATH_ESCAPE");
      assert.deepEqual(hub.downloads(), []);
      assert.deepEqual(await filesBelow(home), before);
    });
  }

  test("a backslash is refused in a file that is needed and ignored in another", async () => {
    model().files["onnx\\model.onnx"] = Buffer.from("x");
    await resolveModel(MODEL);
    delete model().files[WEIGHTS];
    model().files["model.safetensors.index.json"] = Buffer.from('{"weight_map":{"a":"a\\\\b.safetensors"}}');
    model().files["a\\b.safetensors"] = Buffer.from("x");
    model().commit = commitOf("two");
    await rejects(resolveModel(MODEL), "PATH_ESCAPE");
  });

  for (const etag of ['"../../evil"', '"a/b"', '".."', '"a\\b"', `"${"a".repeat(200)}"`, '"x.incomplete"']) {
    test(`the etag ${etag.slice(0, 20)} is refused`, async () => {
      const headers = { etag, "x-linked-size": "1", "x-repo-commit": model().commit };
      fail(Infinity, /^HEAD/, (_, response) => end(response, 200, headers));
      await rejects(resolveModel(MODEL), "PATH_ESCAPE");
      assert.deepEqual(await filesBelow(home), []);
    });
  }

  test("a weak etag is the etag", async () => {
    const bytes = model().files["config.json"]!;
    const headers = { etag: 'W/"weak-1"', "content-length": String(bytes.byteLength), "x-repo-commit": model().commit };
    fail(2, /hub .*resolve\/.*\/config.json/, (request, response) => {
      response.writeHead(200, headers).end(request.method === "HEAD" ? undefined : bytes);
    });
    await resolveModel(MODEL);
    assert.ok((await blobs()).includes("weak-1"));
  });
});

describe("a failing network", () => {
  test("5xx and 429 are tried again", async () => {
    fail(1, /^GET hub \/api/, (_, response) => end(response, 503));
    fail(1, /^HEAD hub .*config.json/, (_, response) => end(response, 429, { "retry-after": "0" }));
    fail(2, BODY, (_, response) => end(response, 502));
    await resolveModel(MODEL);
    assert.equal(bodies().length, 3);
  });

  test("not before the server says", async () => {
    let refused = 0;
    let asked = 0;
    fail(1, BODY, (_, response) => {
      end(response, 503, { "retry-after": "0.5" });
      refused = performance.now();
    });
    hub.faults.push(({ host }) => {
      if (host === "storage") asked = performance.now();
    });
    await resolveModel(MODEL);
    assert.ok(asked - refused > 450);
  });

  test("but not for ever", async () => {
    fail(Infinity, /./, (_, response) => end(response, 500, { "retry-after": "0" }));
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED", /500/);
    assert.equal(hub.requests.length, 5);
    process.env["HF_ENDPOINT"] = "http://127.0.0.1:9";
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED");
  });

  test("other refusals are not tried again", async () => {
    fail(Infinity, /./, (_, response) => end(response, 400));
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED", /400/);
    assert.equal(hub.requests.length, 1);
  });

  test("an address that expired is asked for anew", async () => {
    fail(1, BODY, (_, response) => end(response, 403));
    await resolveModel(MODEL);
    assert.equal(bodies().length, 2);
  });

  test("a cut body goes on where it was cut", async () => {
    fail(1, BODY, cutAt(70_000));
    const path = await resolveModel(MODEL);
    assert.deepEqual(await readFile(join(path, WEIGHTS)), weights());
    assert.deepEqual(ranges(), [undefined, "bytes=70000-"]);
    assert.ok((await blobs()).every((name) => !name.endsWith(".incomplete")));
  });

  test("a server without ranges sends it all again", async () => {
    fail(1, BODY, cutAt(70_000));
    fail(1, BODY, (_, response) => response.writeHead(200).end(weights()));
    assert.deepEqual(await readFile(join(await resolveModel(MODEL), WEIGHTS)), weights());
    assert.deepEqual(ranges(), [undefined, "bytes=70000-"]);
  });

  test("a range that was not asked for is not appended", async () => {
    const bytes = model().files["config.json"]!;
    await leave("idle", "config.json", bytes.subarray(0, 5));
    fail(1, /^GET hub .*:config.json/, (_, response) => {
      const range = `bytes 0-${bytes.byteLength - 6}/${bytes.byteLength}`;
      response.writeHead(206, { "content-range": range }).end(bytes.subarray(0, bytes.byteLength - 5));
    });
    assert.deepEqual(await readFile(join(await resolveModel(MODEL), "config.json")), bytes);
  });

  test("what came before a failure is used by the next call", async () => {
    fail(1, BODY, cutAt(70_000));
    fail(4, BODY, (_, response) => response.destroy());
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED");
    assert.ok((await blobs()).includes(`${sha256(weights())}.idle.incomplete`));
    hub.requests.length = 0;
    await resolveModel(MODEL);
    assert.deepEqual(ranges(), ["bytes=70000-"]);
  });

  test("much that came each time counts as no failure", async () => {
    model().files[WEIGHTS] = Buffer.alloc(9_000_000, "candle");
    fail(7, BODY, cutAt(1_200_000, true));
    await resolveModel(MODEL);
    assert.equal(bodies().length, 8);
  });

  test("but the same bytes again and again do", async () => {
    model().files[WEIGHTS] = Buffer.alloc(3_000_000, "candle");
    fail(Infinity, BODY, cutAt(2_000_000));
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED");
    assert.equal(bodies().length, 5);
  });

  test("a body that is too short is no file", async () => {
    fail(Infinity, BODY, (_, response) => response.writeHead(200).end(weights().subarray(0, 100)));
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED", /100 of 200000/);
    assert.ok(!existsSync(blobOf(WEIGHTS)));
  });

  test("a body that is too long is stopped and leaves nothing", async () => {
    let sent = 0;
    fail(1, BODY, (_, response) => {
      response.writeHead(200);
      const more = (): void => {
        sent += 65_536;
        if (!response.destroyed) response.write(Buffer.alloc(65_536), () => setImmediate(more));
      };
      more();
    });
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED", /200000/);
    assert.ok(sent < 50_000_000);
    assert.ok(!(await blobs()).some((name) => name.startsWith(sha256(weights()))));
  });

  test("bytes with another hash are no file", async () => {
    fail(Infinity, BODY, (_, response) => response.writeHead(200).end(Buffer.alloc(weights().byteLength)));
    await rejects(resolveModel(MODEL), "DOWNLOAD_FAILED", /SHA-256/);
    assert.ok(!(await blobs()).some((name) => name.startsWith(sha256(weights()))));
    assert.equal(bodies().length, 1);
  });

  test("a part with wrong bytes is thrown away", async () => {
    await leave("idle", WEIGHTS, Buffer.alloc(1000));
    assert.deepEqual(await readFile(join(await resolveModel(MODEL), WEIGHTS)), weights());
    assert.deepEqual(ranges(), ["bytes=1000-", undefined]);
  });

  test("a part with more than the file has is thrown away", async () => {
    const bytes = model().files["config.json"]!;
    await leave("idle", "config.json", Buffer.concat([bytes, Buffer.from(" ")]));
    assert.deepEqual(await readFile(join(await resolveModel(MODEL), "config.json")), bytes);
  });

  test("a server that falls silent is left", async () => {
    process.env["HF_HUB_DOWNLOAD_TIMEOUT"] = "1";
    fail(1, BODY, (_, response) => {
      response.writeHead(200).flushHeaders();
    });
    fail(1, BODY, (_, response) => {
      response.writeHead(200).write(weights().subarray(0, 1000));
    });
    fail(1, /^HEAD hub .*config.json/, () => {});
    await resolveModel(MODEL);
    assert.deepEqual(ranges(), [undefined, undefined, "bytes=1000-"]);
  });
});

describe("abandoned parts", () => {
  const host = sha256(Buffer.from(hostname())).slice(0, 8);
  const ended = async () => (await run(process.execPath, ["-p", "process.pid"])).stdout.trim();

  test("of a process that has ended are used", async () => {
    await leave(`${host}-${await ended()}-abcdef01`);
    await resolveModel(MODEL);
    assert.deepEqual(ranges(), ["bytes=5000-"]);
    assert.ok((await blobs()).every((name) => !name.endsWith(".incomplete")));
  });

  test("that are old are used, whoever left them", async () => {
    const old = new Date(Date.now() - 2 * 3_600_000);
    await leave("01234567", undefined, undefined, old); // As huggingface_hub names them.
    await leave(`ffffffff-${process.pid}-abcdef01`, undefined, undefined, old);
    await resolveModel(MODEL);
    assert.deepEqual(ranges(), ["bytes=5000-"]);
    assert.ok((await blobs()).every((name) => !name.endsWith(".incomplete")));
  });

  test("are not those that someone may be writing", async () => {
    for (const owner of [`${host}-${process.pid}-abcdef01`, `ffffffff-${await ended()}-abcdef01`, "01234567"]) await leave(owner);
    await resolveModel(MODEL);
    assert.deepEqual(ranges(), [undefined]);
    assert.equal((await blobs()).filter((name) => name.endsWith(".incomplete")).length, 3);
  });
});

describe("a signal", () => {
  test("that is aborted stops everything before it begins", async () => {
    const error = await rejects(resolveModel(MODEL, { signal: AbortSignal.abort("why") }), "ABORTED");
    assert.equal(error.cause, "why");
    await rejects(resolveModel(home, { signal: AbortSignal.abort() }), "ABORTED");
    assert.equal(hub.requests.length, 0);
  });

  const places: [string, RegExp, Answer][] = [
    ["the listing", /^GET hub \/api/, () => {}],
    ["a slow body", BODY, (_, response) => response.writeHead(200).write(weights().subarray(0, 1000))],
    ["a pause between tries", BODY, (_, response) => end(response, 503, { "retry-after": "20" })],
  ];
  for (const [name, where, answer] of places) {
    test(`ends ${name} without another request`, async () => {
      const controller = new AbortController();
      let asked = 0;
      fail(Infinity, where, (request, response) => {
        asked++;
        answer(request, response);
        setTimeout(() => controller.abort(), 100);
      });
      await rejects(resolveModel(MODEL, { signal: controller.signal }), "ABORTED");
      assert.equal(asked, 1);
    });
  }

  test("of another make than Node's is followed, and left after the call", async () => {
    const controller = new AbortController();
    const listeners = new Set<unknown>();
    const foreign = {
      get aborted() {
        return controller.signal.aborted;
      },
      get reason() {
        return controller.signal.reason;
      },
      addEventListener(type: string, listener: () => void) {
        listeners.add(listener);
        controller.signal.addEventListener(type, listener);
      },
      removeEventListener(type: string, listener: () => void) {
        listeners.delete(listener);
        controller.signal.removeEventListener(type, listener);
      },
    } as unknown as AbortSignal;
    await resolveModel(MODEL, { signal: foreign });
    assert.equal(listeners.size, 0);
    fail(1, /^GET hub \/api/, () => controller.abort("why"));
    const error = await rejects(resolveModel(MODEL, { signal: foreign }), "ABORTED");
    assert.equal(error.cause, "why");
    const incomplete = { aborted: false, addEventListener() {} } as unknown as AbortSignal;
    await rejects(resolveModel(MODEL, { signal: incomplete }), "OPTION_INVALID");
  });

  test("is not mistaken for a hub that does not answer", async () => {
    await resolveModel(MODEL);
    const controller = new AbortController();
    fail(1, /^GET hub \/api/, () => controller.abort());
    await rejects(resolveModel(MODEL, { signal: controller.signal }), "ABORTED");
  });

  test("leaves what came for the next call, and a later abort leaves the result", async () => {
    const controller = new AbortController();
    fail(1, BODY, (_, response) => {
      response.writeHead(200).write(weights().subarray(0, 1000));
      void received(1000).finally(() => controller.abort());
    });
    await rejects(resolveModel(MODEL, { signal: controller.signal }), "ABORTED");
    const later = new AbortController();
    hub.requests.length = 0;
    const path = await resolveModel(MODEL, { signal: later.signal });
    later.abort();
    assert.equal(hub.requests.find(({ host }) => host === "storage")!.range, "bytes=1000-");
    assert.deepEqual(await readFile(join(path, WEIGHTS)), weights());
  });

  test("of one call does not end another's", async () => {
    let finish = (): void => {};
    const first = new Promise<void>((begun) => {
      fail(1, BODY, (_, response) => {
        response.writeHead(200).write(weights().subarray(0, 1000));
        finish = () => void response.end(weights().subarray(1000));
        begun();
      });
    });
    const controller = new AbortController();
    const patient = resolveModel(MODEL);
    await first;
    const other = resolveModel(MODEL, { signal: controller.signal });
    // Its own look at the weights, after which it waits.
    while (hub.downloads().filter((line) => line.startsWith("HEAD") && line.endsWith(WEIGHTS)).length < 2) await sleep(5);
    await sleep(50);
    controller.abort();
    // Before the bytes that it waits for have come.
    await rejects(other, "ABORTED");
    assert.equal(bodies().length, 1);
    finish();
    assert.deepEqual(await readFile(join(await patient, WEIGHTS)), weights());
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

const python = join(homedir(), ".cache", "candlewick", "venv", "bin", "python");
const skip = existsSync(python) ? false : `no ${python.replace(homedir(), "~")}, so the cross-check did not run`;

async function askPython(script: string, variables: NodeJS.ProcessEnv = {}): Promise<string> {
  const quiet = { HF_HUB_DISABLE_TELEMETRY: "1", HF_HUB_DISABLE_PROGRESS_BARS: "1" };
  const { stdout } = await run(python, ["-c", script], { env: { ...process.env, ...quiet, ...variables } });
  return stdout.trim();
}

describe("huggingface_hub in Python", { skip }, () => {
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
