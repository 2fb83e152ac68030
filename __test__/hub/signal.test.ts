/** A download that is aborted. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test } from "vitest";
import { resolveModel } from "../../src/hub.js";
import { end } from "../support/hub-server.js";
import { MODEL, WEIGHTS, home, hub, weights, bodies, rejects, type Answer, fail, BODY, received } from "../support/hub-fixture.js";

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
