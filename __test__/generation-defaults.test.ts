/** What a model's files say of how it generates: read as transformers reads it, under a call's own options. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { generate, type GenerateOptions, loadGPT2, pipeline } from "../index.js";
import { generationDefaults, overDefaults } from "../src/generation-defaults.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";
import { randomModel } from "./support/models.js";

interface Case {
  generation?: Record<string, unknown>;
  config?: Record<string, unknown>;
  call?: Record<string, unknown>;
  effective: Record<string, unknown>;
}

/** A call's options in our names. */
function ourCall({ do_sample, num_beams, top_k, max_new_tokens, repetition_penalty, temperature, ...lists }: Record<string, unknown> = {}): GenerateOptions {
  const greedy = do_sample === false && num_beams === undefined ? { temperature: 0 } : {};
  const options = {
    ...greedy, numBeams: num_beams, topK: top_k, maxNewTokens: max_new_tokens, repetitionPenalty: repetition_penalty,
    suppressTokens: lists["suppress_tokens"], beginSuppressTokens: lists["begin_suppress_tokens"], badWords: lists["bad_words_ids"],
  };
  return JSON.parse(JSON.stringify(temperature === undefined ? options : { ...options, temperature })) as GenerateOptions;
}

describe("transformers' reading", () => {
  const { cases } = JSON.parse(readFileSync(fixturePath("generation-config.json"), "utf8")) as { cases: Case[] };
  for (const { generation, config = {}, call, effective } of cases) {
    test(JSON.stringify({ generation, config, call }), () => {
      const defaults = generationDefaults("here", { config, generation });
      const options = overDefaults(ourCall(call), defaults ?? {});
      const mode = (options.numBeams ?? 1) > 1 ? "beam" : options.temperature === 0 ? "greedy" : "sample";
      const found: Record<string, unknown> = {
        mode,
        repetitionPenalty: options.repetitionPenalty ?? 1,
        noRepeatNgramSize: options.noRepeatNgramSize ?? 0,
        minNewTokens: options.minNewTokens ?? 0,
        maxNewTokens: options.maxNewTokens ?? options.wishedNewTokens ?? null,
        maxLength: options.maxNewTokens === undefined ? (options.wishedLength ?? null) : null,
        suppressed: Array.from(options.suppressTokens ?? []).sort((a, b) => a - b),
        beginSuppressed: options.beginSuppressTokens ?? [],
        badWords: options.badWords ?? [],
        stop: options.stop ?? null,
        sequences: options.n ?? options.numReturnSequences ?? 1,
      };
      const sampling = { temperature: options.temperature ?? 1, topK: options.topK ?? 0, topP: options.topP ?? 1, minP: options.minP ?? 0 };
      const beams = { numBeams: options.numBeams, lengthPenalty: options.lengthPenalty ?? 1, earlyStopping: options.earlyStopping ?? false };
      assert.deepEqual({ ...found, ...(mode === "sample" ? sampling : mode === "beam" ? beams : {}) }, effective);
    });
  }
});

/** A model with this `generation_config.json`. */
function modelWith(generation: object, config: object = {}): string {
  const folder = randomModel({ n_positions: 128 });
  writeFileSync(join(folder, "generation_config.json"), JSON.stringify(generation));
  const path = join(folder, "config.json");
  writeFileSync(path, JSON.stringify({ ...(JSON.parse(readFileSync(path, "utf8")) as object), ...config }));
  return folder;
}

describe("a model's defaults", () => {
  const text = async (model: string, options: GenerateOptions = {}) => {
    await using lm = await loadGPT2(model, { threads: 1 });
    return (await lm.generate("abc", { seed: 5, ignoreEos: true, ...options }).result).text;
  };

  test("are what options of the same values give, and an option of the call comes first", async () => {
    const file = { do_sample: true, temperature: 0.6, top_k: 12, top_p: 0.9, repetition_penalty: 1.2, max_new_tokens: 24 };
    const options = { temperature: 0.6, topK: 12, topP: 0.9, repetitionPenalty: 1.2, maxNewTokens: 24 };
    const [plain, told] = [randomModel({ n_positions: 128 }), modelWith(file)];
    const expected = await text(plain, options);
    assert.equal(await text(told), expected);
    assert.notEqual(await text(told, { temperature: 2, topK: 0 }), expected);
    assert.equal(await text(told, { temperature: 0 }), await text(plain, { ...options, temperature: 0, topK: 0, topP: 1 }));
    assert.equal((await text(told, { maxNewTokens: 3, temperature: 0 })).length, 3);
  });

  test("are shown, and cannot be changed", async () => {
    await using lm = await loadGPT2(modelWith({ do_sample: true, temperature: 0.5, eos_token_id: 256 }), { threads: 1 });
    assert.deepEqual(lm.info.generationDefaults, { temperature: 0.5, topK: 50 });
    assert.ok(Object.isFrozen(lm.info.generationDefaults));
    await using without = await loadGPT2(randomModel(), { threads: 1 });
    assert.deepEqual(without.info.generationDefaults, {});
  });

  test("of a length give way to the positions", async () => {
    await using lm = await loadGPT2(modelWith({ max_new_tokens: 1000 }), { threads: 1 });
    const { usage } = await lm.generate("x".repeat(100), { ignoreEos: true }).result;
    assert.equal(usage.completionTokens, 28);
    await using short = await loadGPT2(modelWith({ max_length: 20 }), { threads: 1 });
    assert.equal((await short.generate("x".repeat(12), { ignoreEos: true }).result).usage.completionTokens, 8);
  });

  test("search, and a call may sample instead", async () => {
    await using lm = await loadGPT2(modelWith({ num_beams: 3, num_return_sequences: 2, max_new_tokens: 6 }), { threads: 1 });
    assert.equal((await lm.generate("abc").result).sequences.length, 2);
    assert.equal((await lm.generate("abc", { temperature: 0.8 }).result).sequences.length, 1);
    assert.equal((await lm.generate("abc", { n: 3 }).result).sequences.length, 3);
  });

  test("hold for generate() by name and for the pipeline, whose own parameters come before them", async () => {
    const model = modelWith({ max_new_tokens: 4 }, { task_specific_params: { "text-generation": { do_sample: true, max_new_tokens: 9, top_k: 1 } } });
    assert.equal((await generate("abc", { model, ignoreEos: true }).result).usage.completionTokens, 4);
    await using task = await pipeline("text-generation", model);
    const [{ generatedText }] = (await task("abc", { ignoreEos: true, returnFullText: false })) as [{ generatedText: string }];
    assert.equal(generatedText, await text(model, { temperature: 0, maxNewTokens: 9 }));
  });

  test("that cannot be are refused by name when the model is loaded", async () => {
    for (const wrong of [{ temperature: -1 }, { top_p: 2 }, { max_length: 0 }, { do_sample: "yes" }, { suppress_tokens: ["a"] }, { suppress_tokens: [-1] }, { begin_suppress_tokens: 3 }, { bad_words_ids: [3] }, { bad_words_ids: ["word"] }, { bad_words_ids: [[]] }, { stop_strings: [3] }, { num_return_sequences: 3 }, { eos_token_id: "end" }]) {
      const [key] = Object.keys(wrong);
      const named = (error: Error) => hasCode("CONFIG_INVALID")(error) && error.message.includes(key!) && error.message.includes("generation_config.json");
      await assert.rejects(loadGPT2(modelWith(wrong), { threads: 1 }), named, key);
    }
  });

  test("that are not supported are named in a warning, once", async () => {
    const warnings: Error[] = [];
    const listener = (warning: Error) => warnings.push(warning);
    process.on("warning", listener);
    const model = modelWith({ do_sample: true, typical_p: 0.2, num_beam_groups: 1, sequence_bias: [[[1, 2], 3]], epsilon_cutoff: 0 });
    for (let i = 0; i < 2; i++) await (await loadGPT2(model, { threads: 1 })).close();
    await new Promise(setImmediate);
    process.off("warning", listener);
    const own = warnings.filter((warning) => (warning as { code?: string }).code === "CANDLEWICK_GENERATION_CONFIG");
    assert.equal(own.length, 1);
    assert.match(own[0]!.message, /typical_p 0\.2, sequence_bias \[\[\[1,2\],3\]\]$/);
  });
});

describe("the model that ships", () => {
  const SEEDS = Array.from({ length: 24 }, (_, seed) => seed);

  test("writes English after English, without a call having to say how", async () => {
    const stream = (seed: number) => generate("It is a truth universally acknowledged", { maxNewTokens: 40, seed }).text();
    const texts = await Promise.all(SEEDS.map(stream));
    assert.deepEqual(texts.filter((text) => /[\u3000-\uFFFF]/.test(text)), []);
  });

  test("ends a text in whole characters, at any temperature and any length", async () => {
    for (const prompt of ["我们很高兴能够与您合作！", "Once"]) {
      const texts = await Promise.all(
        SEEDS.map(async (seed) => {
          const stream = generate(prompt, { maxNewTokens: 1 + seed, seed, temperature: 1, topK: 0, topP: 1 });
          let streamed = "";
          for await (const token of stream) streamed += token.text;
          assert.equal(streamed, (await stream.result).text);
          return streamed;
        }),
      );
      assert.deepEqual(texts.filter((text) => text.endsWith("\uFFFD")), []);
    }
  });
});
