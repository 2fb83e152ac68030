/**
 * `device: "cuda"`: refused at load where it cannot be, in every build. (What runs on a GPU is compared in
 * `parity.test.ts`: see `npm run test:cuda`.)
 */
import assert from "node:assert/strict";
import { describe, test } from "vitest";
import { CandlewickError, loadBERT, loadGPT2, type Device } from "../index.js";
import { fixturePath } from "./support/fixtures.js";

const models = [
  ["GPT-2", loadGPT2, fixturePath("gpt2-base")],
  ["BERT", loadBERT, fixturePath("bert-base")],
] as const;

describe('device: "cuda"', () => {
  for (const [name, load, path] of models) {
    test(`runs a ${name} on a GPU, or says that there is none`, async (t) => {
      try {
        await using model = await load(path, { device: "cuda" });
        assert.equal(model.info.device, "cuda");
        assert.ok(model.info.deviceName);
      } catch (error) {
        assert.ok(error instanceof CandlewickError && error.code === "UNSUPPORTED_DEVICE", String(error));
        t.skip(error.message);
      }
    });
    test(`refuses a GPU for a ${name} that is not there, and a device that is none`, async () => {
      await assert.rejects(load(path, { device: "cuda:999" }), { code: "UNSUPPORTED_DEVICE" });
      for (const device of ["cuda:", "cuda:01", "cuda:-1", "cuda:1e2", "cuda:1000", "gpu"]) {
        await assert.rejects(load(path, { device: device as Device }), { code: "OPTION_INVALID" });
      }
      await using model = await load(path, { device: "cpu" });
      assert.equal(model.info.deviceName, undefined);
    });
  }
});
