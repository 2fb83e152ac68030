/**
 * What token streams and training runs share, over a source whose answers a test gives one by one; then on the real
 * ones.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, test } from "vitest";
import { CandlewickError, finetune, type FinetuneEvent, type GPT2, loadGPT2 } from "../index.js";
import { EventStream, type Source } from "../src/event-stream.js";
import { collect, hasCode } from "./support/assertions.js";
import { trainingOptions } from "./support/kills.js";
import { randomModel } from "./support/models.js";

const failure = () => new CandlewickError("INTERNAL", "it failed");

/** Gives what it is told to give, and counts how often it is asked. */
class Scripted implements Source<number> {
  asked = 0;
  readonly #answers: (readonly number[] | null | Error)[];
  #blocked: (() => void) | undefined;

  constructor(answers: readonly (readonly number[] | null | Error)[]) {
    this.#answers = [...answers];
  }

  async next(): Promise<readonly number[] | null> {
    this.asked++;
    if (this.#answers.length === 0) await new Promise<void>((resolve) => (this.#blocked = resolve));
    await sleep(0);
    const answer = this.#answers.shift() ?? null;
    if (answer instanceof Error) throw answer;
    return answer;
  }

  /** Lets a call that waits after the last answer end. */
  unblock(): void {
    this.#blocked?.();
  }
}

class Numbers extends EventStream<number, string> {
  total = 0;

  constructor(opened: Source<number> | Promise<Source<number>>) {
    super(Promise.resolve(opened));
  }

  cancel(): void {
    this.drop();
    this.end();
  }

  abortWith(signal: AbortSignal): void {
    this.listen(signal, () => this.end(new CandlewickError("ABORTED", "aborted")));
  }

  protected override arrived(items: readonly number[]): readonly number[] {
    for (const item of items) this.total += item;
    return items;
  }

  protected async finish(error: CandlewickError | undefined): Promise<string> {
    if (error) throw error;
    return `total ${this.total}`;
  }
}

const scripted = (...answers: (readonly number[] | null | Error)[]) => {
  const source = new Scripted(answers);
  return { source, stream: new Numbers(source) };
};
/** Settles within a second, or the test fails: what hangs should not take the test's whole time. */
const soon = <T>(promise: Promise<T>): Promise<T> =>
  Promise.race([promise, sleep(1000, undefined, { ref: false }).then(() => assert.fail("it has not settled after a second"))]);

/** The ways to have begun to read before the result is asked for. */
const beginnings: [string, (stream: Numbers) => unknown][] = [
  ["nothing", () => {}],
  ["a pending next", (stream) => stream.next()],
  ["two pending nexts", (stream) => [stream.next(), stream.next()]],
  ["a next that was served", (stream) => stream.next()],
  ["an iterator", (stream) => stream[Symbol.asyncIterator]()],
  ["an iterator with a pending next", (stream) => stream[Symbol.asyncIterator]().next()],
  ["an iterator that read one item", async (stream) => await stream[Symbol.asyncIterator]().next()],
  ["an iterator that read all", (stream) => collect(stream)],
  ["a first request of the result", (stream) => stream.result],
];
const ends: [string, (readonly number[] | null | Error)[], "total 6" | "INTERNAL"][] = [
  ["comes to its end", [[1, 2], [3], null], "total 6"],
  ["fails after some items", [[1, 2], failure()], "INTERNAL"],
  ["fails at once", [failure()], "INTERNAL"],
];

describe("the result settles", () => {
  for (const [how, begin] of beginnings) {
    for (const [what, answers, expected] of ends) {
      test(`after ${how}, of a stream that ${what}`, async () => {
        const { stream } = scripted(...answers);
        const begun = begin(stream);
        await Promise.allSettled([begun].flat().slice(0, how.includes("pending") || how.includes("request") ? 0 : 1));
        const ignored = [begun].flat().map((value) => Promise.resolve(value).catch(() => {}));
        const result = soon(stream.result);
        if (expected === "INTERNAL") await assert.rejects(result, hasCode("INTERNAL"));
        else assert.equal(await result, expected);
        await soon(Promise.all(ignored.filter((_, i) => !(begun instanceof Numbers) || i > 0)));
      });
    }
  }

  test("when the source cannot be opened, and no rejection is unhandled", async () => {
    const unhandled: unknown[] = [];
    const listener = (error: unknown) => unhandled.push(error);
    process.on("unhandledRejection", listener);
    const stream = new Numbers(Promise.reject(failure()));
    await sleep(20);
    process.off("unhandledRejection", listener);
    assert.deepEqual(unhandled, []);
    await assert.rejects(soon(stream.next()), hasCode("INTERNAL"));
    assert.deepEqual(await stream.next(), { value: undefined, done: true }, "an error is thrown once");
    await assert.rejects(soon(stream.result), hasCode("INTERNAL"));
  });
});

describe("reading", () => {
  test("overlapping calls of next are served in order, across batches and beyond the end", async () => {
    const { stream } = scripted([1, 2], [3], null);
    const results = await soon(Promise.all(Array.from({ length: 5 }, () => stream.next())));
    assert.deepEqual(results.map(({ value }) => value), [1, 2, 3, undefined, undefined]);
  });

  test("nothing is fetched before somebody reads, and no more than is waited for", async () => {
    const { source, stream } = scripted([1], [2], [3], null);
    await sleep(5);
    assert.equal(source.asked, 0);
    await stream.next();
    await sleep(5);
    assert.equal(source.asked, 1);
  });

  test("a reader that iterates sets the pace again after the result was asked for", async () => {
    const many = Array.from({ length: 50 }, (_, i) => [i]);
    const { source, stream } = scripted(...many, null);
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const result = stream.result;
    await iterator.next();
    const asked = source.asked;
    await sleep(30);
    assert.ok(source.asked <= asked + 1, `${source.asked - asked} fetches without a reader`);
    for await (const _ of { [Symbol.asyncIterator]: () => iterator }) void _;
    assert.equal(await soon(result), `total ${(49 * 50) / 2}`);
  });

  test("items that were not read before the result can be read after it", async () => {
    const { stream } = scripted([1, 2], [3], null);
    await stream.next();
    await soon(stream.result);
    assert.deepEqual(await collect(stream), [2, 3]);
  });

  test("more items than are kept in one piece arrive whole and in order", async () => {
    const numbers = Array.from({ length: 2000 }, (_, i) => i);
    const { stream } = scripted(numbers.slice(0, 700), numbers.slice(700, 701), numbers.slice(701), null);
    assert.deepEqual(await collect(stream), numbers);
  });
});

describe("ending", () => {
  const cancels: [string, (stream: Numbers) => unknown][] = [
    ["cancel", (stream) => stream.cancel()],
    ["return", (stream) => stream.return()],
    ["await using", (stream) => stream[Symbol.asyncDispose]()],
  ];
  for (const [name, cancel] of cancels) {
    for (const [how, begin] of beginnings.slice(0, 7)) {
      test(`${name} after ${how} is quiet, and pending calls are done`, async () => {
        const { stream, source } = scripted([1, 2]);
        const begun = [begin(stream)].flat().filter((value) => value instanceof Promise) as Promise<unknown>[];
        await cancel(stream);
        source.unblock();
        await soon(Promise.all(begun));
        assert.match(await soon(stream.result), /^total /);
        assert.deepEqual(await soon(stream.next()), { value: undefined, done: true });
      });
    }
  }

  test("a signal ends pending calls and the result, and is left alone afterwards", async () => {
    const { stream, source } = scripted([1]);
    const controller = new AbortController();
    stream.abortWith(controller.signal);
    await stream.next();
    const pending = stream.next();
    controller.abort();
    source.unblock();
    await assert.rejects(soon(pending), hasCode("ABORTED"));
    await assert.rejects(soon(stream.result), hasCode("ABORTED"));
    controller.abort();
  });

  test("the first reason counts", async () => {
    const { stream } = scripted([1], failure());
    await stream.next();
    stream.cancel();
    assert.equal(await soon(stream.result), "total 1");
  });
});

describe("a token stream", () => {
  let lm: GPT2;
  beforeAll(async () => {
    lm = await loadGPT2(randomModel(), { threads: 1 });
  });
  afterAll(() => lm.close());

  test("settles its result beside a pending next of an iterator", async () => {
    const stream = lm.generate("abc", { maxNewTokens: 30, ignoreEos: true });
    const pending = stream[Symbol.asyncIterator]().next();
    assert.equal((await soon(stream.result)).usage.completionTokens, 30);
    assert.equal((await pending).done, false);
  });
});

describe("a training run", () => {
  const begin = async (maxSteps: number) => finetune({ ...(await trainingOptions("full")), maxSteps });

  test("settles its result beside a pending next of an iterator", async () => {
    const run = await begin(3);
    const pending = run[Symbol.asyncIterator]().next();
    const done = await Promise.race([run.result, sleep(60_000, undefined, { ref: false })]);
    assert.equal(done?.type, "done");
    assert.equal((await pending).value?.type, "start");
  });

  test("settles its result after single calls of next, and what came meanwhile can be read", async () => {
    const run = await begin(3);
    await run.next();
    await run.next();
    assert.equal((await run.result).step, 3);
  });

  test("a loop that is left cancels, and the result says so", async () => {
    const run = await begin(10_000);
    for await (const event of run) if (event.type === "step") break;
    assert.equal((await run.result).finishReason, "cancelled");
  });

  test("a reader gets every event to the last, beside one that waits for the result", async () => {
    const run = await begin(5);
    const result = run.result;
    const events: FinetuneEvent[] = await collect(run);
    assert.equal(events.at(-1)?.type, "done");
    assert.deepEqual(events.at(-1), await result);
  });
});
