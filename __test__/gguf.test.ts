/** GGUF files as people have them: mixed types, tokens of the user's, no tokenizer. The values are llama.cpp's. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "vitest";
import { loadGPT2 } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";

interface Llama {
  readonly ids: readonly number[][];
  readonly texts: readonly string[];
  readonly greedy: readonly { prompt: number[]; tokens: number[] }[];
}

const llama = JSON.parse(readFileSync(fixturePath("gguf-types/llama.json"), "utf8")) as Llama;
const { texts } = JSON.parse(readFileSync(fixturePath("gguf-types/expected.json"), "utf8")) as { texts: string[] };

describe("a GGUF file", () => {
  test("with a Q6_K embedding and tokens of all types", async () => {
    await using lm = await loadGPT2(fixturePath("gguf-types/quantised.gguf"), { threads: 1 });
    assert.equal(lm.info.dtype, "q4_0");
    assert.deepEqual((await lm.encode(texts)).map((ids) => [...ids]), llama.ids);
    assert.deepEqual(await lm.decode(llama.ids.map((ids) => [...ids]), { skipSpecialTokens: true }), llama.texts);
  });

  test("continued in f32 as by llama.cpp", async () => {
    await using lm = await loadGPT2(fixturePath("gguf-types/quantised.gguf"), { dtype: "f32", threads: 1 });
    for (const { prompt, tokens } of llama.greedy) {
      const options = { temperature: 0, maxNewTokens: tokens.length, ignoreEos: true } as const;
      const result = await lm.generate(prompt, options).result;
      assert.deepEqual(result.tokens.map(({ id }) => id), tokens);
    }
  });

  test("with a user-defined token that is generated, which is text", async () => {
    await using lm = await loadGPT2(fixturePath("gguf-types/quantised.gguf"), { threads: 1 });
    const tool = 297;
    const { text } = await lm.generate([1, 2], { logitBias: { [tool]: 1_000 }, temperature: 0, maxNewTokens: 2 }).result;
    assert.equal(text, "<tool><tool>");
  });

  test("without a tokenizer takes ids", async () => {
    await using lm = await loadGPT2(fixturePath("gguf-types/others.gguf"), { threads: 1 });
    const { tokens } = await lm.generate([1, 2, 3], { temperature: 0, maxNewTokens: 4 }).result;
    assert.equal(tokens.length, 4);
    await assert.rejects(async () => lm.encode("text"), hasCode("TOKENIZER_MISSING"));
  });
});
