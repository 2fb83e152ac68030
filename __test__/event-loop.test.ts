/** The JavaScript thread is never held: while the engine is busy, timers run. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { loadBERT, loadGPT2, pipeline, VectorIndex } from "../index.js";
import { unpackScores } from "../src/score.js";
import { fixturePath } from "./support/fixtures.js";
import { randomModel } from "./support/models.js";

describe("the event loop", () => {
  test.skipIf(process.platform !== "linux")("comes before the models' threads, where there are not cores for all", async () => {
    await using lm = await loadGPT2(randomModel(), { threads: 2 });
    assert.equal(lm.info.threads, 2);
    const threads = readdirSync("/proc/self/task").map((id) => {
      const stat = readFileSync(`/proc/self/task/${id}/stat`, "utf8");
      // Fields after the name, which may have spaces: the state is the third of all, the niceness the 19th.
      return { id: Number(id), name: /\((.*)\)/.exec(stat)![1]!, nice: Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]) };
    });
    const own = threads.find(({ id }) => id === process.pid)!.nice;
    const models = threads.filter(({ name }) => /^candle(wick)?-/.test(name));
    assert.ok(models.some(({ name }) => name === "candle-model") && models.some(({ name }) => name === "candlewick-1"));
    for (const { name, nice } of models) assert.ok(nice === 19 || nice >= own + 5, `${name} is as nice as ${nice}, the event loop ${own}`);
  });

  test("turns while a megabyte is tokenised", async () => {
    await using lm = await loadGPT2(randomModel(), { threads: 1 });
    const text = "The quick brown fox, 敏捷的棕色狐狸. ".repeat(25_000);
    const { turns, value } = await turnsDuring(() => lm.countTokens(text));
    assert.ok(value >= 1_000_000);
    assert.ok(turns > 5, `${turns} turns`);
    assert.equal((await lm.encode(text)).length, value);
  });

  test("turns while a long prompt is prefilled", async () => {
    await using lm = await loadGPT2(randomModel({ n_positions: 2048, n_embd: 256, n_layer: 6 }), { threads: 1 });
    const prompt = "a".repeat(2000);
    const { turns } = await turnsDuring(() => lm.generate(prompt, { maxNewTokens: 1 }).next());
    assert.ok(turns > 5, `${turns} turns`);
  });

  test("turns while an encoder reads many texts", async () => {
    await using bert = await loadBERT(fixturePath("bert-base"), { threads: 1 });
    const inputs = Array.from({ length: 500 }, () => ({ ids: Array.from({ length: 48 }, (_, id) => id) }));
    const { turns, value } = await turnsDuring(() => bert.forward(inputs, { hiddenStates: true }));
    assert.equal(value.length, 500);
    assert.ok(turns > 5, `${turns} turns`);
  });

  test("turns while tasks read many texts, and one long one", async () => {
    const task = (name: string) => loadBERT(fixturePath(join("pipelines", name)), { threads: 1 });
    await using ner = await task("ner");
    const texts = Array.from({ length: 4000 }, (_, i) => `Alice ${i} walked to London with Bob, 昨天.`);
    const long = texts.join(" ");
    await steady(() => ner.entities(texts));
    await steady(() => ner.entities(long, { aggregationStrategy: "average", stride: 8 }));
    await steady(() => ner.embed(texts));
    await using mlm = await task("mlm");
    await steady(() => mlm.fillMask(texts.map((text) => `${text} [MASK]`)));
    await using questions = await task("questions");
    await steady(() => questions.answer({ question: "who?", context: long }, { topK: 5 }));
    const index = new VectorIndex(384);
    const rows = Array.from({ length: 20_000 }, () => new Float32Array(384).fill(0.1));
    await steady(() => index.add(rows));
    await steady(() => index.search(rows.slice(0, 20)));
  });

  test("turns while texts are translated, and while a session talks", async () => {
    await using lm = await loadGPT2(randomModel({ n_embd: 128, n_layer: 4 }), { threads: 1 });
    const translate = await pipeline("translation", lm, { maxNewTokens: 16 });
    await steady(() => translate(Array.from({ length: 200 }, (_, i) => `text ${i} of many`)));
    await using session = (await pipeline("dialogue", lm, { maxNewTokens: 100 })).session();
    await steady(async () => {
      for (let turn = 0; turn < 8; turn++) await session.say("and then? ".repeat(5)).result;
    });
  });

  test("turns while many texts are scored, and a vocabulary is read", async () => {
    await using lm = await loadGPT2("default");
    await steady(() => lm.vocabulary());
    await steady(() => lm.score(Array.from({ length: 300 }, (_, i) => `text ${i} of many that are scored`), { topLogprobs: 20 }));
    const long = Array.from({ length: lm.info.positions }, (_, i) => i % 200);
    await steady(() => lm.score(Array.from({ length: 6 }, () => long), { topLogprobs: 20 }));
  });

  test("turns while scores become objects, whatever the time that takes", async () => {
    const [texts, length, width] = [4, 5001, 20];
    const packed = {
      ids: { data: new Uint32Array(texts * length), lengths: new Uint32Array(texts).fill(length) },
      logprobs: new Float32Array(texts * (length - 1)),
      topIds: new Uint32Array(texts * (length - 1) * width),
      topLogprobs: new Float32Array(texts * (length - 1) * width),
    };
    let turns = 0;
    let running = true;
    const turn = () => running && ++turns && setImmediate(turn);
    turn();
    const scores = await unpackScores(packed, undefined, true);
    running = false;
    assert.equal(scores[3]!.tokens[5000]!.topLogprobs!.length, width);
    assert.ok(turns >= packed.topIds.length / 8192, `${turns} turns`);
  });

  test("loading does not hold it either, and reports progress", async () => {
    const model = randomModel({ n_positions: 2048, n_embd: 512, n_layer: 6 });
    const reports: { loaded: number; total: number }[] = [];
    const { turns, value } = await turnsDuring(() =>
      loadGPT2(model, { threads: 1, onProgress: ({ loaded, total }) => reports.push({ loaded, total }) }),
    );
    await value.close();
    assert.ok(turns > 2, `${turns} turns`);
    const last = reports.at(-1)!;
    assert.equal(last.loaded, last.total);
    assert.ok(reports.every(({ loaded }, i) => loaded >= (reports[i - 1]?.loaded ?? 0)));
  });
});

/** The loop turns about as often as it would without the call: a timer of a millisecond in every ten at the least. */
async function steady(run: () => Promise<unknown>): Promise<void> {
  const started = performance.now();
  const { turns } = await turnsDuring(run);
  const milliseconds = performance.now() - started;
  assert.ok(turns >= milliseconds / 10 - 5, `${turns} turns in ${milliseconds.toFixed(0)} ms`);
}

/** How often the loop turned before the call was answered. */
async function turnsDuring<T>(run: () => Promise<T>): Promise<{ turns: number; value: T }> {
  let turns = 0;
  let running = true;
  const turn = () => {
    turns++;
    if (running) setTimeout(turn, 1);
  };
  setTimeout(turn, 1);
  const value = await run();
  running = false;
  return { turns, value };
}
