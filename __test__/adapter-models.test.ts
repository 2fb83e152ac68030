/**
 * An adapter's folder where a model's is expected. What PEFT says: `tools/fixtures/adapter_models.py`; what loads:
 * `crates/models/tests/adapter_models.rs`.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, test } from "vitest";
import {
  evaluate,
  finetune,
  loadBERT,
  loadGPT2,
  mergeAdapter,
  pipeline,
  trainTokenizer,
  unmergeAdapter,
  type FinetuneEvent,
  type MergeAdapterOptions,
  type UnmergeAdapterOptions,
} from "../index.js";
import { modelFolder } from "../src/package.js";
import { hasCode } from "./support/assertions.js";
import { chooseFiles } from "../src/hub/files.js";
import { fixturePath, readSafetensors, readTensors, worst } from "./support/fixtures.js";
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

test("adapter_model.bin is downloaded and read where there is no adapter_model.safetensors", async () => {
  assert.deepEqual(chooseFiles(["adapter_config.json", "adapter_model.bin", "config.json", "model.safetensors"], "x", []), [
    "config.json",
    "adapter_config.json",
    "adapter_model.bin",
  ]);
  await using lm = await loadGPT2(join(fixturePath("peft-patterns"), "pickle"), { dtype: "f32" });
  assert.equal(lm.info.modelType, "gpt2");
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
  beforeAll(async () => {
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

  test("is trained on: its base stays, its shape stays, and it goes on where it was", async () => {
    const adapter = join(output, "adapter");
    const again = newFolder("again");
    const losses: number[] = [];
    const options = { model: adapter, task: "text-classification", train: rows, output: again, epochs: 2, learningRate: 1e-3 } as const;
    for await (const event of finetune(options) as AsyncIterable<FinetuneEvent>) if (event.type === "step") losses.push(event.loss);
    assert.ok(losses[0]! < 0.2, `${losses[0]}: it begins with what was learned`);
    const config = (folder: string) => JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8")) as Record<string, unknown>;
    assert.deepEqual(config(join(again, "adapter")), config(adapter));
    assert.equal(config(adapter)["base_model_name_or_path"], base);
    const matrices = [adapter, join(again, "adapter")].map((folder) => readSafetensors(join(folder, "adapter_model.safetensors")));
    assert.deepEqual([...matrices[1]!.keys()].toSorted(), [...matrices[0]!.keys()].toSorted());
    for (const [name, { data }] of matrices[0]!) assert.notDeepEqual(matrices[1]!.get(name)!.data, data, name);
    await assert.rejects(finetune({ ...options, output: newFolder("bad"), lora: { rank: 8 } }).result, hasCode("OPTION_INVALID"));
    await assert.rejects(finetune({ ...options, output: newFolder("bad"), fromScratch: true }).result, hasCode("OPTION_INVALID"));
  });
});

describe("mergeAdapter and unmergeAdapter", () => {
  test("write the adapter's model as one of its own, and take it out again", async () => {
    const [merged, again] = [join(newFolder("out"), "merged"), join(newFolder("out"), "again")];
    const seen: number[] = [];
    const report = await mergeAdapter({
      adapter: adapterPath("classifier"),
      output: merged,
      onProgress: (progress) => seen.push(progress.loaded / progress.total),
    });
    assert.deepEqual([report.output, report.modules, report.replaced], [merged, 12, 4]);
    assert.equal(seen.at(-1), 1);
    await logitsEqualPEFT(merged);
    await unmergeAdapter({ model: merged, adapter: adapterPath("classifier"), output: again });
    const [before, after] = [join(fixturePath("bert-base"), "model.safetensors"), join(again, "model.safetensors")].map(readSafetensors);
    for (const [name, { data }] of before!) {
      if (name.startsWith("pooler.")) continue; // the adapter holds it whole
      assert.ok(worst(after!.get(`bert.${name}`)!.data, data, { atol: 1e-6, rtol: 0 }) <= 1, name);
    }
  });

  test("refuse what cannot be, and leave nothing of it", async () => {
    const output = join(newFolder("out"), "merged");
    const adapter = adapterPath("classifier");
    await assert.rejects(mergeAdapter({ adapter } as MergeAdapterOptions), hasCode("OPTION_INVALID"));
    await assert.rejects(mergeAdapter({ adapter, output, models: "x" } as MergeAdapterOptions), hasCode("OPTION_UNKNOWN"));
    await assert.rejects(unmergeAdapter({ adapter, output } as UnmergeAdapterOptions), hasCode("OPTION_INVALID"));
    await assert.rejects(mergeAdapter({ adapter, output: adapter }), hasCode("OPTION_INVALID"));
    await assert.rejects(mergeAdapter({ adapter: fixturePath("bert-base"), output }), hasCode("MODEL_NOT_FOUND"));
    await assert.rejects(mergeAdapter({ adapter, model: fixturePath("bert-classify-5"), output }), hasCode("TENSOR_SHAPE"));
    await assert.rejects(mergeAdapter({ adapter, output, signal: AbortSignal.abort() }), hasCode("ABORTED"));
    const controller = new AbortController();
    const late = mergeAdapter({ adapter, output, signal: controller.signal });
    setImmediate(() => controller.abort());
    await late.then(
      () => assert.ok(existsSync(join(output, "model.safetensors")), "it was quicker"),
      (error) => assert.ok(hasCode("ABORTED")(error) && !existsSync(output)),
    );
  });

  test("on the command line", async () => {
    const candlewick = (...args: string[]) =>
      promisify(execFile)(process.execPath, ["--import", "tsx", "src/cli/main.ts", "adapter", ...args], { cwd: join(__dirname, "..") });
    const [merged, again] = [join(newFolder("out"), "merged"), join(newFolder("out"), "again")];
    const { stdout } = await candlewick("merge", adapterPath("classifier"), "-o", merged, "--dtype", "f16");
    assert.match(stdout, /^12 matrices changed and 4 tensors replaced, [\d.]+ MB written\.$/m);
    await using bert = await loadBERT(merged);
    assert.equal(bert.info.dtype, "f16");
    const unmerged = await candlewick("unmerge", adapterPath("classifier"), "-m", merged, "-o", again, "--json");
    assert.equal((JSON.parse(unmerged.stdout) as { modules: number }).modules, 12);
    assert.match((await candlewick("merge", "--help")).stdout, /--output/);
    await assert.rejects(candlewick("merge", "./no/such/adapter", "-o", merged), (error: { stderr: string }) => error.stderr.includes("MODEL_NOT_FOUND"));
  });
});
