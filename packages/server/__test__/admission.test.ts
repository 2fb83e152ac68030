/** An end to waiting: what is refused, when it may come again, and that it has a place then. */
import assert from "node:assert/strict";
import { loadGPT2 } from "candlewick";
import { describe, test } from "vitest";
import { randomModel } from "../../../__test__/support/models.js";
import { Gate } from "../src/admission.js";
import type { ApiError } from "../src/errors.js";
import { post, refused, shipped, startServer, until } from "./support/server.js";

/** A gate whose clock the test turns. 1,000 tokens a second are done, once it has seen that. */
function gate(leastTokens = 1_000) {
  let now = 0;
  const made = new Gate({ maxWaitMs: 10_000, leastTokens, mostOfOne: 100_000, now: () => now });
  return {
    gate: made,
    wait: (milliseconds: number) => (now += milliseconds),
    /** So many tokens a second from now on. */
    measure(speed: number) {
      for (let second = 0; second < 60; second++) {
        const leave = made.enter(speed, () => "measuring");
        now += 1_000;
        leave();
      }
    },
  };
}

function refusal(enter: () => unknown): { status: number; code: string; seconds: number; milliseconds: number } {
  try {
    enter();
  } catch (error) {
    const { status, code, headers } = error as ApiError;
    return { status, code, seconds: Number(headers["retry-after"]), milliseconds: Number(headers["retry-after-ms"]) };
  }
  throw new Error("It was not refused");
}

describe("the gate", () => {
  test("lets in what the model does in ten seconds", () => {
    const { gate: own, measure } = gate();
    assert.equal(own.bound, 1_000, "before anything is known");
    measure(900);
    assert.ok(own.bound > 8_000 && own.bound < 10_000, String(own.bound));
    const leaves = Array.from({ length: 8 }, (_, i) => own.enter(1_000, () => `${i}`));
    assert.equal(own.tokens, 8_000);
    assert.equal(refusal(() => own.enter(2_000, () => "more")).status, 429);
    leaves[0]!();
    leaves[0]!();
    assert.equal(own.tokens, 7_000, "leaving twice is leaving once");
  });

  test("lets in whoever comes to an idle model, whatever it asks up to the most", () => {
    const { gate: own } = gate();
    own.enter(50_000, () => "large")();
    const { status, code } = refusal(() => own.enter(100_001, () => "too large"));
    assert.deepEqual([status, code], [400, "too_many_tokens"]);
  });

  test("what is above the bound is shared out among callers: many bodies of one leave the others theirs", () => {
    const { gate: own, wait, measure } = gate();
    measure(1_000);
    own.enter(own.bound, () => "all");
    for (let i = 0; i < 60; i++) refusal(() => own.enter(1_000, () => `many ${i}`, "greedy"));
    refusal(() => own.enter(1_000, () => "one", "modest"));
    wait(59_000);
    let entered = 0;
    for (let i = 0; i < 60; i++) {
      try {
        own.enter(1_000, () => `many ${i}`, "greedy");
        entered++;
      } catch {
        // Told to wait again.
      }
    }
    assert.ok(entered >= 10 && entered <= 20, String(entered));
    own.enter(1_000, () => "one", "modest");
  });

  test("says when to come again: from 1 to 59 seconds, never in the same instant", () => {
    const { gate: own, measure } = gate();
    measure(900);
    own.enter(9_000, () => "runs");
    const waits = Array.from({ length: 200 }, (_, i) => refusal(() => own.enter(500, () => `${i}`)));
    for (const { seconds, milliseconds } of waits) {
      assert.ok(seconds >= 1 && seconds <= 59, String(seconds));
      assert.ok(milliseconds >= 1_000 && milliseconds <= 59_000 && Math.ceil(milliseconds / 1_000) === seconds);
    }
    assert.ok(new Set(waits.map(({ milliseconds }) => milliseconds)).size > 50, "jittered");
    assert.ok(waits[20]!.milliseconds > waits[0]!.milliseconds, "who comes later waits longer");
  });

  test("keeps a place for who comes again, and newcomers do not take it", () => {
    const { gate: own, measure, wait } = gate();
    measure(1_000);
    const leave = own.enter(own.bound, () => "all");
    assert.ok(refusal(() => own.enter(1_000, () => "patient")).milliseconds <= 10_000);
    wait(10_000);
    leave();
    // Places are free, and one of them is kept.
    const others: (() => void)[] = [];
    for (let i = 0; own.tokens + 2_000 <= own.bound; i++) others.push(own.enter(1_000, () => `new ${i}`));
    assert.equal(refusal(() => own.enter(1_000, () => "newcomer")).status, 429);
    own.enter(1_000, () => "patient");
    others.forEach((other) => other());
  });

  test("who comes too early is told the rest of its wait, and keeps its place", () => {
    const { gate: own, measure, wait } = gate();
    measure(1_000);
    own.enter(own.bound, () => "all");
    const first = refusal(() => own.enter(5_000, () => "hasty"));
    wait(2_000);
    const second = refusal(() => own.enter(5_000, () => "hasty"));
    assert.ok(second.milliseconds < first.milliseconds);
  });

  test("forgets who does not come", () => {
    const { gate: own, measure, wait } = gate();
    measure(1_000);
    const leave = own.enter(own.bound, () => "all");
    for (let i = 0; i < 5; i++) refusal(() => own.enter(1_000, () => `gone ${i}`));
    leave();
    wait(120_000);
    for (let i = 0; i < 9; i++) own.enter(1_000, () => `new ${i}`);
  });

  /** Clients that come to a model of 1,000 tokens a second, each for 1,000 tokens; what became of those who waited. */
  function rush(seconds: number, come: (now: number, ask: (name: string) => { end?: number; wait?: number }) => void) {
    const { gate: own, measure, wait } = gate();
    measure(1_000);
    const running: { end: number; leave: () => void }[] = [];
    let done = 0;
    for (let now = 0; now < seconds * 1_000; now += 50, wait(50)) {
      while (running.length > 0 && running[0]!.end <= now) {
        running.shift()!.leave();
        done++;
      }
      /** When its answer will be over, or how long it has to wait. */
      come(now, (name) => {
        try {
          const leave = own.enter(1_000, () => name);
          // One after the other: the model's speed is that of all together.
          const end = Math.max(now, running.at(-1)?.end ?? 0) + 1_000;
          running.push({ end, leave });
          return { end };
        } catch (error) {
          return { wait: Number((error as ApiError).headers["retry-after-ms"]) };
        }
      });
    }
    return { done };
  }

  test("ten times as many clients as there is room for, who wait as they are told, get in", () => {
    let [again, admitted] = [0, 0];
    const clients = Array.from({ length: 100 }, (_, id) => ({ id, at: id, told: false, round: 0 }));
    const { done } = rush(600, (now, ask) => {
      for (const client of clients.filter(({ at }) => at <= now)) {
        const { end, wait } = ask(`${client.id} ${client.round}`);
        if (client.told) again++;
        if (client.told && end !== undefined) admitted++;
        Object.assign(client, end === undefined ? { at: now + wait!, told: true } : { at: end, told: false, round: client.round + 1 });
      }
    });
    assert.ok(again > 200 && admitted / again >= 0.9, `${admitted} of ${again} who waited were let in`);
    assert.ok(done >= 570, `${done} of 600 were done`);
  });

  test("among ten times as many as can be served, of whom one in twenty waits, those who wait get in", () => {
    let [again, admitted, count] = [0, 0, 0];
    let waiting: { name: string; at: number }[] = [];
    const { done } = rush(600, (now, ask) => {
      for (const { name } of waiting.filter(({ at }) => at <= now)) {
        again++;
        if (ask(name).end !== undefined) admitted++;
      }
      waiting = waiting.filter(({ at }) => at > now);
      for (let fresh = 0; fresh < (now % 100 === 0 ? 1 : 0); fresh++) {
        const name = `${count++}`;
        const { wait } = ask(name);
        if (wait !== undefined && count % 20 === 0) waiting.push({ name, at: now + wait });
      }
    });
    assert.ok(again > 200 && admitted / again >= 0.9, `${admitted} of ${again} who waited were let in`);
    assert.ok(done >= 570, `${done} of 600 were done`);
  });
});

test("beyond its bound the server answers 429, and serves those it has", async () => {
  const endless = await loadGPT2(randomModel({ n_positions: 2_048 }), { threads: 1 });
  await using server = await startServer({ models: { endless }, maxWaitMs: 100 });
  const body = { model: "endless", prompt: "abc", max_tokens: 1_900, ignore_eos: true };
  const controller = new AbortController();
  const running = Array.from({ length: 8 }, () => post(server.url, "/v1/completions", body, { signal: controller.signal }).catch(() => {}));
  await until(() => endless.stats().running >= 8, "they run");
  const { status, error, headers } = await refused(server.url, "/v1/completions", body);
  assert.deepEqual([status, error["type"], error["code"]], [429, "rate_limit_error", "rate_limit_exceeded"]);
  assert.ok(Number(headers.get("retry-after")) >= 1);
  const large = await refused(server.url, "/v1/completions", { ...body, prompt: Array.from({ length: 30 }, () => "x"), n: 64 });
  assert.deepEqual([large.status, large.error["code"]], [400, "too_many_tokens"], "nothing is allocated for it");
  controller.abort();
  await Promise.all(running);
  await until(() => endless.stats().running === 0, "nothing runs");
  await endless.close();
});

test("the engine's own full queue is 429 too", async () => {
  const tiny = await loadGPT2(shipped("default"), { threads: 1, maxQueuedTokens: 40 });
  await using server = await startServer({ models: { tiny } });
  const body = { model: "tiny", prompt: Array.from({ length: 40 }, (_, i) => `prompt number ${i}`), max_tokens: 1 };
  const { status, headers, error } = await refused(server.url, "/v1/completions", body);
  assert.deepEqual([status, error["code"]], [429, "rate_limit_exceeded"]);
  assert.ok(Number(headers.get("retry-after")) >= 1 && Number(headers.get("retry-after")) <= 59);
  await tiny.close();
});
