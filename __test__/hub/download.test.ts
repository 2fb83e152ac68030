/** What is downloaded, and how it is laid out. */
import assert from "node:assert/strict";
import { type Stats } from "node:fs";
import { lstat, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { describe, test } from "vitest";
import { resolveModel, type DownloadProgress } from "../../src/hub.js";
import { hubCache } from "../../src/hub/settings.js";
import { commitOf, end, etagOf } from "../support/hub-server.js";
import { MODEL, WEIGHTS, NEEDED, home, cache, hub, folder, model, weights, blobOf, filesBelow, bodies, blobs, rejects, fail, BODY } from "../support/hub-fixture.js";

const json = (value: unknown) => Buffer.from(JSON.stringify(value));

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

  test("of shards of pytorch_model.bin takes the index and what it names", async () => {
    const { files } = model();
    const shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
    files["pytorch_model.bin.index.json"] = json({ weight_map: { a: shards[0], b: shards[1], c: shards[1] } });
    for (const name of [...shards, "optimizer.bin"]) files[name] = Buffer.from(name);
    delete files[WEIGHTS];
    delete files["pytorch_model.bin"];
    const names = await filesBelow(await resolveModel(MODEL));
    assert.deepEqual(names.filter((name) => name.includes(".bin")), [...shards, "pytorch_model.bin.index.json"]);
    delete files[shards[1]!];
    model().commit = commitOf("less");
    await rejects(resolveModel(MODEL), "MODEL_NOT_FOUND", /00002-of-00002/);
  });

  const module = (kind: string, path: string) => ({ type: `sentence_transformers.models.${kind}`, path });

  test("of a sentence-transformers model takes what modules.json names, wherever that is, and nothing else heavy", async () => {
    const { files } = model();
    files["modules.json"] = json([module("Transformer", ""), module("Pooling", "pool/main"), module("Dense", "2_Dense"), module("Normalize", "3_Normalize")]);
    files["pool/main/config.json"] = json({ pooling_mode_mean_tokens: true });
    for (const name of ["config.json", "model.safetensors", "pytorch_model.bin"]) files[`2_Dense/${name}`] = Buffer.from(name);
    files["9_Other/model.safetensors"] = Buffer.from("not named");
    files["sentence_roberta_config.json"] = json({ max_seq_length: 8 });
    const more = ["2_Dense/config.json", "2_Dense/model.safetensors", "modules.json", "pool/main/config.json", "sentence_roberta_config.json"];
    assert.deepEqual(await filesBelow(await resolveModel(MODEL)), [...NEEDED, ...more].toSorted());
    // A cache that an older version left without a module's files is not whole, and the next load fills it.
    const { commit } = model();
    await rm(join(folder(), "snapshots", commit, "2_Dense"), { recursive: true });
    await rejects(resolveModel(MODEL, { localFilesOnly: true }), "MODEL_NOT_FOUND", /2_Dense/);
    const path = await resolveModel(MODEL);
    assert.ok((await filesBelow(path)).includes("2_Dense/model.safetensors"));
    hub.requests.length = 0;
    assert.equal(await resolveModel(MODEL, { revision: commit }), path);
    assert.equal(hub.requests.length, 0, "a commit that is cached whole needs no network");
  });

  test("of the older layout takes the model from the folder that modules.json names", async () => {
    const { files } = model();
    files["modules.json"] = json([module("Transformer", "0_Transformer"), module("Pooling", "1_Pooling")]);
    for (const name of ["config.json", "pytorch_model.bin", "vocab.txt", "sentence_bert_config.json"]) files[`0_Transformer/${name}`] = Buffer.from(name);
    for (const name of ["config.json", "tokenizer.json", "generation_config.json", WEIGHTS, "pytorch_model.bin"]) delete files[name];
    const inner = ["config.json", "pytorch_model.bin", "sentence_bert_config.json", "vocab.txt"].map((name) => `0_Transformer/${name}`);
    const path = await resolveModel(MODEL);
    assert.deepEqual(await filesBelow(path), [...inner, "1_Pooling/config.json", "modules.json"]);
    assert.equal(await resolveModel(MODEL, { localFilesOnly: true }), path);
    delete files["0_Transformer/config.json"];
    model().commit = commitOf("headless");
    await rejects(resolveModel(MODEL), "MODEL_NOT_FOUND", /0_Transformer/);
  });

  test("of modules that lead out of the folder takes nothing", async () => {
    model().files["modules.json"] = json([module("Pooling", "../../etc")]);
    await rejects(resolveModel(MODEL), "PATH_ESCAPE");
    assert.equal(bodies().length, 0);
  });

  test("takes an adapter's weights in either format", async () => {
    const { files } = model();
    files["adapter_config.json"] = json({ base_model_name_or_path: "x" });
    files["adapter_model.bin"] = Buffer.from("bin");
    const names = await filesBelow(await resolveModel(MODEL));
    assert.ok(names.includes("adapter_model.bin") && !names.includes(WEIGHTS), names.join());
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

  test("of SentencePiece's vocabulary alone says what to do, before any file", async () => {
    const { files } = model();
    for (const name of ["tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"]) delete files[name];
    files["sentencepiece.bpe.model"] = Buffer.from("x");
    await rejects(resolveModel(MODEL), "TOKENIZER_INVALID", /AutoTokenizer/);
    assert.deepEqual(hub.downloads(), []);
    files["tokenizer.json"] = Buffer.from("{}");
    const names = await filesBelow(await resolveModel(MODEL));
    assert.ok(names.includes("tokenizer.json") && !names.includes("sentencepiece.bpe.model"), names.join());
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
