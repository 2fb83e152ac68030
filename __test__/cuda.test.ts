/**
 * `device: "cuda"`: refused at load where it cannot be, in every build. (What runs on a GPU is compared in
 * `parity.test.ts`: see `npm run test:cuda`.)
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "vitest";
import { CandlewickError, loadBERT, loadGPT2 } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";

const models = [
  ["GPT-2", loadGPT2, fixturePath("gpt2-base")],
  ["BERT", loadBERT, fixturePath("bert-base")],
] as const;

describe('device: "cuda"', () => {
  for (const [name, load, path] of models) {
    for (const dtype of ["f16", "q8_0", "q4_0"] as const) {
      test(`has no ${dtype} for a ${name}, and "auto" takes the CPU`, async () => {
        await assert.rejects(load(path, { device: "cuda", dtype }), hasCode("UNSUPPORTED_DTYPE"));
        await using model = await load(path, { dtype });
        assert.deepEqual([model.info.device, model.info.dtype], ["cpu", dtype]);
      });
    }

    test(`runs a ${name} on a GPU, or says that there is none`, async (t) => {
      try {
        await using model = await load(path, { device: "cuda" });
        assert.equal(model.info.device, "cuda");
      } catch (error) {
        assert.ok(error instanceof CandlewickError && error.code === "UNSUPPORTED_DEVICE", String(error));
        t.skip(error.message);
      }
    });
  }

  test('takes no GGUF file, and "auto" takes the CPU', async () => {
    const path = join(fixturePath("gguf"), "f32.gguf");
    await assert.rejects(loadGPT2(path, { device: "cuda" }), hasCode("UNSUPPORTED_DEVICE"));
    await using lm = await loadGPT2(path);
    assert.equal(lm.info.device, "cpu");
  });
});
