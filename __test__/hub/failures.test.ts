/** Connections that fail, and what they leave behind. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, test } from "vitest";
import { resolveModel } from "../../src/hub.js";
import { end, sha256 } from "../support/hub-server.js";
import { MODEL, WEIGHTS, hub, model, weights, blobOf, bodies, ranges, leave, blobs, rejects, fail, BODY, cutAt } from "../support/hub-fixture.js";

const run = promisify(execFile);

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
