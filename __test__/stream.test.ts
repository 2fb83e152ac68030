import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, test } from "vitest";
import { CandlewickError, type GPT2, loadGPT2, type Token, type TokenStream } from "../index.js";
import { collect, hasCode, QUEUE } from "./support/assertions.js";
import { END, randomModel, recitingModel } from "./support/models.js";

describe("token streams", () => {
  let lm: GPT2;
  beforeAll(async () => {
    lm = await loadGPT2(randomModel({ n_positions: 4096 }), { threads: 1 });
  });
  afterAll(() => lm.close());
  const greedy = { temperature: 0, ignoreEos: true };

  test("tokens arrive in order and add up to the result", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 40 });
    const tokens = await collect(stream);
    const result = await stream.result;
    assert.deepEqual(tokens.map(({ index }) => index), [...tokens.keys()]);
    assert.deepEqual(result.tokens, tokens);
    assert.equal(result.text, tokens.map(({ text }) => text).join(""));
    assert.equal(result.finishReason, "length");
    assert.deepEqual(result.usage, { ...result.usage, promptTokens: 3, completionTokens: 40, totalTokens: 43 });
    assert.equal(result.sequences.length, 1);
    for (const time of Object.values(result.timings)) assert.ok(time >= 0 && Number.isFinite(time));
  });

  test("overlapping calls of next are served in order, and are done after the last token", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 10 });
    const results = await Promise.all(Array.from({ length: 13 }, () => stream.next()));
    assert.deepEqual(results.map(({ value }) => (value as Token | undefined)?.index), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, undefined, undefined, undefined]);
    assert.deepEqual(results.map(({ done }) => done), [...Array.from({ length: 10 }, () => false), true, true, true]);
  });

  test("a stream is read once", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 3 });
    await collect(stream);
    assert.throws(() => stream[Symbol.asyncIterator](), hasCode("STREAM_USED"));
    assert.throws(() => stream.toReadable(), hasCode("STREAM_USED"));
    assert.deepEqual(await stream.next(), { value: undefined, done: true });
  });

  test("leaving the loop ends the compute quietly", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 4000 });
    let read = 0;
    for await (const _ of stream) if (++read === 5) break;
    const { finishReason, usage, tokens } = await stream.result;
    assert.equal(finishReason, "aborted");
    assert.ok(usage.completionTokens <= read + QUEUE, `${usage.completionTokens} tokens were computed for ${read}`);
    assert.equal(tokens.length, usage.completionTokens);
    assert.deepEqual(await stream.next(), { value: undefined, done: true });
  });

  test("an error in the loop's body is the reader's, and ends the compute", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 4000 });
    const own = new Error("mine");
    await assert.rejects(async () => {
      for await (const _ of stream) throw own;
    }, (error) => error === own);
    assert.equal((await stream.result).finishReason, "aborted");
  });

  test("cancel ends pending calls of next, twice as well as once", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 4000 });
    await stream.next();
    const pending = Array.from({ length: QUEUE * 4 }, () => stream.next());
    stream.cancel();
    stream.cancel();
    const results = await Promise.all(pending);
    assert.deepEqual(results.at(-1), { value: undefined, done: true });
    assert.equal((await stream.result).finishReason, "aborted");
    stream.cancel();
  });

  test("cancel before the first token", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 4000 });
    stream.cancel();
    assert.deepEqual(await collect(stream), []);
    const { finishReason, usage } = await stream.result;
    assert.equal(finishReason, "aborted");
    assert.ok(usage.completionTokens <= QUEUE);
  });

  test("a signal that was aborted before", async () => {
    const reason = new Error("too late");
    const stream = lm.generate("abc", { ...greedy, signal: AbortSignal.abort(reason) });
    await assert.rejects(collect(stream), (error: CandlewickError) => error.code === "ABORTED" && error.cause === reason);
    await assert.rejects(stream.result, hasCode("ABORTED"));
  });

  test("a signal aborted in the middle: the iteration throws once, the result is rejected", async () => {
    const controller = new AbortController();
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 4000, signal: controller.signal });
    let read = 0;
    await assert.rejects(async () => {
      for await (const _ of stream) if (++read === 5) controller.abort("enough");
    }, (error: CandlewickError) => error.code === "ABORTED" && error.name === "AbortError" && error.cause === "enough");
    assert.equal(read, 5, "tokens that were ready are not read after the abort");
    await assert.rejects(stream.result, hasCode("ABORTED"));
    assert.deepEqual(await stream.next(), { value: undefined, done: true });
  });

  test("a signal aborted after the end changes nothing", async () => {
    const controller = new AbortController();
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 3, signal: controller.signal });
    assert.equal((await collect(stream)).length, 3);
    controller.abort();
    assert.equal((await stream.result).finishReason, "length");
  });

  test("nothing listens to a signal after the call", async () => {
    const { signal } = new AbortController();
    await collect(lm.generate("abc", { ...greedy, maxNewTokens: 3, signal }));
    await lm.generate("abc", { ...greedy, signal }).return();
    await lm.encode("abc", { signal });
    assert.equal(getEventListeners(signal, "abort").length, 0);
  });

  test("a rejected result that nobody looks at is no unhandled rejection", async () => {
    const seen: unknown[] = [];
    const listener = (reason: unknown) => seen.push(reason);
    process.on("unhandledRejection", listener);
    lm.generate("abc", { ...greedy, signal: AbortSignal.abort() });
    lm.generate([9999], greedy);
    const abandoned = lm.generate([9999], greedy);
    await assert.rejects(abandoned.next(), hasCode("INPUT_INVALID"));
    await sleep(20);
    process.off("unhandledRejection", listener);
    assert.deepEqual(seen, []);
  });

  test("without a reader the result runs the stream to its end; the tokens can still be read", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 500 });
    const { tokens, finishReason } = await stream.result;
    assert.equal(finishReason, "length");
    assert.equal(tokens.length, 500);
    assert.deepEqual(await collect(stream), tokens);
    assert.equal((await lm.generate("abc", { ...greedy, maxNewTokens: 500 }).text()).length > 0, true);
  });

  test("the result runs on to the end after some tokens were read, and beside a call of next", { timeout: 60_000 }, async () => {
    const some = lm.generate("abc", { ...greedy, maxNewTokens: 300 });
    await some.next();
    assert.equal((await some.result).tokens.length, 300);
    assert.equal((await collect(some)).length, 299);

    const beside = lm.generate("abc", { ...greedy, maxNewTokens: 300 });
    const next = beside.next();
    const result = beside.result;
    await next;
    assert.equal((await result).tokens.length, 300);

    const before = lm.generate("abc", { ...greedy, maxNewTokens: 300 });
    const asked = before.result;
    await before.next();
    assert.equal((await asked).tokens.length, 300);

    let read = 0;
    const inside = lm.generate("abc", { ...greedy, maxNewTokens: 300 });
    for await (const _ of inside) if (++read === 3) assert.equal((await inside.result).tokens.length, 300);
    assert.equal(read, 300);
  });

  test("a loop whose stream's result was asked for still sets the pace", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 4000 });
    const result = stream.result;
    let read = 0;
    for await (const _ of stream) {
      if (++read < 3) continue;
      // Meanwhile another stream has the model for itself and finishes.
      await lm.generate("xyz", { ...greedy, maxNewTokens: 500 }).result;
      break;
    }
    const { usage } = await result;
    assert.ok(usage.completionTokens <= read + 2 * QUEUE, `${usage.completionTokens} tokens were computed for ${read}`);
  });

  test("a slow reader stops the model, not the heap", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 4000 });
    for (let i = 0; i < 3; i++) await stream.next();
    await sleep(300);
    // Meanwhile another stream has the model for itself and finishes.
    await lm.generate("xyz", { ...greedy, maxNewTokens: 300 }).result;
    stream.cancel();
    const { usage } = await stream.result;
    assert.ok(usage.completionTokens <= 3 + 2 * QUEUE, `${usage.completionTokens} tokens were computed for 3`);
  });

  test("a response that cannot be made leaves the stream as it was", async () => {
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 3 });
    assert.throws(() => stream.toResponse({ status: 205 }), hasCode("OPTION_INVALID"));
    assert.throws(() => stream.toResponse({ headers: { "a b": "x" } }), hasCode("OPTION_INVALID"));
    assert.equal((await collect(stream)).length, 3);
  });

  test("a response's own headers take the place of the format's, and may repeat", async () => {
    const own = new Headers({ "cache-control": "no-store" });
    own.append("set-cookie", "a=1");
    own.append("set-cookie", "b=2");
    const stream = lm.generate("abc", { ...greedy, maxNewTokens: 3 });
    const { headers } = await stream.toResponse({ headers: own });
    stream.cancel();
    assert.equal(headers.get("cache-control"), "no-store");
    assert.deepEqual(headers.getSetCookie(), ["a=1", "b=2"]);
  });

  test("await using ends a stream and closes a model", async () => {
    let kept: TokenStream;
    let closed: GPT2;
    {
      await using own = await loadGPT2(lm.source, { threads: 1 });
      await using stream = own.generate("abc", { ...greedy, maxNewTokens: 4000 });
      await stream.next();
      kept = stream;
      closed = own;
    }
    assert.equal((await kept.result).finishReason, "aborted");
    assert.throws(() => closed.generate("abc"), hasCode("MODEL_CLOSED"));
  });

  test("closing a model ends its streams; closing again is harmless", async () => {
    const own = await loadGPT2(lm.source, { threads: 1 });
    const stream = own.generate("abc", { ...greedy, maxNewTokens: 4000 });
    await stream.next();
    const closing = own.close();
    await assert.rejects(collect(stream), hasCode("MODEL_CLOSED"));
    await assert.rejects(stream.result, hasCode("MODEL_CLOSED"));
    await closing;
    await own.close();
    await assert.rejects(own.encode("abc"), hasCode("MODEL_CLOSED"));
    await assert.rejects(own.countTokens("abc"), hasCode("MODEL_CLOSED"));
    await assert.rejects(own.decode([1]), hasCode("MODEL_CLOSED"));
  });

  test("two models at once do not disturb each other", async () => {
    await using other = await loadGPT2(randomModel({}, 2), { threads: 1 });
    const alone = [await ids(lm, "abc", 60), await ids(other, "abc", 60)];
    const together = await Promise.all([ids(lm, "abc", 60), ids(other, "abc", 60), ids(lm, "abc", 60), ids(other, "abc", 60)]);
    assert.notDeepEqual(alone[0], alone[1]);
    assert.deepEqual(together, [...alone, ...alone]);
  });

  test("many generations at once are, bit for bit, what they are alone", async () => {
    const requests = Array.from({ length: 8 }, (_, i) => ({
      prompt: "x".repeat(1 + i * 7),
      options: { ...(i % 2 ? { temperature: 0 } : { temperature: 1.1, seed: i, topK: 50 }), maxNewTokens: 20 + i * 5, ignoreEos: true, logprobs: 2 },
    }));
    const run = async ({ prompt, options }: (typeof requests)[number]) => (await lm.generate(prompt, options).result).tokens;
    const alone = [];
    for (const request of requests) alone.push(await run(request));
    assert.deepEqual(await Promise.all(requests.map(run)), alone);
  });

  test("several prompts, and several samples of each", async () => {
    const stream = lm.generate(["one", "two"], { n: 3, maxNewTokens: 8, seed: 5, ignoreEos: true });
    const tokens = await collect(stream);
    const { sequences } = await stream.result;
    assert.deepEqual(sequences.map(({ prompt }) => prompt), [0, 0, 0, 1, 1, 1]);
    sequences.forEach((sequence, i) => assert.deepEqual(tokens.filter((token) => token.sequence === i), sequence.tokens));
    const again = await lm.generate(["one", "two"], { n: 3, maxNewTokens: 8, seed: 5, ignoreEos: true }).result;
    assert.deepEqual(again.sequences, sequences);
    assert.equal(again.seed, 5);
    const other = await lm.generate(["one", "two"], { n: 3, maxNewTokens: 8, seed: 6, ignoreEos: true }).result;
    assert.notDeepEqual(other.sequences, sequences);
  });

  test("ids are a prompt as text is", async () => {
    const text = await ids(lm, "abc", 20);
    assert.deepEqual(await ids(lm, [97, 98, 99], 20), text);
    assert.deepEqual(await ids(lm, Uint32Array.of(97, 98, 99), 20), text);
    const { sequences } = await lm.generate([[97, 98, 99], [97, 98, 99]], { ...greedy, maxNewTokens: 20 }).result;
    assert.deepEqual(sequences.map(({ tokens }) => tokens.map(({ id }) => id)), [text, text]);
  });
});

describe("text", () => {
  const poem = "Ah, 我们很高兴能够与您合作！👩‍👩‍👧 e\u0301 — fin.";

  test("characters are never torn, and nothing is lost", async () => {
    await using lm = await loadGPT2(recitingModel(poem));
    const stream = lm.generate("A", { temperature: 0 });
    const tokens = await collect(stream);
    const result = await stream.result;
    assert.equal(result.text, poem.slice(1));
    assert.equal(result.finishReason, "stop");
    assert.equal(tokens.at(-1)?.id, END);
    assert.ok(tokens.every(({ text }) => !text.includes("\ufffd") && Buffer.from(text).toString() === text));
    assert.equal(tokens.map(({ text }) => text).join(""), poem.slice(1));
  });

  test("a stop string that spans tokens is not in the text", async () => {
    await using lm = await loadGPT2(recitingModel(poem));
    const stream = lm.generate("A", { temperature: 0, stop: ["能够", "never"] });
    const tokens = await collect(stream);
    const { text, finishReason, stopSequence } = await stream.result;
    assert.equal(text, "h, 我们很高兴");
    assert.equal(tokens.map((token) => token.text).join(""), text);
    assert.deepEqual([finishReason, stopSequence], ["stop", "能够"]);
  });
});

async function ids(lm: GPT2, prompt: Parameters<GPT2["generate"]>[0], maxNewTokens: number): Promise<number[]> {
  const { tokens } = await lm.generate(prompt, { temperature: 0, ignoreEos: true, maxNewTokens }).result;
  return tokens.map(({ id }) => id);
}
