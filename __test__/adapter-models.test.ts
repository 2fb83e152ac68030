/** An adapter's folder where a model's is expected. What PEFT says: `tools/fixtures/adapter_models.py`; what loads: `crates/models/tests/adapter_models.rs`. */
import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import { evaluate, finetune, loadBERT, loadGPT2, pipeline, trainTokenizer } from "../index.js";
import { modelFolder } from "../src/package.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath, readTensors, worst } from "./support/fixtures.js";
import { commitOf, startHub } from "./support/hub-server.js";
import { newFolder } from "./support/models.js";

const expected = JSON.parse(readFileSync(join(fixturePath("adapter-models"), "expected.json"), "utf8")) as {
  tolerance: { atol: number; rtol: number };
  input_ids: Record<"classifier" | "head", number[]>;
};
const adapterPath = (name: string) => join(fixturePath("adapter-models"), name);

/** A copy of an adapter, which calls its base by another name. */
function renamed(name: string, base: string): string {
  const folder = newFolder("adapter");
  cpSync(adapterPath(name), folder, { recursive: true });
  const file = join(folder, "adapter_config.json");
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), base_model_name_or_path: base }));
  return folder;
}

async function logitsEqualPEFT(source: string): Promise<void> {
  await using bert = await loadBERT(source, { dtype: "f32" });
  const { logits } = await bert.forward({ ids: expected.input_ids.classifier });
  const { data } = readTensors("adapter-models").get("classifier.logits")!;
  assert.ok(worst(logits!.data, data, expected.tolerance) <= 1);
}

describe("an adapter's base", () => {
  test("is found from the adapter's folder, by an absolute path, and from the working directory", async () => {
    await logitsEqualPEFT(adapterPath("classifier"));
    await logitsEqualPEFT(renamed("classifier", fixturePath("bert-base")));
    await logitsEqualPEFT(renamed("classifier", join("__test__", "fixtures", "bert-base")));
  });

  test("is found as an installed package of weights, from the adapter's own package on", async () => {
    const packages = join(newFolder("app"), "node_modules");
    const base = join(packages, "candlewick-model-for-tests");
    cpSync(fixturePath("bert-base"), base, { recursive: true });
    writeFileSync(join(base, "package.json"), JSON.stringify({ name: "candlewick-model-for-tests", version: "1.0.0" }));
    const adapter = join(packages, "candlewick-model-adapter-for-tests");
    cpSync(renamed("classifier", "candlewick-model-for-tests"), adapter, { recursive: true });
    await logitsEqualPEFT(adapter);
    assert.equal(modelFolder("candlewick-model-for-tests", adapter), base);
    await assert.rejects(loadBERT(renamed("classifier", "candlewick-model-no-such")), hasCode("MODEL_NOT_FOUND"));
  });

  test("is found on the hub, and so is the adapter", async () => {
    const read = (folder: string, names: readonly string[]) => Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name))]));
    const adapter = read(renamed("classifier", "tests/base"), ["adapter_config.json", "adapter_model.safetensors"]);
    const base = read(fixturePath("bert-base"), ["config.json", "model.safetensors"]);
    await using hub = await startHub({ "tests/base": { commit: commitOf("base"), files: base }, "tests/adapter": { commit: commitOf("adapter"), files: adapter } });
    const environment = { ...process.env };
    Object.assign(process.env, { HF_HOME: newFolder("hub"), HF_ENDPOINT: hub.endpoint });
    try {
      await logitsEqualPEFT("tests/adapter");
      const requests = hub.requests.length;
      process.env["HF_HUB_OFFLINE"] = "1";
      await logitsEqualPEFT("tests/adapter");
      assert.equal(hub.requests.length, requests, "all of it is in the cache");
      await assert.rejects(loadBERT(renamed("classifier", "tests/another")), hasCode("MODEL_NOT_FOUND"));
    } finally {
      process.env = environment;
    }
  });

  test("that is nowhere, or another model, is an error", async () => {
    await assert.rejects(loadBERT(renamed("classifier", "./no/such/folder")), hasCode("MODEL_NOT_FOUND"));
    await assert.rejects(loadBERT(renamed("classifier", "")), hasCode("MODEL_NOT_FOUND"));
    await assert.rejects(loadBERT(renamed("classifier", fixturePath("bert-classify-5"))), hasCode("TENSOR_SHAPE"));
    await assert.rejects(loadBERT(adapterPath("head")), hasCode("UNSUPPORTED_MODEL"));
    const folder = newFolder("adapter");
    writeFileSync(join(folder, "adapter_config.json"), "{");
    await assert.rejects(loadBERT(folder), hasCode("CONFIG_INVALID"));
  });
});

test("a GPT-2's adapter continues as PEFT does", async () => {
  const { greedy, prompt } = JSON.parse(readFileSync(join(fixturePath("adapters"), "expected.json"), "utf8")) as {
    greedy: Record<string, number[]>;
    prompt: number[];
  };
  for (const name of ["all", "stabilised"]) {
    await using lm = await loadGPT2(join(fixturePath("adapters"), name), { dtype: "f32" });
    const { tokens } = await lm.generate(prompt, { temperature: 0, maxNewTokens: greedy[name]!.length }).result;
    assert.deepEqual(tokens.map(({ id }) => id), greedy[name]);
  }
});

describe("an adapter that finetune() made", () => {
  const rows = Array.from({ length: 48 }, (_, i) => ({ text: `the ${i % 2 ? "lovely" : "dull"} film number ${i % 7}`, label: i % 2 ? "good" : "bad" }));
  let base: string;
  let output: string;
  before(async () => {
    base = newFolder("base");
    cpSync(fixturePath("bert-base"), base, { recursive: true });
    await trainTokenizer({ type: "wordpiece", texts: rows.map(({ text }) => text), output: base, vocabularySize: 80, minFrequency: 1 });
    output = newFolder("tuned");
    await finetune({ model: base, task: "text-classification", train: rows, output, epochs: 3, learningRate: 1e-2, lora: { rank: 4 } }).result;
  });

  test("is the model that was merged, labels and all, for loadBERT, pipeline and evaluate", async () => {
    const adapter = join(output, "adapter");
    await using whole = await loadBERT(output, { dtype: "f32" });
    await using part = await loadBERT(adapter, { dtype: "f32" });
    assert.deepEqual(part.info.labels, whole.info.labels);
    assert.deepEqual([...part.info.labels].toSorted(), ["bad", "good"]);
    const [a, b] = await Promise.all([whole, part].map((model) => model.forward("the lovely film number 3")));
    assert.ok(worst(b!.logits!.data, a!.logits!.data, { atol: 1e-5, rtol: 1e-5 }) <= 1);

    await using classify = await pipeline("text-classification", adapter, { dtype: "q8_0" });
    assert.equal((await classify("the dull film number 2")).label, "bad");
    const { accuracy } = await evaluate({ model: adapter, task: "text-classification", data: rows });
    assert.equal(accuracy, 1);
  });
});
