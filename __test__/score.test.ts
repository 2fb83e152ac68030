/** The model's own log-probabilities of tokens that exist, and the bytes of its tokens. */
import assert from "node:assert/strict";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type CandlewickError, type GPT2, loadGPT2, type Prompt, type ScoreOptions, type TextScore, type Token } from "../index.js";
import { packageRoot } from "../src/package.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath, readExpected, worst } from "./support/fixtures.js";
import { randomModel, small, writeByteTokenizer } from "./support/models.js";

const texts = ["It is a truth universally acknowledged", "我们很高兴能够与您合作！", "naïve café, 𝓯𝓪𝓷𝓬𝔂 👍🏽 and 1,000 tokens"];
const greedy = { temperature: 0, maxNewTokens: 40, ignoreEos: true, logprobs: 3 } as const;
const idsOf = (tokens: readonly { id: number }[]) => tokens.map(({ id }) => id);
/** What is known of a token by its prompt, and by what was generated after it. */
const reports = (tokens: readonly Pick<Token, "id" | "logprob" | "topLogprobs">[]) =>
  tokens.map(({ id, logprob, topLogprobs }) => ({ id, logprob, topLogprobs }));

describe("score", () => {
  let lm: GPT2;
  beforeAll(async () => {
    lm = await loadGPT2("default");
  });
  afterAll(() => lm.close());

  test("is what a generation reports of the same tokens, to the bit", async () => {
    for (const text of texts) {
      const prompt = await lm.encode(text);
      const { tokens } = await lm.generate(prompt, greedy).result;
      const scored = await lm.score([...prompt, ...idsOf(tokens)], { topLogprobs: 3 });
      assert.deepEqual(reports(scored.tokens.slice(prompt.length)), reports(tokens));
      assert.deepEqual(idsOf(scored.tokens.slice(0, prompt.length)), [...prompt]);
      assert.equal(scored.logprob, scored.tokens.slice(1).reduce((sum, { logprob }) => sum + logprob!, 0));
      // A token by itself is shown in the same words wherever it is.
      const shown = new Map(tokens.flatMap(({ topLogprobs }) => topLogprobs!).map(({ id, text }) => [id, text]));
      for (const { id, text } of scored.tokens) assert.equal(text, shown.get(id) ?? text);
      assert.ok(idsOf(scored.tokens).some((id) => shown.has(id)));
    }
  });

  test("the first token has none, and a text is read as a prompt is", async () => {
    const score = await lm.score(texts[0]!);
    assert.deepEqual(idsOf(score.tokens), [...(await lm.encode(texts[0]!))]);
    assert.equal(score.tokens.map(({ text }) => text).join(""), texts[0]);
    assert.deepEqual(Object.keys(score.tokens[0]!), ["id", "text"]);
    assert.deepEqual(Object.keys(score.tokens[1]!), ["id", "text", "logprob"]);
    assert.ok(score.logprob < 0);
    const { id } = score.tokens[0]!;
    assert.deepEqual(await lm.score([id], { topLogprobs: 5 }), { tokens: [{ id, text: score.tokens[0]!.text }], logprob: 0 });
    assert.deepEqual((await lm.score(texts[0]!, { topLogprobs: 0 })).tokens[1]!.topLogprobs, []);
  });

  test("is the same bits alone, beside 31 others and beside generations", async () => {
    const many = Array.from({ length: 32 }, (_, i) => `${texts[i % 3]} ${"again and ".repeat(i)}`);
    const alone: TextScore[] = [];
    for (const text of many) alone.push(await lm.score(text, { topLogprobs: 2 }));
    const streams = texts.map((text) => lm.generate(text, { ...greedy, seed: 1 }).result);
    assert.deepEqual(await lm.score(many, { topLogprobs: 2 }), alone);
    assert.deepEqual(await Promise.all(many.map((text) => lm.score(text, { topLogprobs: 2, priority: "batch" }))), alone);
    await Promise.all(streams);
  });

  test("many texts, in their order", async () => {
    const many = Array.from({ length: 600 }, (_, i) => `${i} and more`);
    const scores = await lm.score(many);
    assert.deepEqual(scores.map(({ tokens }) => tokens.map(({ text }) => text).join("")), many);
    assert.deepEqual(scores[599], await lm.score(many[599]!));
  });

  test("a generation shares what was computed, within a scope", async () => {
    const prompt = "the same beginning of everything ".repeat(20);
    await lm.score(prompt, { scope: "scored" });
    const cached = async (scope: string) => (await lm.generate(prompt, { scope, maxNewTokens: 1 }).result).usage.cachedTokens;
    assert.equal(await cached("another"), 0);
    assert.ok((await cached("scored")) >= 64);
  });

  test("is PyTorch's", async () => {
    const { greedy = [], tolerance } = readExpected("gpt2-base");
    await using base = await loadGPT2(fixturePath("gpt2-base"), { dtype: "f32" });
    const scores = await base.score(greedy.map(({ prompt, tokens }) => [...prompt, ...tokens]));
    for (const [index, { prompt, logprobs }] of greedy.entries()) {
      const ours = scores[index]!.tokens.slice(prompt.length).map(({ logprob }) => logprob!);
      assert.ok(worst(ours, logprobs, { atol: 2 * tolerance.atol, rtol: tolerance.rtol }) <= 1);
      // There is no tokenizer.
      assert.equal(scores[index]!.tokens[0]!.text, "");
    }
    assert.ok(greedy.length > 0);
    await assert.rejects(base.score("text"), hasCode("TOKENIZER_MISSING"));
  });

  test("by an adapter", async () => {
    const adapters = { all: `${fixturePath("adapters")}/all`, stabilised: `${fixturePath("adapters")}/stabilised` };
    await using base = await loadGPT2(fixturePath("gpt2-base"), { dtype: "f32", adapters });
    const prompt = [5, 9, 20];
    const sums = new Set<number>();
    for (const adapter of [undefined, "all", "stabilised"]) {
      const { tokens } = await base.generate(prompt, { ...greedy, adapter }).result;
      const scored = await base.score([...prompt, ...idsOf(tokens)], { topLogprobs: 3, adapter });
      assert.deepEqual(reports(scored.tokens.slice(3)), reports(tokens));
      sums.add((await base.score([5, 9, 20, 7, 7], { adapter })).logprob);
    }
    assert.equal(sums.size, 3);
  });

  test("what is wrong is said, and of which text", async () => {
    const { positions, vocabularySize } = lm.info;
    const refused = async (input: unknown, options: object = {}) => {
      const error = await lm.score(input as string, options).then(() => assert.fail("no error"), (error: CandlewickError) => error);
      return { code: error.code, index: error.index };
    };
    const full = Array.from({ length: positions }, () => 5);
    assert.equal((await lm.score(full)).tokens.length, positions);
    assert.deepEqual(await refused([...full, 5]), { code: "CONTEXT_OVERFLOW", index: undefined });
    assert.deepEqual(await refused([...Array.from({ length: 299 }, () => [1, 2]), [...full, 5]]), { code: "CONTEXT_OVERFLOW", index: 299 });
    assert.deepEqual(await refused([[1], [2, vocabularySize]]), { code: "INPUT_INVALID", index: 1 });
    assert.deepEqual(await refused(["x", "y", ""]), { code: "PROMPT_EMPTY", index: 2 });
    assert.deepEqual(await refused([]), { code: "PROMPT_EMPTY", index: undefined });
    assert.deepEqual(await refused(5), { code: "OPTION_INVALID", index: undefined });
    for (const options of [{ topLogprobs: 21 }, { adapter: "none" }, { priority: "low" }, { scope: "" }, { signal: {} }]) {
      assert.deepEqual(await refused("x y", options), { code: "OPTION_INVALID", index: undefined }, JSON.stringify(options));
    }
    assert.equal((await refused("x", { logprobs: 3 })).code, "OPTION_UNKNOWN");
    assert.equal((await refused("x", { signal: AbortSignal.abort() })).code, "ABORTED");
  });

  test("a full queue refuses it, an abort and the end of the model end it", async () => {
    const source = randomModel({ n_positions: 1024, n_layer: 6, n_embd: 256 });
    await using busy = await loadGPT2(source, { threads: 1, maxQueuedTokens: 3000 });
    const long = Array.from({ length: 1000 }, (_, id) => id % 256);
    const aborting = new AbortController();
    const first = busy.score([long, long, long], { signal: aborting.signal });
    await assert.rejects(busy.score([long, long, long, long]), hasCode("QUEUE_FULL"));
    aborting.abort();
    await assert.rejects(first, hasCode("ABORTED"));
    // The model's thread lets go of it at its next turn.
    for (let waited = 0; busy.stats().queuedTokens > 0 && waited < 5_000; waited += 5) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(busy.stats().queuedTokens, 0);
    assert.equal((await busy.score(long)).tokens.length, 1000);
    const closing = assert.rejects(busy.score([long, long]), hasCode("MODEL_CLOSED"));
    await busy.close();
    await closing;
    await assert.rejects(busy.score("x"), hasCode("MODEL_CLOSED"));
    await assert.rejects(busy.vocabulary(), hasCode("MODEL_CLOSED"));
  });

  test("options of a wrong kind are no options", async () => {
    const wrong = { topLogprobs: "3" } as unknown as ScoreOptions;
    await assert.rejects(lm.score(texts as Prompt, wrong), hasCode("OPTION_INVALID"));
  });
});

describe("the vocabulary", () => {
  const existing = "你好，世界！😀👍🏽 café — 1,000 ﬁn. ";

  for (const name of ["default", "dialogue", "translation-en-zh"]) {
    test(`of ${name}: the bytes of a generation's tokens are those of its text`, async () => {
      await using lm = await loadGPT2(join(packageRoot, "models", name));
      const vocabulary = await lm.vocabulary();
      assert.equal(vocabulary.size, lm.info.vocabularySize);
      assert.equal(await lm.vocabulary(), vocabulary);
      const { eosTokenIds } = lm.info;
      // Tokens that are there already are part of the text.
      const continueFrom = await lm.encode(existing);
      for (const prompt of texts) {
        const { tokens, text } = await lm.generate(prompt, { temperature: 0, maxNewTokens: continueFrom.length + 30, continueFrom }).result;
        const own = idsOf(tokens).filter((id) => !eosTokenIds.includes(id));
        assert.ok(own.length >= continueFrom.length && text.startsWith(existing));
        const bytes = Buffer.concat(own.map((id) => vocabulary.bytes(id)));
        const whole = Buffer.from(text, "utf8");
        assert.deepEqual(bytes.subarray(0, whole.length), whole);
        // A text ends in whole characters: at most the first bytes of one are left out of it.
        assert.ok(bytes.length - whole.length < 4);
      }
      // The bytes of every id that a text is made of, torn characters among them.
      const torn = [...(await lm.encode("𠮷𝔂😀"))].map((id) => vocabulary.bytes(id));
      assert.deepEqual(Buffer.concat(torn), Buffer.from("𠮷𝔂😀"));
      const end = eosTokenIds[0]!;
      assert.equal(Buffer.from(vocabulary.bytes(end)).toString(), await lm.decode([end], { skipSpecialTokens: false }));
    });
  }

  test("its texts are those of reports, and nobody can change it", async () => {
    await using lm = await loadGPT2(randomModel());
    const vocabulary = await lm.vocabulary();
    const { tokens } = await lm.generate("x", { maxNewTokens: 60, logprobs: 20, ignoreEos: true, seed: 3 }).result;
    const reported = tokens.flatMap(({ topLogprobs }) => topLogprobs!);
    assert.ok(reported.some(({ text }) => text === "\uFFFD"));
    for (const { id, text } of reported) assert.equal(vocabulary.text(id), text);
    assert.deepEqual(vocabulary.bytes(0xe4), Uint8Array.of(0xe4));
    vocabulary.bytes(0xe4).fill(0);
    assert.deepEqual(vocabulary.bytes(0xe4), Uint8Array.of(0xe4));
    for (const id of [-1, small.vocab_size, 1.5, Number.NaN]) {
      assert.throws(() => vocabulary.bytes(id), hasCode("INPUT_INVALID"));
      assert.throws(() => vocabulary.text(id), hasCode("INPUT_INVALID"));
    }
  });

  test("of words: a token's bytes are what it is decoded to", async () => {
    const folder = randomModel({ vocab_size: 400 });
    for (const name of ["vocab.json", "merges.txt"]) rmSync(join(folder, name));
    for (const name of ["vocab.txt", "tokenizer_config.json"]) cpSync(join(fixturePath("pipelines/ner"), name), join(folder, name));
    await using lm = await loadGPT2(folder);
    const vocabulary = await lm.vocabulary();
    const { tokenizerSize } = lm.info;
    assert.ok(tokenizerSize! < 400);
    for (let id = 0; id < 400; id++) {
      const text = id < tokenizerSize! ? await lm.decode([id], { skipSpecialTokens: false }) : "";
      assert.deepEqual([Buffer.from(vocabulary.bytes(id)).toString(), vocabulary.text(id)], [text, text]);
    }
    const { tokens } = await lm.score("昨天 walked", { topLogprobs: 20 });
    assert.ok(tokens.some(({ text }) => text === "昨"));
  });

  test("ids that the tokenizer lacks have no bytes; a model without a tokenizer has no vocabulary", async () => {
    const folder = randomModel({ vocab_size: 300 });
    writeByteTokenizer(folder, 257);
    await using lm = await loadGPT2(folder);
    const vocabulary = await lm.vocabulary();
    assert.deepEqual([vocabulary.size, lm.info.tokenizerSize], [300, 257]);
    assert.deepEqual([vocabulary.bytes(299), vocabulary.text(299), vocabulary.text(256)], [new Uint8Array(), "", "<|endoftext|>"]);
    await using bare = await loadGPT2(fixturePath("gpt2-base"));
    await assert.rejects(bare.vocabulary(), hasCode("TOKENIZER_MISSING"));
  });
});
