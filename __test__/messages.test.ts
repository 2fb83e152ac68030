/** What people meet who have the wrong file, the wrong name, or no addon: the code, what was found, and what to do. */
import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { evaluate, finetune, generate, loadBERT, loadGPT2, pipeline, trainTokenizer, type CandlewickError, type ErrorCode } from "../index.js";
import { addonAdvice, type Facts } from "../src/addon-advice.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder, randomModel } from "./support/models.js";

async function meets(call: () => unknown, code: ErrorCode, ...parts: RegExp[]): Promise<void> {
  const error = await (async () => call())().then(
    async (value) => await (value as { result?: Promise<unknown> } | undefined)?.result,
  ).then(() => assert.fail("nothing was wrong"), (error: CandlewickError) => error);
  assert.equal(error.code, code, error.stack);
  for (const part of parts) assert.match(error.message, part);
}

/** A folder of files: texts, or objects as JSON. */
function folderOf(files: Record<string, string | object>): string {
  const folder = newFolder("foreign");
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof content === "string" || Buffer.isBuffer(content) ? content : JSON.stringify(content));
  }
  return folder;
}

const good = randomModel();
const config = JSON.parse(readFileSync(join(good, "config.json"), "utf8")) as object;
const weights = readFileSync(join(good, "model.safetensors"));
const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 548105171\n";
const page = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>";
const error = '{"error":"Repository not found"}';

describe("another kind of model", () => {
  const typed = (model_type: string) => folderOf({ "config.json": { model_type } });
  for (const name of ["deberta-v2", "modernbert", "albert", "llama", "gpt_neo", "t5"]) {
    test(name, async () => {
      const ours = [new RegExp(`"${name}"`), /loadGPT2\(\)/, /loadBERT\(\)/];
      await meets(() => loadBERT(typed(name)), "UNSUPPORTED_MODEL", ...ours);
      await meets(() => loadGPT2(typed(name)), "UNSUPPORTED_MODEL", ...ours);
      await meets(() => pipeline("feature-extraction", typed(name)), "UNSUPPORTED_MODEL", ...ours);
      await meets(() => evaluate({ model: typed(name), task: "fill-mask", data: "x.jsonl" }), "UNSUPPORTED_MODEL", ...ours);
      await meets(() => finetune({ model: typed(name), task: "fill-mask", train: [{ text: "a" }], output: newFolder("out") }), "UNSUPPORTED_MODEL", ...ours);
    });
  }
  test("the right model for the other function", async () => {
    await meets(() => loadGPT2(fixturePath("bert-base")), "UNSUPPORTED_MODEL", /is a BERT/, /loadBERT\(\)/);
    await meets(() => loadBERT(good), "UNSUPPORTED_MODEL", /is a GPT-2/, /loadGPT2\(\)/);
    await meets(() => loadBERT(join(fixturePath("gguf"), "f32.gguf")), "UNSUPPORTED_MODEL", /GGUF/, /loadGPT2\(\)/);
  });
  test("a config.json without model_type", async () => {
    await meets(() => loadBERT(folderOf({ "config.json": { architectures: ["BertModel"] } })), "CONFIG_INVALID", /"model_type": "bert"/);
  });
  test("a GPT-2 with another head", async () => {
    const classifier = folderOf({ "config.json": { ...config, architectures: ["GPT2ForSequenceClassification"] } });
    copyFileSync(join(good, "model.safetensors"), join(classifier, "model.safetensors"));
    await meets(() => loadGPT2(classifier), "UNSUPPORTED_MODEL", /GPT2ForSequenceClassification/, /loadBERT\(\)/);
  });
});

describe("what is not a model's folder", () => {
  const layout = /a model is a folder with config\.json and model\.safetensors/;
  const cases: [string, () => string, RegExp][] = [
    ["a lone .safetensors", () => join(good, "model.safetensors"), /pass the folder/],
    ["a config.json", () => join(good, "config.json"), /pass the folder/],
    ["an ONNX file", () => join(folderOf({ "model.onnx": "x" }), "model.onnx"), /ONNX export/],
    ["a Keras file", () => join(folderOf({ "tf_model.h5": "x" }), "tf_model.h5"), /another framework/],
    ["a file of any kind", () => join(folderOf({ "notes.md": "x" }), "notes.md"), /no kind that Candlewick reads/],
  ];
  for (const [what, path, says] of cases) {
    test(what, async () => {
      for (const load of [loadGPT2, loadBERT]) await meets(() => load(path()), "UNSUPPORTED_MODEL", says, layout);
    });
  }
  const folders: [string, () => string, RegExp][] = [
    ["an empty folder", () => folderOf({}), /it is empty/],
    ["weights without config.json", () => folderOf({ "model.safetensors": weights }), /no config\.json/],
    ["a folder with a GGUF file", () => folderOf({ "gpt2.gguf": "x" }), /gpt2\.gguf.*loadGPT2\(\)/],
    ["a folder of the hub's cache", () => {
      const folder = newFolder("cached");
      mkdirSync(join(folder, "snapshots"));
      return folder;
    }, /hub id/],
    ["a model one folder down", () => {
      const folder = newFolder("outer");
      mkdirSync(join(folder, "checkpoint-20"));
      writeFileSync(join(folder, "checkpoint-20", "config.json"), "{}");
      return folder;
    }, /checkpoint-20/],
    ["TensorFlow's weights alone", () => folderOf({ "config.json": config, "tf_model.h5": "x" }), /tf_model\.h5.*save_pretrained/],
    ["an ONNX export alone", () => folderOf({ "config.json": config, "model.onnx": "x" }), /ONNX export/],
    ["weights of another name", () => folderOf({ "config.json": config, "weights.safetensors": weights }), /rename it/],
  ];
  for (const [what, path, says] of folders) {
    test(what, async () => meets(() => loadGPT2(path()), "MODEL_NOT_FOUND", says, layout));
  }
});

describe("what is not the file itself", () => {
  const model = (files: Record<string, string | object>) => folderOf({ "config.json": config, "model.safetensors": weights, ...files });
  const places: [string, (content: string) => string, ErrorCode][] = [
    ["model.safetensors", (content) => model({ "model.safetensors": content }), "WEIGHTS_CORRUPT"],
    ["pytorch_model.bin", (content) => folderOf({ "config.json": config, "pytorch_model.bin": content }), "WEIGHTS_CORRUPT"],
    ["a shard", (content) => folderOf({ "config.json": config, "model.safetensors.index.json": { weight_map: { a: "one.safetensors" } }, "one.safetensors": content }), "WEIGHTS_CORRUPT"],
    ["a .gguf file", (content) => join(folderOf({ "a.gguf": content }), "a.gguf"), "WEIGHTS_CORRUPT"],
    ["config.json", (content) => folderOf({ "config.json": content }), "CONFIG_INVALID"],
    ["tokenizer.json", (content) => model({ "tokenizer.json": content }), "TOKENIZER_INVALID"],
    ["vocab.json", (content) => model({ "vocab.json": content, "merges.txt": "#version: 0.2\n" }), "TOKENIZER_INVALID"],
    ["vocab.txt", (content) => model({ "vocab.txt": content }), "TOKENIZER_INVALID"],
  ];
  for (const [where, path, code] of places) {
    test(`a Git LFS pointer as ${where}`, async () => meets(() => loadGPT2(path(pointer)), code, /Git LFS pointer/, /git lfs pull/));
    test(`a page as ${where}`, async () => meets(() => loadGPT2(path(page)), code, /HTML page/, /download it again/));
  }
  test("a server's error as weights", async () => meets(() => loadGPT2(model({ "model.safetensors": error })), "WEIGHTS_CORRUPT", /server's error message/));
  test("an empty file as weights", async () => meets(() => loadGPT2(model({ "model.safetensors": "" })), "WEIGHTS_CORRUPT", /is empty/));
});

describe("names of other libraries", () => {
  const anyway = (options: object) => options as never;
  const generation: [string, RegExp][] = [
    ["maxTokens", /did you mean maxNewTokens\?/], ["max_tokens", /maxNewTokens/], ["max_new_tokens", /maxNewTokens/], ["max_completion_tokens", /maxNewTokens/],
    ["max_length", /maxNewTokens/], ["n_predict", /maxNewTokens/], ["do_sample", /temperature: 0 is greedy/], ["stream", /every generation streams/],
    ["best_of", /did you mean n\?/], ["num_return_sequences", /numReturnSequences/], ["top_k", /topK/], ["topp", /topP/], ["repeat_penalty", /repetitionPenalty/],
    ["frequency_penalty", /frequencyPenalty/], ["stop_sequences", /did you mean stop\?/], ["logit_bias", /logitBias/], ["logitsProcessor", /logitBias, badWords, suppressTokens/], ["logits_processor", /continueFrom/], ["bad_words_ids", /did you mean badWords\?/], ["begin_suppress_tokens", /beginSuppressTokens/], ["eos_token_id", /stopTokenIds/],
    ["pad_token_id", /leave it out/], ["return_full_text", /text-generation/], ["messages", /dialogue/], ["typical_p", /not supported/],
  ];
  for (const [name, says] of generation) {
    test(`generate: ${name}`, () => meets(() => generate("a", anyway({ [name]: 1 })), "OPTION_UNKNOWN", says));
  }
  const loading: [string, RegExp][] = [
    ["torch_dtype", /dtype/], ["quantized", /q8_0/], ["progress_callback", /onProgress/], ["cache_dir", /HF_HOME/], ["device_map", /device/],
    ["nThreads", /threads/], ["local_files_only", /localFilesOnly/], ["token", /HF_TOKEN/], ["load_in_4bit", /q4_0/],
  ];
  for (const [name, says] of loading) {
    test(`loadBERT: ${name}`, () => meets(() => loadBERT("x", anyway({ [name]: 1 })), "OPTION_UNKNOWN", says));
  }
  const training: [string, RegExp][] = [
    ["lr", /learningRate/], ["num_train_epochs", /epochs/], ["per_device_train_batch_size", /batchSize/], ["output_dir", /output/],
    ["train_dataset", /train/], ["eval_dataset", /validation/], ["weight_decay", /weightDecay/], ["fp16", /f32/],
  ];
  for (const [name, says] of training) {
    test(`finetune: ${name}`, () => meets(() => finetune(anyway({ [name]: 1 })), "OPTION_UNKNOWN", says));
  }
});

test("a task without a default model says what to pass, and which tasks have one", async () => {
  for (const task of ["fill-mask", "question-answering", "ner"] as const) {
    await meets(() => pipeline(task), "OPTION_INVALID", new RegExp(`pipeline\\("${task}", "./my-bert"\\)`), /sentiment-analysis/);
  }
});

describe("tokens that the tokenizer does not know", () => {
  const texts = ["今天天气很好", "我们去公园散步", "他在图书馆看书", "火车晚点了"];
  async function warned(call: () => Promise<unknown>): Promise<string[]> {
    const messages: string[] = [];
    const listener = (warning: Error & { code?: string }) => warning.code === "CANDLEWICK_UNKNOWN_TOKENS" && messages.push(warning.message);
    process.on("warning", listener);
    await call();
    await new Promise(setImmediate);
    process.off("warning", listener);
    return messages;
  }
  /** A BERT with an English vocabulary. */
  async function english(): Promise<string> {
    const folder = newFolder("english");
    for (const name of ["config.json", "model.safetensors"]) copyFileSync(join(fixturePath("bert-classify-2"), name), join(folder, name));
    await trainTokenizer({ type: "wordpiece", texts: ["the cat sat on the mat and saw a bird"], output: folder, vocabularySize: 60, minFrequency: 1 });
    return folder;
  }
  const rows = (texts: readonly string[]) => texts.map((text, i) => ({ text, label: `LABEL_${i % 2}` }));

  test("are named at the start of a training and of an evaluation", async () => {
    const model = await english();
    const task = "text-classification";
    let share: number | null | undefined;
    const train = async (texts: readonly string[]) => {
      const run = finetune({ model, task, train: rows(texts), output: newFolder("out"), maxSteps: 1 });
      for await (const event of run) if (event.type === "start") share = event.unknownTokens;
    };
    const said = await warned(() => train(texts));
    assert.ok(share! > 0.9, `${share}`);
    assert.equal(said.length, 1);
    assert.match(said[0]!, /finetune: (9\d|100)% of the tokens are unknown/);
    assert.deepEqual(await warned(() => train(["the cat sat", "a bird sat on the mat"])), []);
    assert.equal(share, 0);

    const measure = (texts: readonly string[]) => evaluate({ model, task, data: rows(texts), columns: {}, labels: ["LABEL_0", "LABEL_1"] });
    const measured = await warned(() => measure(texts));
    assert.equal(measured.length, 1);
    assert.match(measured[0]!, /evaluate: .*trainTokenizer/);
    assert.deepEqual(await warned(() => measure(["the cat sat", "a bird sat on the mat"])), []);
  });
});

describe("an addon that cannot be loaded", () => {
  const facts: Facts = {
    platform: "linux", arch: "x64", libc: "2.36", path: undefined, version: "0.1.0", installed: { "candlewick-linux-x64-gnu": "0.1.0" },
    checkout: false, bundled: false, reasons: ["Cannot find module"],
  };
  const cases: [string, Partial<Facts>, RegExp, RegExp][] = [
    ["musl", { libc: "musl" }, /musl/, /node:22-slim/],
    ["an old glibc", { libc: "2.17", reasons: ["/x.node: version `GLIBC_2.34' not found (required by x.node)"] }, /needs glibc 2\.34.*has 2\.17/, /newer system/],
    ["a platform without a package", { platform: "freebsd" }, /no package for freebsd-x64/, /build it/],
    ["optional packages that were omitted", { installed: {} }, /candlewick-linux-x64-gnu is not installed/, /^npm install --include=optional candlewick@0\.1\.0$/],
    ["node_modules of another platform", { installed: { "candlewick-darwin-arm64": "0.1.0" } }, /another platform/, /^rm -rf node_modules && npm ci$/],
    ["another version", { installed: { "candlewick-linux-x64-gnu": "0.0.9" } }, /0\.0\.9, and candlewick 0\.1\.0/, /^npm install/],
    ["a checkout without a build", { checkout: true, installed: {} }, /has not been built/, /^npm run build$/],
    ["CANDLEWICK_NATIVE", { path: "/no/such.node" }, /\/no\/such\.node/, /^unset CANDLEWICK_NATIVE$/],
    ["a bundler", { bundled: true }, /bundler/, /--external:candlewick/],
    ["a file that is broken", {}, /does not load/, /^rm -rf node_modules\/candlewick-linux-x64-gnu/],
  ];
  for (const [what, given, says, types] of cases) {
    test(`${what}: three lines, the last is what to type`, () => {
      const lines = addonAdvice({ ...facts, ...given }).split("\n");
      assert.equal(lines.length, 3);
      assert.match(lines[0]!, says);
      assert.match(lines[1]!, /^Seen: /);
      assert.match(lines[2]!, types);
    });
  }
});
