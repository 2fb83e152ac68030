/** Many at once: what waits, what is shared, who gets the turns, and generations that go on elsewhere. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type CandlewickError, type GenerateOptions, type GPT2, loadBERT, loadGPT2, pipeline, type TokenStream } from "../index.js";
import { retryHeaders } from "../src/openai/errors.js";
import { collect, hasCode } from "./support/assertions.js";
import { fixtures, randomModel } from "./support/models.js";

const source = randomModel({ n_positions: 1024, n_layer: 4, n_embd: 64 });
/** Bytes of keys and values of 1,024 positions: f32, 4 layers, 64 wide. */
const ONE = 2 * 4 * 4 * 64 * 1024;

describe("serving", () => {
  let lm: GPT2;
  beforeAll(async () => {
    lm = await loadGPT2(source, { threads: 1 });
  });
  afterAll(() => lm.close());
  const long = { ignoreEos: true, maxNewTokens: 200, seed: 3 } satisfies GenerateOptions;
  const ids = async (stream: TokenStream) => (await stream.result).tokens.map(({ id }) => id);

  test("stats show what runs and waits, its memory and its speed", async () => {
    await using fresh = await loadGPT2(source, { threads: 1, kvCacheBytes: ONE });
    const idle = fresh.stats();
    assert.deepEqual(
      { ...idle, steps: { ...idle.steps, secondsSinceLast: 0 } },
      {
        running: 0, waiting: 0, queuedTokens: 0, promptTokens: 0, cachedTokens: 0, draftedTokens: 0, acceptedTokens: 0, pauses: 0,
        blocks: 16, freeBlocks: 16, prefixBlocks: 0, blockPositions: 64, blockBytes: ONE / 16,
        steps: { count: 0, tokensPerSecond: 0, totalTokens: 0, totalMs: 0, totalSequences: 0, lastTokens: 0, lastMs: 0, secondsSinceLast: 0 },
      },
    );
    assert.ok(idle.steps.secondsSinceLast >= 0);
    await using stream = fresh.generate("p".repeat(200), { ...long, maxNewTokens: 500 });
    await stream.next();
    // A step is shown when it is over, a moment after its tokens were given.
    for (let i = 0; fresh.stats().running === 0; i++) {
      assert.ok(i < 100, "it runs");
      await sleep(5);
    }
    const busy = fresh.stats();
    assert.equal(busy.running, 1);
    assert.equal(busy.promptTokens, 200);
    assert.ok(busy.freeBlocks <= 12 && busy.steps.count > 0 && busy.steps.tokensPerSecond > 0 && busy.steps.lastMs > 0);
    const { totalTokens, totalMs, totalSequences, count } = busy.steps;
    assert.ok(totalTokens >= 200 && totalSequences === count && totalMs >= busy.steps.lastMs);
    await stream.return();
    await stream.result;
    for (let i = 0; fresh.stats().running > 0; i++) {
      assert.ok(i < 100, "it is left");
      await sleep(10);
    }
    const { freeBlocks, prefixBlocks, blocks } = fresh.stats();
    assert.equal(freeBlocks + prefixBlocks, blocks);
  });

  test("a BERT's stats", async () => {
    await using bert = await loadBERT(`${fixtures}/bert-classify-5`, { maxStepMs: 20 });
    await bert.forward([{ ids: [1, 2, 3] }, { ids: [4, 5] }]);
    const { running, waiting, queuedTokens, steps } = bert.stats();
    assert.deepEqual({ running, waiting, queuedTokens }, { running: 0, waiting: 0, queuedTokens: 0 });
    assert.ok(steps.count > 0 && steps.lastTokens > 0 && steps.totalMs > 0);
    assert.deepEqual([steps.totalTokens, steps.totalSequences], [5, 2]);
  });

  test("a refusal asks for a wait that clients respect: 1 to 59 seconds", () => {
    const waits = [50, 1000, 1001, 58_999, 59_001, 3_600_000].map((wait) => retryHeaders(wait)["retry-after"]);
    assert.deepEqual(waits, ["1", "1", "2", "59", "59", "59"]);
    assert.deepEqual(retryHeaders(3_600_000)["retry-after-ms"], "59000");
  });

  test("a full queue refuses at once, says when to come again, and goes on serving", async () => {
    await using busy = await loadGPT2(source, { threads: 1, maxQueuedRequests: 70, maxQueuedTokens: 5000 });
    const streams = Array.from({ length: 280 }, (_, i) => busy.generate(`w${i}`, { ...long, maxNewTokens: i < 130 ? 100 : 5 }));
    const outcomes = await Promise.allSettled(streams.map((stream) => stream.accepted));
    const refused = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reason as CandlewickError);
    assert.ok(refused.length > 0);
    for (const error of refused) {
      assert.equal(error.code, "QUEUE_FULL");
      assert.equal(error.httpStatus, 429);
      assert.ok(error.retryAfterMs! >= 50);
    }
    const response = await streams[outcomes.findIndex(({ status }) => status === "rejected")]!.toResponse();
    assert.equal(response.status, 429);
    const [seconds, milliseconds] = ["retry-after", "retry-after-ms"].map((name) => Number(response.headers.get(name)));
    assert.ok(Number.isInteger(seconds) && seconds! >= 1 && seconds! <= 59, `${seconds} s`);
    assert.ok(milliseconds! > 1000 * (seconds! - 1) && milliseconds! <= 1000 * seconds!, `${milliseconds} ms`);
    const tokens = Array.from({ length: 6 }, () => Array.from({ length: 900 }, () => 1));
    await assert.rejects(busy.generate(tokens, { maxNewTokens: 1 }).accepted, hasCode("QUEUE_FULL"));
    const served = await Promise.all(streams.map((stream) => stream.result.then(() => 1, () => 0)));
    assert.equal(served.reduce<number>((sum, one) => sum + one, 0), streams.length - refused.length);
  });

  test("a deadline ends a request, with the tokens before it, and nobody else's", async () => {
    const other = lm.generate("other", long);
    const stream = lm.generate("late", { ...long, maxNewTokens: 900, deadline: 60 });
    const tokens: string[] = [];
    await assert.rejects(async () => {
      for await (const { text } of stream) {
        // A slow reader: the model waits for it, and nothing but the deadline wakes it.
        if (tokens.push(text) === 1) await sleep(120);
      }
    }, hasCode("DEADLINE_EXCEEDED"));
    await assert.rejects(stream.result, (error: CandlewickError) => error.httpStatus === 504);
    assert.ok(tokens.length > 0);
    assert.equal((await other.result).tokens.length, 200);
  });

  test("a beginning is shared within its scope", async () => {
    const prompt = "A system prompt of more than a block of sixty-four tokens, which many requests begin with. ";
    const cached = async (scope?: string) => (await lm.generate(prompt, { ...long, maxNewTokens: 2, scope }).result).usage.cachedTokens;
    assert.equal(await cached("alice"), 0);
    assert.equal(await cached("bob"), 0);
    assert.equal(await cached(), 0);
    for (const scope of ["alice", "bob", undefined]) assert.ok((await cached(scope)) >= 64);
  });

  test("a generation goes on from any token, and its result is that of one that was never cut off", async () => {
    const options = { ...long, maxNewTokens: 40, n: 2, temperature: 0.9, repetitionPenalty: 1.1, logprobs: 1 } satisfies GenerateOptions;
    const whole = await lm.generate("go on", options).result;
    for (const cut of [0, 1, 17, 39, 40]) {
      const existing = whole.sequences.map(({ tokens }, i) => tokens.slice(0, Math.max(0, cut - i)).map(({ id }) => id));
      const stream = lm.generate("go on", { ...options, continueFrom: existing });
      const events = await collect(stream);
      const result = await stream.result;
      assert.deepEqual(result.usage.completionTokens, whole.usage.completionTokens);
      result.sequences.forEach((sequence, i) => {
        const count = existing[i]!.length;
        assert.equal(sequence.text, whole.sequences[i]!.text);
        assert.deepEqual(sequence.tokens.slice(count), whole.sequences[i]!.tokens.slice(count));
        assert.deepEqual(events.filter((event) => event.sequence === i), whole.sequences[i]!.tokens.slice(count));
        assert.ok(sequence.tokens.slice(0, count).every(({ logprob }) => logprob === undefined));
      });
    }
    const one = { ...long, maxNewTokens: 10 };
    const first = await ids(lm.generate("one", one));
    assert.deepEqual(await ids(lm.generate("one", { ...one, continueFrom: Uint32Array.from(first.slice(0, 4)) })), first);
    assert.deepEqual(await ids(lm.generate("one", { ...one, continueFrom: first.slice(0, 4) })), first);
  });

  test("a memory of one sequence gives the same text as one for all", async () => {
    await using little = await loadGPT2(source, { threads: 1, kvCacheBytes: ONE });
    const start = (model: GPT2) =>
      Promise.all(Array.from({ length: 6 }, (_, i) => ids(model.generate(`${i}`.repeat(300), { ...long, seed: i }))));
    assert.deepEqual(await start(little), await start(lm));
    assert.ok(little.stats().pauses > 0);
    await assert.rejects(little.generate("beams", { numBeams: 16, maxNewTokens: 900 }).accepted, hasCode("OUT_OF_MEMORY"));
  });

  test("guesses change no token", async () => {
    const prompt = "the cat sat on the mat, the cat sat on the mat, the cat sat on";
    for (const options of [{ temperature: 0 }, { temperature: 0.5, logprobs: 2 }, { n: 3, topK: 5 }] satisfies GenerateOptions[]) {
      const [on, off] = await Promise.all(
        (["lookup", false] as const).map((speculation) => lm.generate(prompt, { ...long, ...options, speculation }).result),
      );
      assert.deepEqual(on!.sequences, off!.sequences);
      assert.equal(off!.usage.draftedTokens, 0);
      assert.ok(on!.usage.acceptedTokens <= on!.usage.draftedTokens);
    }
  });

  test("another model's guesses change no token", async () => {
    // The very model in four bits: what it guesses is mostly right.
    await using draft = await loadGPT2(source, { dtype: "q4_0", threads: 1 });
    for (const options of [{ temperature: 0 }, { temperature: 0.9, logprobs: 2 }, { n: 3, topK: 5 }] satisfies GenerateOptions[]) {
      const [on, off] = await Promise.all(
        ([{ draft }, false] as const).map((speculation) => lm.generate("In the morning", { ...long, ...options, speculation }).result),
      );
      assert.deepEqual(on!.sequences, off!.sequences);
      assert.ok(on!.usage.acceptedTokens <= on!.usage.draftedTokens);
    }
    assert.throws(() => lm.generate("x", { speculation: { draft: lm } }), hasCode("OPTION_INVALID"), "itself");
    assert.throws(() => lm.generate("x", { speculation: { draft }, numBeams: 2 }), hasCode("OPTION_INVALID"), "beams");
    await using other = await loadGPT2(join(fixtures, "gpt2-base"));
    assert.throws(() => lm.generate("x", { speculation: { draft: other } }), hasCode("OPTION_INVALID"), "another vocabulary");
    await draft.close();
    assert.throws(() => lm.generate("x", { speculation: { draft } }), hasCode("MODEL_CLOSED"));
  });

  test("a batch gives way to who waits for an answer", async () => {
    const batch = lm.generate(Array.from({ length: 100 }, (_, i) => `${i}`.repeat(250)), { maxNewTokens: 4, priority: "batch", client: "nightly" });
    await batch.accepted;
    await lm.generate("p".repeat(250), { maxNewTokens: 4, client: "somebody" }).result;
    let over = false;
    void batch.result.then(() => (over = true));
    await sleep(0);
    assert.equal(over, false, "the batch still runs");
    assert.equal((await batch.result).sequences.length, 100);
  });

  test("what cannot be is refused before anything is computed", async () => {
    const wrong: [GenerateOptions, string?][] = [
      [{ deadline: 0 }], [{ deadline: -5 }], [{ deadline: NaN }], [{ deadline: Infinity }], [{ client: "" }], [{ scope: "" }],
      [{ priority: "urgent" as "batch" }], [{ speculation: true as false }], [{ speculation: { draft: "gpt2" as never } }],
      [{ speculation: { draft: lm, length: 3 } as never }], [{ continueFrom: [1.5] }], [{ continueFrom: [[1], [2]] }],
      [{ continueFrom: [1], n: 2 }], [{ continueFrom: [1], numBeams: 2 }], [{ continueFrom: [300] }], [{ continueFrom: "ids" as never }],
    ];
    for (const [options] of wrong) assert.throws(() => lm.generate("x", options), hasCode("OPTION_INVALID"), JSON.stringify(options));
    // A model of its own: the last step of a test before is shown a moment after its tokens were given.
    await using fresh = await loadGPT2(source, { threads: 1 });
    await assert.rejects(fresh.generate("x", { maxNewTokens: 2, continueFrom: [1, 2, 3] }).result, hasCode("OPTION_INVALID"));
    assert.equal(fresh.stats().steps.count, 0);
    for (const options of [
      { kvCacheBytes: ONE - 1 }, { kvCacheBytes: 0 }, { kvCacheBytes: -1 }, { kvCacheBytes: NaN }, { kvCacheBytes: 1e15 }, { kvCacheBytes: 1.5 },
      { maxQueuedTokens: 0 }, { maxQueuedTokens: -1 }, { maxQueuedRequests: 0.5 }, { maxStepMs: 0 }, { maxStepMs: NaN }, { maxStepMs: 1e9 },
    ])
      await assert.rejects(loadGPT2(source, options), hasCode("OPTION_INVALID"), JSON.stringify(options));
    await assert.rejects(loadBERT(`${fixtures}/bert-classify-5`, { kvCacheBytes: 1e6 } as object), hasCode("OPTION_UNKNOWN"));
    await using task = await pipeline("text-generation", source, { kvCacheBytes: ONE, maxStepMs: 20 });
    assert.equal(task.model.stats().blocks, 16);
  });
});
