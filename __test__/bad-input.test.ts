/** What is wrong gets a `CandlewickError` with a stable code, at once, and everything else goes on. */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type BERT, type CandlewickError, type ErrorCode, evaluate, type FinetuneOptions, generate, type GPT2, loadBERT, loadGPT2 } from "../index.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder, randomModel, small, withHeader, writeByteTokenizer } from "./support/models.js";

type Case = [what: string, code: ErrorCode, run: () => unknown];

let good: string;
let lm: GPT2;
let bert: BERT;
let closed: GPT2;

beforeAll(async () => {
  good = randomModel();
  lm = await loadGPT2(good, { threads: 1 });
  bert = await loadBERT(fixturePath("bert-base"), { threads: 1 });
  closed = await loadGPT2(good, { threads: 1 });
  await closed.close();
});
afterAll(() => Promise.all([lm.close(), bert.close()]));

/** A copy of the good model, changed. */
function broken(change: (folder: string) => void): string {
  const folder = newFolder("broken");
  cpSync(good, folder, { recursive: true });
  change(folder);
  return folder;
}
const edit = (folder: string, file: string, change: (content: any) => void) => {
  const content = JSON.parse(readFileSync(join(folder, file), "utf8"));
  change(content);
  writeFileSync(join(folder, file), JSON.stringify(content));
};
const config = (change: (config: any) => void) => broken((folder) => edit(folder, "config.json", change));
const weights = (make: (file: Buffer) => Buffer) =>
  broken((folder) => {
    const path = join(folder, "model.safetensors");
    writeFileSync(path, make(readFileSync(path)));
  });
/** The same data under another header. */
const header = (change: (header: any) => void, length?: bigint) =>
  weights((file) => {
    const size = Number(file.readBigUInt64LE());
    const content = JSON.parse(file.toString("utf8", 8, 8 + size));
    change(content);
    return withHeader(content, file.subarray(8 + size), length);
  });
const sharded = (shard: string) =>
  broken((folder) => {
    const h = "model.safetensors";
    const file = readFileSync(join(folder, h));
    const names = Object.keys(JSON.parse(file.toString("utf8", 8, 8 + Number(file.readBigUInt64LE()))));
    writeFileSync(
      join(folder, "model.safetensors.index.json"),
      JSON.stringify({ weight_map: Object.fromEntries(names.map((name) => [name, shard])) }),
    );
    // Reachable, but not from the folder.
    mkdirSync(join(folder, "..", "outside"), { recursive: true });
    cpSync(join(folder, h), join(folder, "..", "outside", h));
    rmSync(join(folder, h));
  });

const load = (make: () => string) => () => loadGPT2(make(), { threads: 1 });
const anyway = (value: unknown) => value as never;
const first = (options: object, prompt: unknown = "abc") => () => lm.generate(anyway(prompt), anyway(options)).next();

class Settings {
  maxNewTokens = 5;
}
const noOptions: [what: string, options: unknown][] = [
  ["null", null],
  ["a number", 5],
  ["an array", []],
  ["a Map", new Map([["maxNewTokens", 2]])],
  ["an object of a class", new Settings()],
  ["an object that inherits", Object.create({ maxNewTokens: 2 })],
];
/** An array with a hole. */
const hole = (...values: unknown[]) => {
  const array = [...values, undefined];
  delete array[values.length];
  return array;
};
/** Its value is `first` once, and then another. */
const changing = (name: string, first: unknown, then: unknown) => {
  let reads = 0;
  return Object.defineProperty({}, name, { enumerable: true, get: () => (reads++ ? then : first) });
};

const files: Case[] = [
  ["no such folder", "MODEL_NOT_FOUND", () => loadGPT2("./nothing/here")],
  ["no such hub model", "MODEL_NOT_FOUND", () => loadGPT2("nobody/has-this", { localFilesOnly: true })],
  ["a hub id that climbs", "MODEL_NOT_FOUND", () => loadGPT2("../../etc/passwd-model")],
  ["an empty folder", "MODEL_NOT_FOUND", load(() => newFolder("empty"))],
  ["a file of another kind", "UNSUPPORTED_MODEL", load(() => join(good, "config.json"))],
  ["a .gguf file that is none", "WEIGHTS_CORRUPT", load(() => {
    const file = join(newFolder("gguf"), "model.gguf");
    writeFileSync(file, readFileSync(join(good, "config.json")));
    return file;
  })],
  ["config.json is no JSON", "CONFIG_INVALID", load(() => broken((folder) => writeFileSync(join(folder, "config.json"), "{")))],
  ["config.json is a list", "CONFIG_INVALID", load(() => broken((folder) => writeFileSync(join(folder, "config.json"), "[]")))],
  ["a missing key", "CONFIG_INVALID", load(() => config((c) => delete c.n_embd))],
  ["a key of the wrong type", "CONFIG_INVALID", load(() => config((c) => (c.n_layer = "two")))],
  ["heads that do not divide the width", "CONFIG_INVALID", load(() => config((c) => (c.n_head = 5)))],
  ["zero layers' worth of width", "CONFIG_INVALID", load(() => config((c) => (c.n_embd = 0)))],
  ["an unknown activation", "CONFIG_INVALID", load(() => config((c) => (c.activation_function = "swoosh")))],
  ["another architecture", "UNSUPPORTED_MODEL", load(() => config((c) => (c.model_type = "llama")))],
  ["a BERT where a GPT-2 should be", "UNSUPPORTED_MODEL", () => loadGPT2(fixturePath("bert-base"))],
  ["a GPT-2 where a BERT should be", "UNSUPPORTED_MODEL", () => loadBERT(good)],
  ["no weights", "MODEL_NOT_FOUND", load(() => broken((folder) => rmSync(join(folder, "model.safetensors"))))],
  ["weights of no bytes", "WEIGHTS_CORRUPT", load(() => weights(() => Buffer.alloc(0)))],
  ["weights that are cut", "WEIGHTS_CORRUPT", load(() => weights((file) => file.subarray(0, file.length / 2)))],
  ["a header longer than the file", "WEIGHTS_CORRUPT", load(() => header(() => {}, 1n << 40n))],
  ["a header of 2^64 - 1 bytes", "WEIGHTS_CORRUPT", load(() => header(() => {}, (1n << 64n) - 1n))],
  ["a header that is no JSON", "WEIGHTS_CORRUPT", load(() => weights((file) => (file.fill("x", 8, 40), file)))],
  ["overlapping tensors", "WEIGHTS_CORRUPT", load(() => header((h) => {
    const [start, end] = h["wpe.weight"].data_offsets;
    h["wpe.weight"].data_offsets = [start - 64, end - 64];
  }))],
  ["offsets past the file", "WEIGHTS_CORRUPT", load(() => header((h) => (h["ln_f.bias"].data_offsets = [1e12, 1e12 + 128])))],
  ["a shape that does not fit its bytes", "WEIGHTS_CORRUPT", load(() => header((h) => (h["ln_f.bias"].shape = [7])))],
  ["a shape that overflows", "WEIGHTS_CORRUPT", load(() => header((h) => (h["ln_f.bias"].shape = [2 ** 52, 2 ** 52])))],
  ["a dtype that is no weight's", "TENSOR_DTYPE", load(() => header((h) => (h["ln_f.bias"].dtype = "I32")))],
  ["a tensor that is missing", "TENSOR_MISSING", load(() => header((h) => {
    h["something.else"] = h["h.1.attn.c_attn.weight"];
    delete h["h.1.attn.c_attn.weight"];
  }))],
  ["a tensor of another shape", "TENSOR_SHAPE", load(() => header((h) => h["h.0.attn.c_proj.weight"].shape = [16, 64]))],
  ["more vocabulary than embedding", "VOCABULARY_MISMATCH", load(() => broken((folder) => writeByteTokenizer(folder, small.vocab_size + 10)))],
  ["a tokenizer that is no JSON", "TOKENIZER_INVALID", load(() => broken((folder) => writeFileSync(join(folder, "tokenizer.json"), "{")))],
  ["a shard that is missing", "MODEL_NOT_FOUND", load(() => sharded("model-00001-of-00002.safetensors"))],
  ["a shard outside the folder", "PATH_ESCAPE", load(() => sharded("../outside/model.safetensors"))],
  ["a shard with an absolute path", "PATH_ESCAPE", load(() => sharded(join(good, "model.safetensors")))],
];

const calls: Case[] = [
  ["an unknown option of a load", "OPTION_UNKNOWN", () => loadGPT2(good, anyway({ thread: 2 }))],
  ["an unknown dtype", "OPTION_INVALID", () => loadGPT2(good, anyway({ dtype: "f8" }))],
  ["threads of the wrong type", "OPTION_INVALID", () => loadGPT2(good, anyway({ threads: "2" }))],
  ["no threads", "OPTION_INVALID", () => loadGPT2(good, { threads: 0 })],
  ["no model", "OPTION_INVALID", () => loadGPT2(anyway(undefined))],
  ["options that are no object", "OPTION_INVALID", () => loadGPT2(good, anyway("f32"))],
  ["a revision that climbs", "OPTION_INVALID", () => loadGPT2("nobody/has-this", { revision: "../../.." })],
  ["a load that is aborted before", "ABORTED", () => loadGPT2(good, { signal: AbortSignal.abort() })],
  ["an empty prompt", "PROMPT_EMPTY", first({}, "")],
  ["no prompts", "PROMPT_EMPTY", first({}, [])],
  ["an empty prompt among others", "PROMPT_EMPTY", first({}, ["a", ""])],
  ["no ids", "PROMPT_EMPTY", first({}, new Uint32Array())],
  ["a prompt that is no text", "OPTION_INVALID", first({}, { text: "abc" })],
  ["no prompt at all", "OPTION_INVALID", first({}, null)],
  ["ids that are no integers", "OPTION_INVALID", first({}, [1, 2.5])],
  ["negative ids", "OPTION_INVALID", first({}, [1, -1])],
  ["text among ids", "OPTION_INVALID", first({}, [1, "a"])],
  ["an id outside the vocabulary", "INPUT_INVALID", first({}, [1, 100_000])],
  ["a prompt that is too long", "CONTEXT_OVERFLOW", first({}, "a".repeat(5000))],
  ["a prompt that is too long for what is asked", "CONTEXT_OVERFLOW", first({ maxNewTokens: 200 }, "a".repeat(100))],
  ["an unknown option", "OPTION_UNKNOWN", first({ max_new_tokens: 5 })],
  ["an option's name that every object has", "OPTION_UNKNOWN", first({ toString: 5 })],
  ["a temperature of NaN", "OPTION_INVALID", first({ temperature: NaN })],
  ["a negative temperature", "OPTION_INVALID", first({ temperature: -1 })],
  ["a temperature that is next to nothing", "OPTION_INVALID", first({ temperature: 1e-30 })],
  ["an endless temperature", "OPTION_INVALID", first({ temperature: Infinity })],
  ["a temperature that is text", "OPTION_INVALID", first({ temperature: "1" })],
  ["null for an option", "OPTION_INVALID", first({ temperature: null })],
  ["topP above 1", "OPTION_INVALID", first({ topP: 1.5 })],
  ["half a topK", "OPTION_INVALID", first({ topK: 0.5 })],
  ["a negative topK", "OPTION_INVALID", first({ topK: -1 })],
  ["no new tokens", "OPTION_INVALID", first({ maxNewTokens: 0 })],
  ["a negative seed", "OPTION_INVALID", first({ seed: -1 })],
  ["an empty stop string", "OPTION_INVALID", first({ stop: ["a", ""] })],
  ["a stop that is neither text nor id", "OPTION_INVALID", first({ stop: [true] })],
  ["a stop id that is no id", "OPTION_INVALID", first({ stop: [-1] })],
  ["half a character to stop at", "OPTION_INVALID", first({ stop: "\ud83d" })],
  ["a bias of NaN", "OPTION_INVALID", first({ logitBias: { 1: NaN } })],
  ["a bias of text", "OPTION_INVALID", first({ logitBias: { the: 1 } })],
  ["a bias outside the vocabulary", "OPTION_INVALID", first({ logitBias: { 100000: 1 } })],
  ["too many logprobs", "OPTION_INVALID", first({ logprobs: 21 })],
  ["more returned than beams", "OPTION_INVALID", first({ numBeams: 2, numReturnSequences: 3 })],
  ["an option without effect", "OPTION_INVALID", first({ numBeams: 2, topK: 5 })],
  ["a signal that is none", "OPTION_INVALID", first({ signal: {} })],
  ["an unknown way to truncate", "OPTION_INVALID", first({ truncate: "right" })],
  ["a signal that is aborted", "ABORTED", first({ signal: AbortSignal.abort() })],
  ["a closed model's generate", "MODEL_CLOSED", () => closed.generate("abc").next()],
  ["a closed model's encode", "MODEL_CLOSED", () => closed.encode("abc")],
  ["a closed model's decode", "MODEL_CLOSED", () => closed.decode([1])],
  ["text for encode", "OPTION_INVALID", () => lm.encode(anyway(5))],
  ["one text of several that is none", "OPTION_INVALID", () => lm.countTokens(anyway(["a", 5]))],
  ["an id to decode that is none", "OPTION_INVALID", () => lm.decode([-1])],
  ["an unknown option of decode", "OPTION_UNKNOWN", () => lm.decode([1], anyway({ skipSpecial: true }))],
  ["generate with a model that is none", "OPTION_INVALID", () => generate("abc", anyway({ model: 5 })).next()],
  ["generate with a model that is missing", "MODEL_NOT_FOUND", () => generate("abc", { model: "./nothing/here" }).next()],
  ["an unknown format", "OPTION_INVALID", () => lm.generate("abc").toResponse(anyway({ format: "xml" }))],
  ["an unknown option of a response", "OPTION_UNKNOWN", () => lm.generate("abc").toResponse(anyway({ code: 200 }))],
  ["texts and pairs mixed", "OPTION_INVALID", () => bert.forward(anyway(["a", { text: "b", textPair: "c" }]))],
  ["a text without a tokenizer", "TOKENIZER_MISSING", () => bert.forward("abc")],
  ["no ids for an encoder", "PROMPT_EMPTY", () => bert.forward({ ids: [] })],
  ["an id that the encoder lacks", "INPUT_INVALID", () => bert.forward({ ids: [100_000] })],
  ["a token type that the encoder lacks", "INPUT_INVALID", () => bert.forward({ ids: [1], typeIds: [9] })],
  ["as many types as ids", "INPUT_INVALID", () => bert.forward({ ids: [1, 2], typeIds: [0] })],
  ["more ids than positions", "CONTEXT_OVERFLOW", () => bert.forward({ ids: Array.from({ length: 5000 }, () => 1) })],
  ["logits without a head", "OPTION_INVALID", () => bert.forward({ ids: [1] }, { logits: true })],
  ["an unknown option of forward", "OPTION_UNKNOWN", () => bert.forward({ ids: [1] }, anyway({ hidden: true }))],
  ...noOptions.flatMap(([what, options]): Case[] => [
    [`${what} for the options of generate()`, "OPTION_INVALID", () => generate("abc", anyway(options)).next()],
    [`${what} for the options of a model's generate`, "OPTION_INVALID", first(anyway(options))],
    [`${what} for the options of encode`, "OPTION_INVALID", () => lm.encode("abc", anyway(options))],
    [`${what} for the options of decode`, "OPTION_INVALID", () => lm.decode([1], anyway(options))],
    [`${what} for the options of a load`, "OPTION_INVALID", () => loadGPT2(good, anyway(options))],
    [`${what} for the options of forward`, "OPTION_INVALID", () => bert.forward({ ids: [1] }, anyway(options))],
    [`${what} for the options of a response`, "OPTION_INVALID", () => lm.generate("abc").toResponse(anyway(options))],
  ]),
  ["an option that the checks would have seen once", "CONTEXT_OVERFLOW", first(changing("maxNewTokens", 200, 1), "a".repeat(100))],
  ["biases in a Map", "OPTION_INVALID", first({ logitBias: new Map([[5, 1]]) })],
  ["a bias that is an object", "OPTION_INVALID", first({ logitBias: { 5: Object.create(null) } })],
  ["an id in another spelling", "OPTION_INVALID", first({ logitBias: { "5.0": 1 } })],
  ["a hole among prompts", "OPTION_INVALID", first({}, hole("a"))],
  ["nothing but holes for prompts", "OPTION_INVALID", first({}, hole())],
  ["a hole among ids", "OPTION_INVALID", first({}, hole(1))],
  ["a hole among stop strings", "OPTION_INVALID", first({ stop: hole("a") })],
  ["a hole among stop tokens", "OPTION_INVALID", first({ stopTokenIds: hole(5) })],
  ["a hole among texts", "OPTION_INVALID", () => lm.encode(anyway(hole("a")))],
  ["a hole among lists", "OPTION_INVALID", () => lm.decode(anyway(hole([1])))],
  ["a hole among inputs", "OPTION_INVALID", () => bert.forward(anyway(hole({ ids: [1] })))],
  ["a wrong id far down in many lists", "OPTION_INVALID", () => lm.decode([...Array.from({ length: 600 }, () => [1]), [-1]])],
  ["a signal that cannot be left", "OPTION_INVALID", first({ signal: { aborted: false, addEventListener() {} } })],
  ["such a signal for a load", "OPTION_INVALID", () => loadGPT2("a/b", { signal: anyway({ aborted: false, addEventListener() {} }) })],
  ["a status without a body", "OPTION_INVALID", () => lm.generate("abc").toResponse({ status: 204 })],
  ["another status without a body", "OPTION_INVALID", () => lm.generate("abc").toResponse({ status: 304 })],
  ["headers that are none", "OPTION_INVALID", () => lm.generate("abc").toResponse({ headers: { "a b\n": "x" } })],
  ["headers in a list that are none", "OPTION_INVALID", () => lm.generate("abc").toResponse({ headers: anyway([1]) })],
  ["an unknown key of ids", "OPTION_UNKNOWN", () => bert.forward(anyway({ ids: [1, 2], type_ids: [0, 1] }))],
  ["an unknown key of a pair", "OPTION_UNKNOWN", () => bert.forward(anyway({ text: "a", textPair: "b", title: "c" }))],
  ["a pair with ids", "INPUT_INVALID", () => bert.forward(anyway({ text: "a", textPair: "b", ids: [1] }))],
  ["half a pair", "OPTION_INVALID", () => bert.forward(anyway({ text: "a" }))],
  ["no types for ids", "INPUT_INVALID", () => bert.forward({ ids: [1, 2], typeIds: [] })],
  ["null types for ids", "INPUT_INVALID", () => bert.forward({ ids: [1, 2], typeIds: anyway(null) })],
  ["ids in a Map", "OPTION_INVALID", () => bert.forward(anyway(new Map([["ids", [1]]])))],
  ["an aborted forward", "ABORTED", () => bert.forward({ ids: [1] }, { signal: AbortSignal.abort() })],
];

for (const [group, cases] of [["bad files", files], ["bad calls", calls]] as const) {
  describe(group, () => {
    for (const [what, code, run] of cases) {
      test(`${what}: ${code}`, async () => {
        await assert.rejects(
          async () => run(),
          (error: CandlewickError) => {
            assert.equal(error.constructor.name, "CandlewickError", String(error));
            assert.equal(error.code, code, error.message);
            return true;
          },
        );
      });
    }
    test("and then the models still serve", async () => {
      assert.equal((await lm.generate("abc", { maxNewTokens: 5, ignoreEos: true }).result).tokens.length, 5);
      assert.equal((await bert.forward({ ids: [1, 2, 3] })).lastHiddenState!.shape[0], 3);
    });
  });
}

/** Which of several inputs is at fault: in the error, and at the beginning of its message. */
describe("the error of one input of several", () => {
  const saysIndex = (code: ErrorCode, index: number | undefined) => (error: CandlewickError) => {
    assert.deepEqual([error.code, error.index], [code, index], error.message);
    assert.equal(/\d+: /.exec(error.message)?.[0], index === undefined ? undefined : `${index}: `, error.message);
    return true;
  };
  const fixture = (name: string) => loadBERT(fixturePath(join("pipelines", name)), { threads: 1 });
  const long = "word ".repeat(2000);

  test("of generate()", async () => {
    const many = (bad: string) => Array.from({ length: 20 }, (_, i) => (i === 17 ? bad : "abc"));
    const { positions } = lm.info;
    await assert.rejects(lm.generate(many("a".repeat(positions))).result, saysIndex("CONTEXT_OVERFLOW", 17));
    await assert.rejects(lm.generate(many("a".repeat(positions))).accepted, saysIndex("CONTEXT_OVERFLOW", 17));
    await assert.rejects(lm.generate([[1, 2], [3, 60_000]]).next(), saysIndex("INPUT_INVALID", 1));
    assert.throws(() => lm.generate(many("")), saysIndex("PROMPT_EMPTY", 17));
    await assert.rejects(lm.generate("a".repeat(positions)).result, saysIndex("CONTEXT_OVERFLOW", undefined));
    await assert.rejects(lm.generate([[60_000]]).result, saysIndex("INPUT_INVALID", undefined));
    await assert.rejects(generate(["abc", "a".repeat(positions)], { model: lm }).result, saysIndex("CONTEXT_OVERFLOW", 1));
  });

  test("of forward() and embed(), in whichever native call it is", async () => {
    const inputs = Array.from({ length: 300 }, () => ({ ids: [1, 2] }));
    await assert.rejects(bert.forward(inputs.with(280, { ids: [1, 100_000] })), saysIndex("INPUT_INVALID", 280));
    await assert.rejects(bert.forward([...inputs.slice(0, 256), { ids: [] }]), saysIndex("PROMPT_EMPTY", 256));
    await assert.rejects(bert.forward([{ ids: [100_000] }]), saysIndex("INPUT_INVALID", undefined));
    await using ner = await fixture("ner");
    const texts = Array.from({ length: 300 }, (_, i) => (i === 260 ? long : "a text"));
    const whole = { truncate: false } as const;
    await assert.rejects(ner.embed(texts, whole), saysIndex("CONTEXT_OVERFLOW", 260));
    await assert.rejects(ner.embed(long, whole), saysIndex("CONTEXT_OVERFLOW", undefined));
    await assert.rejects(ner.entities(texts, whole), saysIndex("CONTEXT_OVERFLOW", 260));
    await assert.rejects(ner.embed(anyway(["a", 5])), saysIndex("INPUT_INVALID", 1));
    await assert.rejects(ner.encode(texts, whole), saysIndex("CONTEXT_OVERFLOW", 260));
    const rows = ner.embed.stream(texts, whole);
    await assert.rejects(async () => { for await (const _ of rows); }, saysIndex("CONTEXT_OVERFLOW", 260));
    await using masked = await fixture("mlm");
    await assert.rejects(masked.fillMask(["a [MASK]", "a"]), saysIndex("INPUT_INVALID", 1));
  });

  test("of classify(), zeroShot() and rerank()", async () => {
    const whole = { truncate: false } as const;
    await using nli = await fixture("nli");
    await assert.rejects(nli.classify(["a", "b", long], whole), saysIndex("CONTEXT_OVERFLOW", 2));
    const labels = { candidateLabels: ["one", "two", "three"], ...whole };
    await assert.rejects(nli.zeroShot(["a", long, "b"], labels), saysIndex("CONTEXT_OVERFLOW", 1));
    await assert.rejects(nli.zeroShot(long, labels), saysIndex("CONTEXT_OVERFLOW", undefined));
    const several = [{ query: "q", documents: ["a", "b"] }, { query: "q", documents: ["c", long] }];
    for (const name of ["reranker", "sentences"]) {
      await using model = await fixture(name);
      await assert.rejects(model.rerank({ query: "q", documents: ["a", "b", long] }, whole), saysIndex("CONTEXT_OVERFLOW", 2));
      await assert.rejects(model.rerank(several, whole), saysIndex("CONTEXT_OVERFLOW", 1));
      await assert.rejects(model.rerank({ query: "q", documents: [long] }, whole), saysIndex("CONTEXT_OVERFLOW", undefined));
    }
    await using sentences = await fixture("sentences");
    await assert.rejects(sentences.rerank({ query: long, documents: ["a", "b"] }, whole), saysIndex("CONTEXT_OVERFLOW", undefined));
  });
});

describe("a model that computes no numbers", () => {
  /** A copy of a BERT with `value` as the first two weights of `tensor`, or of its row `row`. */
  function withValue(tensor: string, value: number, row = 0): string {
    const folder = newFolder("not-finite");
    cpSync(fixturePath("bert-base"), folder, { recursive: true });
    poison(join(folder, "model.safetensors"), tensor, value, row);
    return folder;
  }
  function poison(path: string, tensor: string, value: number, row = 0): void {
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Record<string, { shape: number[]; data_offsets: [number, number] }>;
    const { shape, data_offsets } = Object.entries(header).find(([name]) => name.endsWith(tensor))![1];
    for (const at of [0, 1]) bytes.writeFloatLE(value, 8 + length + data_offsets[0] + 4 * (row * (shape[1] ?? 1) + at));
    writeFileSync(path, bytes);
  }
  const notFinite = (what: RegExp) => (error: CandlewickError) => error.code === "NOT_FINITE" && what.test(error.message);
  /** A number, but two of them are none. */
  const HUGE = 3e38;

  for (const dtype of ["f32", "bf16", "int8", "q8_0"] as const) {
    test(`is an error that names the first layer, in ${dtype}`, async () => {
      await using model = await loadBERT(withValue("encoder.layer.1.attention.output.LayerNorm.bias", HUGE), { dtype });
      await assert.rejects(model.forward({ ids: [1, 2, 3] }), notFinite(/layer 1/));
    });

    test(`weights that are no numbers are refused at load, by name, in ${dtype}`, async () => {
      for (const tensor of ["layer.1.output.LayerNorm.bias", "layer.0.attention.self.key.weight", "layer.1.intermediate.dense.weight", "word_embeddings.weight"]) {
        for (const value of [Number.NaN, -Infinity]) {
          await assert.rejects(loadBERT(withValue(tensor, value, tensor.endsWith("bias") ? 0 : 7), { dtype }), notFinite(new RegExp(tensor)));
        }
      }
    });
  }

  test("weights that a dtype cannot hold are refused by it alone", async () => {
    const folder = withValue("layer.1.intermediate.dense.weight", 1e5);
    for (const dtype of ["f32", "bf16", "int8"] as const) await (await loadBERT(folder, { dtype })).close();
    await assert.rejects(loadBERT(folder, { dtype: "f16" }), notFinite(/intermediate/));
  });

  /** A copy of the folder `name` of pipelines/ in which the second layer overflows, or one weight is NaN. */
  function poisoned(name: string, value: number, tensor = "layer.1.attention.output.LayerNorm.bias"): string {
    const folder = newFolder("poisoned");
    cpSync(fixturePath(join("pipelines", name)), folder, { recursive: true });
    poison(join(folder, "model.safetensors"), tensor, value);
    return folder;
  }
  const text = "The river runs [MASK] the harbour";
  const tasks: [task: string, model: string, run: (bert: BERT) => Promise<unknown>][] = [
    ["embed", "sentences", (bert) => bert.embed(text)],
    ["embed with token vectors", "sentences", (bert) => bert.embed(text, { pooling: "none" })],
    ["rerank by vectors", "sentences", (bert) => bert.rerank({ query: text, documents: [text, "a"] })],
    ["rerank by a cross-encoder", "reranker", (bert) => bert.rerank({ query: text, documents: [text, "a"] })],
    ["classify", "classify", (bert) => bert.classify(text)],
    ["classify with several labels", "multi-label", (bert) => bert.classify(text)],
    ["classify with a number", "regression", (bert) => bert.classify(text)],
    ["zeroShot", "nli", (bert) => bert.zeroShot(text, { candidateLabels: ["a", "b"] })],
    ["entities", "ner", (bert) => bert.entities(text)],
    ["answer", "questions", (bert) => bert.answer({ question: "where?", context: text })],
    ["fillMask", "mlm", (bert) => bert.fillMask(text)],
    ["forward", "classify", (bert) => bert.forward(text)],
  ];
  for (const [task, model, run] of tasks) {
    test(`is an error from ${task}`, async () => {
      await using bert = await loadBERT(poisoned(model, HUGE), { threads: 1 });
      await assert.rejects(run(bert), notFinite(/layer 1/));
      await assert.rejects(loadBERT(poisoned(model, Number.NaN)), notFinite(/LayerNorm/));
    });
  }

  test("is an error of a vector whose length overflows", async () => {
    await using bert = await loadBERT(poisoned("sentences", HUGE, "layer.1.output.LayerNorm.bias"), { threads: 1 });
    for (const pooling of [undefined, "max"] as const) await assert.rejects(bert.embed(text, { pooling }), notFinite(/vectors/));
  });

  const data: [task: FinetuneOptions["task"], model: string, row: Record<string, unknown>][] = [
    ["text-classification", "regression", { text, label: 0.5 }],
    ["token-classification", "ner", { tokens: ["river"], tags: ["O"] }],
    ["question-answering", "questions", { question: "what?", context: "the river", answers: [{ text: "river", answerStart: 4 }] }],
    ["fill-mask", "mlm", { text: "the river runs by the harbour and the river runs by the harbour" }],
    ["feature-extraction", "sentences", { text, textPair: "a", score: 0.5 }],
  ];
  for (const [task, model, row] of data) {
    test(`is an error from evaluate, ${task}`, async () => {
      await assert.rejects(evaluate({ model: poisoned(model, HUGE), task, data: [row] }), notFinite(/layer 1/));
    });
  }

  test("harms no other text of its batch", async () => {
    await using model = await loadBERT(withValue("embeddings.word_embeddings.weight", HUGE, 7));
    await using whole = await loadBERT(fixturePath("bert-base"));
    const calls = [[1, 2, 3], [1, 7, 3], [4, 5]].map((ids) => model.forward({ ids }));
    const [first, second, third] = await Promise.allSettled(calls);
    assert.ok(second?.status === "rejected" && notFinite(/embeddings/)(second.reason as CandlewickError));
    assert.deepEqual(first, { status: "fulfilled", value: await whole.forward({ ids: [1, 2, 3] }) });
    assert.equal(third?.status, "fulfilled");
  });
});
