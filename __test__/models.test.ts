/** Loading, tokenising, and the shared models behind `generate()`. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { runInNewContext } from "node:vm";
import { describe, test } from "vitest";
import { type CandlewickError, generate, type LoadProgress, loadBERT, loadGPT2 } from "../index.js";
import type { Settled } from "../src/native.js";
import { defaultModelPath } from "../src/package.js";
import { mailbox } from "../src/runtime.js";
import { collect, hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";
import { commitOf, startHub } from "./support/hub-server.js";
import { END, newFolder, randomModel, recitingModel, small } from "./support/models.js";
import { testUnless } from "./support/skip.js";

/** Shows `look` all that is taken from the mailbox, before it is given on. */
function onTake(look: (taken: Settled[]) => void): Disposable {
  const take = mailbox.take;
  mailbox.take = () => {
    const taken = take.call(mailbox);
    look(taken);
    return taken;
  };
  return { [Symbol.dispose]: () => void (mailbox.take = take) };
}

describe("a GPT-2", () => {
  test("says what it is", async () => {
    await using lm = await loadGPT2(randomModel(), { threads: 2, device: "cpu" });
    const { parameters, weightBytes, instructionSet, ...rest } = lm.info;
    assert.match(instructionSet, /^(avx|neon|portable)/);
    assert.deepEqual(rest, {
      modelType: "gpt2",
      vocabularySize: small.vocab_size,
      tokenizerSize: 257,
      positions: small.n_positions,
      layers: small.n_layer,
      hiddenSize: small.n_embd,
      heads: small.n_head,
      eosTokenIds: [],
      dtype: "f32",
      device: "cpu",
      threads: 2,
      adapters: [],
      generationDefaults: {},
    });
    assert.ok(parameters > 30_000 && weightBytes >= parameters * 4);
    assert.throws(() => ((lm.info as { layers: number }).layers = 3), TypeError);
  });

  test("encodes, decodes and counts, one text and several", async () => {
    await using lm = await loadGPT2(randomModel());
    assert.deepEqual(await lm.encode("abc"), Uint32Array.of(97, 98, 99));
    assert.deepEqual(await lm.encode(["a", "", "bc"]), [Uint32Array.of(97), Uint32Array.of(), Uint32Array.of(98, 99)]);
    assert.deepEqual(await lm.encode([]), []);
    assert.equal(await lm.countTokens("我们"), 6);
    assert.deepEqual(await lm.countTokens(["a", "我们"]), [1, 6]);
    assert.equal(await lm.decode(await lm.encode("我们 👩‍👩‍👧")), "我们 👩‍👩‍👧");
    assert.deepEqual(await lm.decode([[97], [98, 99]]), ["a", "bc"]);
    assert.equal(await lm.decode([97, END]), "a");
    assert.equal(await lm.decode([97, END], { skipSpecialTokens: false }), "a<|endoftext|>");
    assert.equal(await lm.decode([0xe6]), "\ufffd");
  });

  test("thousands of texts keep their order", async () => {
    await using lm = await loadGPT2(randomModel());
    const texts = Array.from({ length: 2_000 }, (_, i) => String(i));
    const ids = await lm.encode(texts);
    assert.deepEqual(ids.map((list) => String.fromCharCode(...list)), texts);
    assert.deepEqual(await lm.decode(ids), texts);
    assert.deepEqual(await lm.countTokens(texts), texts.map((text) => text.length));
  });

  test("options are read once, and their own properties alone", async () => {
    await using lm = await loadGPT2(randomModel());
    let reads = 0;
    const options = {
      ignoreEos: true,
      get maxNewTokens() {
        return ++reads === 1 ? 3 : -5;
      },
    };
    assert.equal((await lm.generate("abc", options).result).tokens.length, 3);
    assert.equal((await generate("abc", { model: lm, ignoreEos: true, maxNewTokens: 3 }).result).tokens.length, 3);
    assert.equal(reads, 1);
    const foreign = runInNewContext("({ maxNewTokens: 2, ignoreEos: true })");
    assert.equal((await lm.generate("abc", foreign).result).tokens.length, 2);
  });

  test("one list of many that cannot be decoded rejects the call and nothing else", async () => {
    await using lm = await loadGPT2(randomModel());
    const seen: unknown[] = [];
    const listener = (reason: unknown) => seen.push(reason);
    process.on("unhandledRejection", listener);
    await assert.rejects(lm.decode([...Array.from({ length: 256 }, () => [97]), [-1]]), hasCode("OPTION_INVALID"));
    await new Promise(setImmediate);
    process.off("unhandledRejection", listener);
    assert.deepEqual(seen, []);
  });

  test("a load that is aborted in the middle, and one whose listener throws", async () => {
    const model = randomModel({ n_positions: 2048, n_embd: 512, n_layer: 6 });
    const controller = new AbortController();
    const { signal } = controller;
    const loading = loadGPT2(model, { signal, onProgress: () => controller.abort("enough") });
    await assert.rejects(loading, (error: CandlewickError) => error.code === "ABORTED" && error.cause === "enough");
    const own = new Error("mine");
    let reports = 0;
    const answers: Settled[] = [];
    using _ = onTake((taken) => answers.push(...taken.filter(({ progress }) => !progress)));
    const onProgress = () => {
      reports++;
      throw own;
    };
    // On a busy machine, a load may be complete before its first report is read. It is not so every time.
    const loads = 20;
    for (let load = 1; load <= loads && answers.at(-1)?.code !== "ABORTED"; load++) {
      await assert.rejects(loadGPT2(model, { onProgress }), (error) => error === own);
      assert.equal(reports, load, "no report after the one that threw");
      assert.equal(answers.length, load);
    }
    assert.equal(answers.at(-1)?.code, "ABORTED", "it had stopped");
  });

  test("answers that cannot be read reject the calls that wait for them, and later ones are answered", async () => {
    await using lm = await loadGPT2(randomModel(), { threads: 1 });
    const stream = lm.generate("abc", { ignoreEos: true, maxNewTokens: 100 });
    {
      using _ = onTake(() => {
        throw new TypeError("mine");
      });
      const calls = [lm.encode("abc"), lm.countTokens("abc"), stream.result];
      for (const call of calls) await assert.rejects(call, hasCode("INTERNAL"));
    }
    assert.deepEqual(await lm.encode("abc"), Uint32Array.of(97, 98, 99));
    assert.equal((await lm.generate("abc", { ignoreEos: true, maxNewTokens: 5 }).result).tokens.length, 5);
  });

  for (const dtype of ["f16", "bf16", "int8", "q8_0", "q4_0"] as const) {
    test(`in ${dtype}`, async () => {
      await using lm = await loadGPT2(recitingModel("abcdefgh"), { dtype });
      assert.equal(lm.info.dtype, dtype);
      assert.equal(await lm.generate("a", { temperature: 0 }).text(), "bcdefgh");
    });
  }
});

describe("a BERT", () => {
  test("says what it is, and takes ids in every form", async () => {
    await using bert = await loadBERT(fixturePath("bert-base"));
    assert.equal(bert.info.modelType, "bert");
    assert.equal(bert.info.head, undefined);
    assert.equal(bert.info.hasPooler, true);
    const array = await bert.forward({ ids: [1, 2, 3] });
    assert.deepEqual(await bert.forward({ ids: Uint32Array.of(1, 2, 3), typeIds: [0, 0, 0] }), array);
    assert.deepEqual(array.lastHiddenState!.shape, [3, bert.info.hiddenSize]);
    assert.equal(array.pooled!.length, bert.info.hiddenSize);
    assert.deepEqual(Object.keys(array).sort(), ["lastHiddenState", "pooled"]);
    assert.deepEqual(await bert.forward([]), []);
  });

  test("a text's result does not depend on its company", async () => {
    await using bert = await loadBERT(fixturePath("bert-base"));
    const inputs = Array.from({ length: 300 }, (_, i) => ({ ids: Array.from({ length: 1 + (i % 20) * 2 }, (_, t) => (i * 7 + t) % 100) }));
    const alone = [];
    for (const input of inputs) alone.push(await bert.forward(input));
    assert.deepEqual(await bert.forward(inputs), alone);
    assert.deepEqual(await Promise.all(inputs.map((input) => bert.forward(input))), alone);
  });

  test("closes", async () => {
    const bert = await loadBERT(fixturePath("bert-base"));
    const running = bert.forward(Array.from({ length: 2000 }, () => ({ ids: Array.from({ length: 48 }, (_, id) => id) })));
    const refused = assert.rejects(running, hasCode("MODEL_CLOSED"));
    await bert.close();
    await refused;
    await bert.close();
    await assert.rejects(bert.forward({ ids: [1] }), hasCode("MODEL_CLOSED"));
  });
});

describe("the hub's models", () => {
  test("sharded and behind links, downloaded and then from the cache", async () => {
    const cache = newFolder("cache");
    const folder = fixturePath("gpt2-variant-sharded");
    const names = readdirSync(folder).filter((name) => !name.startsWith("expected"));
    const files = Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name))]));
    const environment = Object.fromEntries(["HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE"].map((name) => [name, process.env[name]]));
    await using hub = await startHub();
    hub.models.set("tiny/sharded", { commit: commitOf("sharded"), files });
    Object.assign(process.env, { HF_HUB_CACHE: cache, HF_ENDPOINT: hub.endpoint, HF_HUB_OFFLINE: "0" });
    try {
      const stages: string[] = [];
      const onProgress = ({ stage, loaded, total }: LoadProgress) => void (loaded === total && stages.push(stage));
      const prompt = [1, 2, 3];
      const greedy = { temperature: 0, maxNewTokens: 8 };
      await using expected = await loadGPT2(folder);
      const { tokens } = await expected.generate(prompt, greedy).result;
      await using lm = await loadGPT2("tiny/sharded", { onProgress });
      assert.deepEqual((await lm.generate(prompt, greedy).result).tokens, tokens);
      assert.ok(stages.filter((stage) => stage === "download").length >= 4 && stages.at(-1) === "load", stages.join());
      const asked = hub.requests.length;
      await using cached = await loadGPT2("tiny/sharded", { localFilesOnly: true });
      assert.deepEqual((await cached.generate(prompt, greedy).result).tokens, tokens);
      assert.equal(hub.requests.length, asked);
    } finally {
      for (const [name, value] of Object.entries(environment)) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    }
  });
});

describe("generate()", () => {
  test("with a model's path, with a model", async () => {
    const path = recitingModel("abcdefgh");
    assert.equal(await generate("a", { model: path, temperature: 0 }).text(), "bcdefgh");
    const two = await Promise.all([generate("a", { model: path, temperature: 0 }).text(), generate("ab", { model: path, temperature: 0 }).text()]);
    assert.deepEqual(two, ["bcdefgh", "cdefgh"]);
    await using lm = await loadGPT2(path);
    assert.equal(await generate("a", { model: lm, temperature: 0 }).text(), "bcdefgh");
    // It is loaded once: now there is nothing left to load.
    rmSync(path, { recursive: true });
    assert.equal(await generate("a", { model: path, temperature: 0 }).text(), "bcdefgh");
  });

  test("options are checked at once, before the model is there", () => {
    assert.throws(() => generate("a", { temprature: 1 } as object), hasCode("OPTION_UNKNOWN"));
    assert.throws(() => generate("a", { temperature: NaN }), hasCode("OPTION_INVALID"));
    assert.throws(() => generate(""), hasCode("PROMPT_EMPTY"));
  });

  test("a model that cannot be loaded is tried again", async () => {
    const model = `${recitingModel("abc")}-later`;
    await assert.rejects(generate("a", { model }).result, hasCode("MODEL_NOT_FOUND"));
    renameSync(recitingModel("abc"), model);
    assert.equal(await generate("a", { model, temperature: 0 }).text(), "bc");
  });

  test("a stream that is cancelled while its model loads", async () => {
    const stream = generate("a", { model: randomModel({ n_embd: 256, n_layer: 6 }) });
    stream.cancel();
    assert.deepEqual(await collect(stream), []);
    assert.equal((await stream.result).finishReason, "aborted");
  });

  testUnless(!existsSync(join(defaultModelPath, "config.json")) && "models/default is not there", "with the model that ships, in English and Chinese", async () => {
    for (const prompt of ["It is a truth universally acknowledged", "我们很高兴能够与您合作！"]) {
      const tokens = await collect(generate(prompt, { minNewTokens: 8, maxNewTokens: 24, temperature: 0 }));
      const text = tokens.map((token) => token.text).join("");
      assert.ok(text.length > 0 && !text.includes("\ufffd"), text);
    }
  });
});
