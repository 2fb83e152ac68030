/**
 * Where a text ends and what is never said: as transformers has it, on a model in whose texts special tokens stand
 * everywhere.
 */
import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type GenerateOptions, type GeneratedSequence, type GPT2, loadGPT2, pipeline, type TokenIds } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { candlewick } from "./support/cli.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder } from "./support/models.js";

interface Case {
  prompt: number[];
  numBeams: number;
  tokens: number[];
}
interface Expected {
  maxNewTokens: number;
  noRepeatNgramSize: number;
  stopping: (Case & { stop: string; text: string })[];
  ending: (Case & { stop: number[]; stopTokenId: number | null })[];
  banning: (Case & Pick<GenerateOptions, "suppressTokens" | "beginSuppressTokens"> & { badWords?: (string | number[])[] })[];
}

const folder = fixturePath("stops");
const { maxNewTokens, noRepeatNgramSize, stopping, ending, banning } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8")) as Expected;
const common = { maxNewTokens, noRepeatNgramSize };
const anyway = (value: unknown) => value as never;

let lm: GPT2;
beforeAll(async () => {
  lm = await loadGPT2(folder, { threads: 1 });
});
afterAll(() => lm?.close());

const searching = (numBeams: number): GenerateOptions => (numBeams > 1 ? { numBeams } : { temperature: 0 });
const said = async (prompt: TokenIds, options: GenerateOptions, model = lm): Promise<GeneratedSequence> =>
  model.generate(prompt, { ...common, ...options }).result;
const ids = ({ tokens }: GeneratedSequence): number[] => tokens.map(({ id }) => id);

/** A copy of the model with other files beside it. */
function modelWith(files: Readonly<Record<string, string>>): string {
  const copy = newFolder("stops");
  cpSync(folder, copy, { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(copy, name), content);
  return copy;
}

describe("stop strings", () => {
  test("see the names of special tokens, as transformers' do", async () => {
    assert.ok(stopping.length > 150 && stopping.some(({ numBeams }) => numBeams > 1));
    const found = await Promise.all(stopping.map(({ prompt, numBeams, stop }) => said(prompt, { ...searching(numBeams), stop: [stop, "<never>"] })));
    for (const [index, { stop, tokens, text, numBeams }] of stopping.entries()) {
      const one = found[index]!;
      const what = `${JSON.stringify(stop)}, ${numBeams} beams`;
      assert.deepEqual(ids(one), tokens, what);
      assert.deepEqual([one.text, one.finishReason, one.stopSequence, one.stopTokenId], [text, "stop", stop, undefined], what);
    }
  });

  test("end a text at the same place whatever else is asked", async () => {
    const greedy = stopping.filter(({ numBeams }) => numBeams === 1).filter((_, index) => index % 6 === 0);
    await using draft = await loadGPT2(folder, { threads: 1, dtype: "int8" });
    const ways: ((one: Case) => GenerateOptions)[] = [
      () => ({ logprobs: 2 }),
      () => ({ speculation: false }),
      () => ({ speculation: { draft } }),
      ({ tokens }) => ({ continueFrom: tokens.slice(0, tokens.length >> 1) }),
      ({ tokens }) => ({ continueFrom: tokens.slice(0, -1) }),
    ];
    for (const one of greedy) {
      for (const [at, way] of ways.entries()) {
        const found = await said(one.prompt, { temperature: 0, stop: one.stop, ...way(one) });
        assert.deepEqual([found.text, ids(found), found.stopSequence], [one.text, one.tokens, one.stop], `${one.stop}, way ${at}`);
      }
    }
    // Of several samples each ends where its own text has it.
    const { sequences } = await lm.generate(greedy[0]!.prompt, { ...common, n: 8, seed: 3, stop: ["<sep>", "</s>", "[END]", "<|eot|>"] }).result;
    const ends = await lm.encode(["<sep>", "</s>", "[END]", "<|eot|>"]);
    for (const sequence of sequences) {
      const specials = ids(sequence).filter((id) => ends.some(([end]) => end === id));
      assert.equal(specials.length, sequence.finishReason === "stop" ? 1 : 0);
      if (sequence.finishReason === "stop") assert.deepEqual([...(await lm.encode(sequence.stopSequence!))], [ids(sequence).at(-1)]);
    }
    assert.ok(sequences.some(({ finishReason }) => finishReason === "stop"));
  });

  test("of tasks and of chat as well", async () => {
    // What transformers' prompts end with is what these end with: a text that is the special token's place.
    const chatting = modelWith({ "chat_template.jinja": "{{ messages[-1].content }}" });
    await using model = await loadGPT2(chatting, { threads: 1 });
    const specials = ["<|endoftext|>", "<|eot|>", "<sep>", "</s>", "[END]", "<|user|>"];
    const options = { ...common, temperature: 0 };
    const free = await model.generate("once more", options).result;
    const full = await model.decode(Uint32Array.from(ids(free)), { skipSpecialTokens: false });
    const stop = specials.filter((name) => full.includes(name)).sort((a, b) => full.indexOf(a) - full.indexOf(b))[0]!;
    const text = full.slice(0, full.indexOf(stop));
    assert.ok(full.includes(stop));
    const chat = await model.chat("once more", { ...options, stop }).result;
    assert.deepEqual([chat.text, chat.stopSequence], [text, stop]);
    const generate = await pipeline("text-generation", model);
    assert.equal((await generate("once more", { ...options, stop, returnFullText: false }))[0]!.generatedText, text);
    const translate = await pipeline("translation", model, { separator: "" });
    assert.equal((await translate("once more", { ...options, numBeams: 1, stop })).translationText, text.trim());
    const dialogue = await pipeline("dialogue", model);
    assert.equal((await dialogue("once more", { ...options, stop })).content, text);
  });

  test("and ids and bans of the command line", async () => {
    const command = (...args: string[]) => candlewick(["generate", "-m", folder, "--threads", "1", "--temperature", "0", "--max-new-tokens", "20", "--json", "once", ...args]);
    const options: GenerateOptions = { maxNewTokens: 20, temperature: 0 };
    const free = await lm.generate("once", options).result;
    const [third, fifth] = [free.tokens[2]!, free.tokens[4]!];
    const cases: [string[], GenerateOptions][] = [
      [["--stop-token", String(third.id), "--stop-token", "1"], { stop: [third.id, 1] }],
      [["--bad-word", third.text.trim(), "--bad-word", "the"], { badWords: [third.text.trim(), "the"] }],
      [["--suppress-token", String(third.id), "--suppress-token", String(fifth.id)], { suppressTokens: [third.id, fifth.id] }],
      [["--stop", "<sep>", "--stop", "</s>"], { stop: ["<sep>", "</s>"] }],
    ];
    for (const [args, more] of cases) {
      const { code, stdout } = await command(...args);
      const { text, finishReason } = await lm.generate("once", { ...options, ...more }).result;
      assert.deepEqual([code, JSON.parse(stdout).text, JSON.parse(stdout).finishReason], [0, text, finishReason], args.join(" "));
    }
    assert.equal((await command("--stop-token", "100000")).code, 1);
  });

  test("that no text can have are refused at once", () => {
    const half = ["\ud800", "a\udc00", "\ude00\ud83d"];
    for (const stop of [...half, "", "x".repeat(1025)]) assert.throws(() => lm.generate("a", { stop }), hasCode("OPTION_INVALID"));
    for (const stop of ["坏", "🙂", "\ufffd", "x".repeat(1024), "<|eot|"]) assert.doesNotThrow(() => lm.generate("a", { stop }).cancel());
  });
});

describe("stop ids", () => {
  test("end a text as transformers' end ids, and are told", async () => {
    const forms: ((all: number[]) => GenerateOptions)[] = [
      (all) => ({ stop: all }),
      (all) => ({ stopTokenIds: all }),
      (all) => ({ stop: ["<never>", all[0]!], stopTokenIds: all.slice(1) }),
    ];
    const found = await Promise.all(ending.map(({ prompt, numBeams, stop }, index) => said(prompt, { ...searching(numBeams), ...forms[index % 3]!(stop) })));
    for (const [index, { tokens, stopTokenId, stop }] of ending.entries()) {
      const one = found[index]!;
      assert.deepEqual([ids(one), one.stopTokenId, one.stopSequence], [tokens, stopTokenId ?? undefined, undefined], String(stop));
      assert.equal(one.finishReason, stopTokenId === null ? "length" : "stop");
    }
    const [{ prompt, stop, stopTokenId }] = ending.filter((one) => one.stopTokenId !== null && one.numBeams === 1) as [Expected["ending"][0]];
    assert.equal((await said(prompt, { temperature: 0, stop: stopTokenId! })).stopTokenId, stopTokenId, "a number by itself");
    assert.equal((await said(prompt, { temperature: 0, stop, ignoreEos: true })).stopTokenId, stopTokenId);
  });

  test("and strings of a wrong kind are refused at once", () => {
    const wrong: unknown[] = [-1, 1.5, Number.NaN, 2 ** 32, 100_000, ["a", -1], [["a"]], [null], ["a", ""], { 0: "a" }, true, Array.from({ length: 65 }, () => "x"), Array.from({ length: 1100 }, () => 1)];
    for (const stop of wrong) assert.throws(() => lm.generate("a", { stop: anyway(stop) }), hasCode("OPTION_INVALID"), JSON.stringify(stop)?.slice(0, 40));
    const ids = [[346], 5, "5", [-1], ["a"], Array.from({ length: 1025 }, () => 1)];
    for (const stopTokenIds of ids) assert.throws(() => lm.generate("a", { stopTokenIds: anyway(stopTokenIds) }), hasCode("OPTION_INVALID"));
  });
});

describe("what is never said", () => {
  test("is what transformers never says, in a greedy and in a beam search", async () => {
    assert.ok(banning.some(({ numBeams, badWords }) => numBeams > 1 && badWords) && banning.some(({ badWords }) => typeof badWords?.[0] === "string"));
    const found = await Promise.all(
      banning.map(({ prompt, numBeams, badWords = [], suppressTokens = [], beginSuppressTokens = [] }) =>
        said(prompt, { ...searching(numBeams), badWords, suppressTokens, beginSuppressTokens }),
      ),
    );
    for (const [index, one] of banning.entries()) assert.deepEqual(ids(found[index]!), one.tokens, JSON.stringify(one));
  });

  test("is what the model's files say, where a call does not", async () => {
    for (const one of banning.filter(({ numBeams, badWords }) => numBeams === 1 && typeof badWords?.[0] !== "string").slice(0, 10)) {
      const { badWords, suppressTokens, beginSuppressTokens } = one;
      const file = { bad_words_ids: badWords, suppress_tokens: suppressTokens, begin_suppress_tokens: beginSuppressTokens };
      await using model = await loadGPT2(modelWith({ "generation_config.json": JSON.stringify(file) }), { threads: 1 });
      const { maxNewTokens: _, ...defaults } = model.info.generationDefaults;
      assert.deepEqual({ ...defaults, temperature: 0 }, JSON.parse(JSON.stringify({ badWords, suppressTokens, beginSuppressTokens, temperature: 0 })));
      assert.deepEqual(ids(await said(one.prompt, {}, model)), one.tokens);
      const none = await said(one.prompt, { badWords: [], suppressTokens: [], beginSuppressTokens: [] }, model);
      assert.deepEqual(ids(none), ids(await said(one.prompt, { temperature: 0 })), "a call's own come first");
    }
  });

  test("in samples and texts that go on", async () => {
    const prompt = banning[0]!.prompt;
    const free = ids(await said(prompt, { seed: 5 }));
    const bans = { badWords: [free.slice(0, 2), [free[4]!], "the"], suppressTokens: Uint32Array.of(free[7]!), beginSuppressTokens: [free[1]!], seed: 5 };
    const { sequences } = await lm.generate(prompt, { ...common, ...bans, n: 6 }).result;
    const pair = free.slice(0, 2).join();
    for (const sequence of sequences) {
      const all = ids(sequence);
      assert.ok(!all.includes(free[4]!) && !all.includes(free[7]!) && all[0] !== free[1]);
      assert.ok(all.every((id, at) => [id, all[at + 1]].join() !== pair));
    }
    const whole = await said(prompt, bans);
    const rest = await said(prompt, { ...bans, continueFrom: ids(whole).slice(0, 9) });
    assert.deepEqual(ids(rest), ids(whole));
    assert.deepEqual(ids(whole), ids(sequences[0]!));
  });

  test("of a wrong kind is refused at once", () => {
    const words: unknown[] = [5, [5], [""], "", [[]], [[-1]], [["a"]], [null], [[1.5]], [Array(2)], ["\ud800"], ["x".repeat(1025)], { a: 1 }, [[346]], Array.from({ length: 10_001 }, () => "x")];
    // Characters, not bytes.
    assert.doesNotThrow(() => lm.generate("a", { badWords: ["🙂".repeat(512), "a".repeat(1024)] }).cancel());
    for (const badWords of words) assert.throws(() => lm.generate("a", { badWords: anyway(badWords) }), hasCode("OPTION_INVALID"), JSON.stringify(badWords)?.slice(0, 40));
    for (const list of [5, "5", ["a"], [-1], [346], [1.5], { 0: 1 }, Array.from({ length: 100_001 }, () => 1)]) {
      assert.throws(() => lm.generate("a", { suppressTokens: anyway(list) }), hasCode("OPTION_INVALID"));
      assert.throws(() => lm.generate("a", { beginSuppressTokens: anyway(list) }), hasCode("OPTION_INVALID"));
    }
  });

  test("all tokens: an error", async () => {
    const all = Array.from({ length: lm.info.vocabularySize }, (_, id) => id);
    for (const bans of [{ suppressTokens: all }, { badWords: all.map((id) => [id]) }, { beginSuppressTokens: all, numBeams: 2 }]) {
      await assert.rejects(said([1], bans), hasCode("OPTION_INVALID"));
    }
  });
});

describe("instead of a logits processor", () => {
  test("there is an error that names what there is", () => {
    for (const name of ["logitsProcessor", "logits_processor", "prefix_allowed_tokens_fn"]) {
      assert.throws(() => lm.generate("a", anyway({ [name]: () => {} })), hasCode("OPTION_UNKNOWN"));
    }
  });

  /** docs/api.md shows this loop. */
  async function choosing(prompt: TokenIds, options: GenerateOptions, length: number, edit: (top: readonly { id: number; logprob: number }[], at: number) => Record<number, number> | undefined): Promise<number[]> {
    const made: number[] = [];
    while (made.length < length) {
      const step = { ...options, logprobs: 20, maxNewTokens: made.length + 1, continueFrom: made };
      let { tokens } = await lm.generate(prompt, step).result;
      const logitBias = edit(tokens.at(-1)!.topLogprobs!, made.length);
      if (logitBias) ({ tokens } = await lm.generate(prompt, { ...step, logitBias }).result);
      made.push(tokens.at(-1)!.id);
    }
    return made;
  }

  test("token by token a caller chooses, and without a change gets what one call gives", async () => {
    const prompt = banning[0]!.prompt;
    for (const options of [{ temperature: 0 }, { temperature: 0.9, topK: 30, seed: 11, repetitionPenalty: 1.1 }]) {
      const whole = ids(await lm.generate(prompt, { ...options, maxNewTokens: 12 }).result);
      assert.deepEqual(await choosing(prompt, options, 12, () => undefined), whole);
    }
    const second = await choosing(prompt, { temperature: 0 }, 6, (top, at) => (at === 2 ? { [top[0]!.id]: -Infinity } : undefined));
    const plain = await lm.generate(prompt, { temperature: 0, maxNewTokens: 3, logprobs: 2 }).result;
    assert.deepEqual(second.slice(0, 2), ids(plain).slice(0, 2));
    assert.equal(second[2], plain.tokens[2]!.topLogprobs![1]!.id, "the second best, where the edit asked for it");
  });
});
