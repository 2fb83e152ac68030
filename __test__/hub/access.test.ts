/** Who may have what: tokens, refusals, and a hub that must not be asked. */
import assert from "node:assert/strict";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "vitest";
import { resolveModel } from "../../src/hub.js";
import { redirected } from "../../src/hub/http.js";
import { readSettings } from "../../src/hub/settings.js";
import { commitOf, end, startHub } from "../support/hub-server.js";
import { MODEL, WEIGHTS, home, hub, folder, model, tokens, rejects, fail } from "../support/hub-fixture.js";

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
