/**
 * Tasks as a user meets them: what they refuse, streams, progress, and that one text's result is its own. Parity is
 * next door.
 */
import assert from "node:assert/strict";
import { copyFileSync, cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test } from "vitest";
import {
  type BERT,
  CandlewickError,
  loadBERT,
  pipeline,
  type PipelineTask,
  type Progress,
  similarity,
} from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder } from "./support/models.js";

const folder = (name: string) => fixturePath(join("pipelines", name));
const open = (name: string): Promise<BERT> => loadBERT(folder(name), { threads: 1 });

describe("a task", () => {
  test("is a method of the model and a function by name, and closes only what it loaded", async () => {
    await using bert = await open("classify");
    const text = "What a wonderful story 😀";
    const byMethod = await bert.classify(text);
    const borrowed = await pipeline("text-classification", bert);
    assert.deepEqual(await borrowed(text), byMethod);
    await borrowed.close();
    assert.deepEqual(await bert.classify(text), byMethod, "the model is still open");
    const owning = await pipeline("sentiment-analysis", folder("classify"));
    assert.deepEqual(await owning(text), byMethod);
    await owning.close();
    await assert.rejects(owning(text), hasCode("MODEL_CLOSED"));
    assert.equal(bert.classify, bert.classify);
  });

  test("takes an empty second text for a text, and a text beside pairs for one text", async () => {
    await using bert = await open("reranker");
    const { ids } = await bert.encode("the cat");
    const sep = ids.at(-1)!;
    const pair = await bert.encode({ text: "the cat", textPair: "" });
    assert.deepEqual([...pair.ids], [...ids, sep]);
    assert.deepEqual([...pair.typeIds], [...ids.map(() => 0), 1]);
    const [alone, empty] = await bert.classify(["the cat", { text: "the cat", textPair: "" }]);
    assert.deepEqual(alone, await bert.classify("the cat"));
    assert.notEqual(empty!.score, alone!.score);
    const [reranked] = await bert.rerank({ query: "the cat", documents: [""] }, { functionToApply: "none" });
    const { logits } = await bert.forward({ text: "the cat", textPair: "" });
    assert.equal(reranked!.score, logits!.data[0]);
  });

  test("has defaults, which a call's own options override", async () => {
    await using classify = await pipeline("text-classification", folder("classify"), { topK: 3, threads: 1 });
    assert.equal(((await classify("a")) as unknown as unknown[]).length, 3);
    assert.equal((await classify("a", { topK: "all" })).length, 5);
  });

  const fits: Record<string, PipelineTask[]> = {
    classify: ["text-classification", "sentiment-analysis", "feature-extraction"],
    nli: ["text-classification", "sentiment-analysis", "zero-shot-classification", "feature-extraction"],
    mlm: ["fill-mask", "feature-extraction"],
    ner: ["token-classification", "ner", "feature-extraction"],
    questions: ["question-answering", "feature-extraction"],
    reranker: ["rerank", "text-classification", "sentiment-analysis", "feature-extraction"],
    sentences: ["feature-extraction", "zero-shot-classification", "rerank"],
  };
  const all = [...new Set(Object.values(fits).flat())];
  for (const [name, fitting] of Object.entries(fits)) {
    test(`that a model of ${name} cannot do is refused, with those that it can`, async () => {
      await using bert = await open(name);
      for (const task of all) {
        const made = pipeline(task, bert);
        if (fitting.includes(task)) await made;
        else await assert.rejects(made, (error: CandlewickError) => error.code === "TASK_UNSUPPORTED" && error.message.includes(fitting[0]!));
      }
    });
  }

  test("that there is not is refused, and so are options that would have no effect", async () => {
    await using bert = await open("sentences");
    await assert.rejects(pipeline("summarization" as "ner", bert), hasCode("TASK_UNSUPPORTED"));
    await assert.rejects(pipeline("rerank", bert, { threads: 2 }), hasCode("OPTION_INVALID"));
    await assert.rejects(pipeline("rerank", folder("sentences"), { tokK: 2 } as object), hasCode("OPTION_UNKNOWN"));
    await assert.rejects(bert.classify("x"), hasCode("TASK_UNSUPPORTED"));
    const refused: [() => Promise<unknown>, CandlewickError["code"]][] = [
      [() => bert.embed("x", { pooling: "middle" as "mean" }), "OPTION_INVALID"],
      [() => bert.embed("x", { pooling: "none", normalize: true }), "OPTION_INVALID"],
      [() => bert.embed("x", { promptName: "no such" }), "OPTION_INVALID"],
      [() => bert.embed("x", { prompt: "a", promptName: "query" }), "OPTION_INVALID"],
      [() => bert.embed("x", { ranges: { minimum: [0], maximum: [1] } }), "OPTION_INVALID"],
      [() => bert.embed("x", { precision: "int8" }), "OPTION_INVALID"],
      [() => bert.embed("x", { maxLength: 97 }), "OPTION_INVALID"],
      [() => bert.rerank({ query: "a", documents: ["b"] }, { functionToApply: "none" }), "OPTION_INVALID"],
      [() => bert.zeroShot("x", { candidateLabels: ["a"], multiLabel: true }), "OPTION_INVALID"],
      [() => bert.zeroShot("x", { candidateLabels: [] }), "OPTION_INVALID"],
      [() => bert.zeroShot("x"), "OPTION_INVALID"],
      [() => bert.zeroShot("x", { candidateLabels: ["a"], hypothesisTemplate: "no place" }), "OPTION_INVALID"],
      [() => bert.embed([]), "INPUT_INVALID"],
      [() => bert.embed(7 as unknown as string), "INPUT_INVALID"],
      [() => bert.embed(["a", null as unknown as string]), "INPUT_INVALID"],
      [() => bert.embed("long ".repeat(100), { truncate: false }), "CONTEXT_OVERFLOW"],
      [() => bert.rerank({ query: "a", documents: [] }), "INPUT_INVALID"],
      [() => bert.rerank({ query: "a", document: ["b"] } as unknown as { query: string; documents: string[] }), "OPTION_UNKNOWN"],
    ];
    for (const [index, [run, code]] of refused.entries()) await assert.rejects(run, hasCode(code), `${index}`);
  });

  test("refuses inputs and labels that its model cannot have", async () => {
    await using mlm = await open("mlm");
    await assert.rejects(mlm.fillMask("nothing is missing here"), hasCode("INPUT_INVALID"));
    await assert.rejects(mlm.fillMask("[MASK]", { targets: ["\u0301"] }), hasCode("OPTION_INVALID"));
    await using ner = await open("ner");
    await assert.rejects(ner.entities("x", { ignoreLabels: ["ORG"] }), hasCode("OPTION_INVALID"));
    await assert.rejects(ner.entities("x", { stride: 4 }), hasCode("OPTION_INVALID"));
    await assert.rejects(ner.entities("long ".repeat(100), { stride: 94, aggregationStrategy: "simple" }), hasCode("INPUT_INVALID"));
    await using questions = await open("questions");
    await assert.rejects(questions.answer({ question: "", context: "x" }), hasCode("INPUT_INVALID"));
    await assert.rejects(questions.answer({ question: "x", context: "" }), hasCode("INPUT_INVALID"));
    assert.equal((await questions.answer({ question: "x", context: "\u200b" })).answer, "");
    await using classify = await open("classify");
    await assert.rejects(classify.forward("x", { hiddenStates: [3] }), hasCode("OPTION_INVALID"));
    await assert.rejects(classify.forward({ ids: [2, 3] }, { returnTokens: true }), hasCode("OPTION_INVALID"));
  });

  test("gives a text the same result alone and among others, and keeps their order", async () => {
    await using bert = await open("ner");
    const texts = Array.from({ length: 700 }, (_, i) => `${"Alice in London ".repeat(1 + ((i * 7) % 5))}${i}`);
    const together = await bert.entities(texts, { aggregationStrategy: "simple" });
    const vectors = await bert.embed(texts);
    for (const index of [0, 63, 64, 255, 256, 699]) {
      assert.deepEqual(await bert.entities(texts[index]!, { aggregationStrategy: "simple" }), together[index]);
      assert.deepEqual(await bert.embed(texts[index]!), vectors[index]);
    }
  });

  test("reports progress, by text and inside a long one, and ends with what a listener throws", async () => {
    await using bert = await open("ner");
    const reports: Progress[] = [];
    await bert.entities(Array.from({ length: 300 }, () => "Bob and Mary"), { onProgress: (progress) => reports.push(progress) });
    assert.deepEqual(reports.at(-1), { done: 300, total: 300 });
    assert.ok(reports.every(({ done }, i) => i === 0 || done >= reports[i - 1]!.done));
    reports.length = 0;
    const long = "Alice walked to London. ".repeat(2000);
    await bert.entities(long, { aggregationStrategy: "simple", stride: 8, onProgress: (progress) => reports.push(progress) });
    assert.ok(reports.some(({ done }) => done > 0 && done < 1), "a part of one text");
    const failure = new Error("enough");
    const throws = () => {
      throw failure;
    };
    await assert.rejects(bert.entities(["a", "b"], { onProgress: throws }), (error) => error === failure);
  });

  test("ends when it is aborted, before and while it runs", async () => {
    await using bert = await open("ner");
    await assert.rejects(bert.embed("x", { signal: AbortSignal.abort() }), hasCode("ABORTED"));
    const long = Array.from({ length: 50_000 }, (_, i) => `Bob ${i} in a long list of texts that takes a while`);
    await assert.rejects(bert.embed(long, { signal: AbortSignal.timeout(30) }), hasCode("ABORTED"));
  });
});

describe("text generation", () => {
  test("continues prompts with the model that ships, whole or as a stream", async () => {
    await using generate = await pipeline("text-generation", undefined, { maxNewTokens: 6, seed: 3, temperature: 0.8 });
    const [{ generatedText }] = (await generate("Once upon")) as [{ generatedText: string }];
    const { text } = await generate.model.generate("Once upon", { maxNewTokens: 6, seed: 3, temperature: 0.8 }).result;
    assert.equal(generatedText, `Once upon${text}`);
    assert.equal(await generate.stream("Once upon").text(), text);
    const several = await generate(["Once upon", "我们"], { n: 2, returnFullText: false });
    assert.deepEqual(several.map((samples) => samples.length), [2, 2]);
    assert.equal(several[0]![0]!.generatedText, text);
    await assert.rejects(generate([]), hasCode("INPUT_INVALID"));
    await assert.rejects(generate("x", { pooling: "mean" } as object), hasCode("OPTION_UNKNOWN"));
  });

  test("takes a GPT-2, and the other tasks a BERT", async () => {
    await using bert = await open("classify");
    await assert.rejects(pipeline("text-generation", bert as unknown as string), hasCode("OPTION_INVALID"));
    await assert.rejects(pipeline("fill-mask", undefined as unknown as string), hasCode("OPTION_INVALID"));
  });
});

describe("a classifier of one's own", () => {
  /**
   * pooled → dropout → linear around a BertModel, as its module's state dict has it: another name for the layer, no
   * labels.
   */
  for (const name of ["linear", "out", "fc"]) {
    test(`whose layer is called ${name} classifies as it would under transformers' name`, async () => {
      const source = folder("classify");
      const own = newFolder("classifier");
      for (const file of ["vocab.txt", "tokenizer_config.json"]) copyFileSync(join(source, file), join(own, file));
      const { id2label: _labels, label2id: _ids, ...config } = JSON.parse(readFileSync(join(source, "config.json"), "utf8"));
      writeFileSync(join(own, "config.json"), JSON.stringify({ ...config, architectures: ["BertModel"] }));
      const weights = readFileSync(join(source, "model.safetensors"));
      const length = Number(weights.readBigUInt64LE());
      const renamed = weights.toString("utf8", 8, 8 + length).replaceAll(/"classifier\./g, `"${name}.`);
      const header = Buffer.from(renamed.padEnd(length));
      writeFileSync(join(own, "model.safetensors"), Buffer.concat([weights.subarray(0, 8), header, weights.subarray(8 + length)]));

      const texts = ["What a wonderful story 😀", "我们喜欢北京。"];
      await using theirs = await open("classify");
      await using classify = await pipeline("sentiment-analysis", own);
      const scores = (await theirs.classify(texts, { topK: "all" })).map((all) => all.map(({ score }) => score));
      const found = await classify(texts, { topK: "all" });
      assert.deepEqual(found.map((all) => all.map(({ score }) => score)), scores);
      assert.ok(found[0]!.every(({ label }) => /^LABEL_[0-4]$/.test(label)));
    });
  }
});

describe("a stream", () => {
  test("gives rows in order, of any iterable, with their inputs", async () => {
    await using bert = await open("classify");
    const texts = Array.from({ length: 400 }, (_, i) => `text ${i} ${"very ".repeat(i % 9)}long`);
    const expected = await bert.classify(texts);
    async function* slow() {
      for (const text of texts.slice(0, 30)) {
        await sleep(0);
        yield text;
      }
    }
    for (const [source, count] of [[texts, 400], [new Set(texts), 400], [slow(), 30], [ReadableStream.from(texts), 400]] as const) {
      let index = 0;
      for await (const row of bert.classify.stream(source as Iterable<string>)) {
        assert.deepEqual([row.index, row.input, row.result], [index, texts[index], expected[index]]);
        index++;
      }
      assert.equal(index, count);
    }
    for await (const _row of bert.classify.stream([])) assert.fail("a row of nothing");
  });

  test("does not read ahead of its reader by more than some batches", async () => {
    await using bert = await open("classify");
    let taken = 0;
    let returned = false;
    function* endless() {
      try {
        for (;;) yield `text ${taken++}`;
      } finally {
        returned = true;
      }
    }
    let read = 0;
    for await (const _row of bert.classify.stream(endless())) {
      if (++read === 300) break;
      if (read % 50 === 0) await sleep(5);
      assert.ok(taken - read <= 4 * 128, `${taken} taken, ${read} read`);
    }
    assert.ok(returned, "leaving the loop ends the source");
  });

  test("sends on what there is while its source has nothing", { timeout: 20_000 }, async () => {
    await using bert = await open("classify");
    let release = () => {};
    async function* stalling() {
      yield "one";
      await new Promise<void>((resolve) => (release = resolve));
      yield "two";
    }
    const stream = bert.classify.stream(stalling());
    assert.equal((await stream.next()).value!.input, "one");
    release();
    assert.equal((await stream.next()).value!.input, "two");
    assert.equal((await stream.next()).done, true);
  });

  const bad = ["good", "too long ".repeat(60), 5 as unknown as string, "good again"];

  test('fails a bad row alone with onError: "row"', async () => {
    await using bert = await open("classify");
    const rows = [];
    for await (const row of bert.classify.stream(bad, { onError: "row", truncate: false })) rows.push(row);
    assert.deepEqual(rows.map(({ index, error }) => [index, error?.code]), [[0, undefined], [1, "CONTEXT_OVERFLOW"], [2, "INPUT_INVALID"], [3, undefined]]);
    assert.deepEqual(rows[3]!.result, await bert.classify("good again"));
  });

  test("else ends with it, after the rows before it", async () => {
    await using bert = await open("classify");
    const stream = bert.classify.stream(bad, { truncate: false });
    assert.equal((await stream.next()).value!.index, 0);
    await assert.rejects(stream.next(), hasCode("CONTEXT_OVERFLOW"));
    assert.equal((await stream.next()).done, true);
  });

  test("ends with its source's error, a signal, and a closed model", async () => {
    const bert = await open("classify");
    const failure = new Error("the disk is gone");
    function* failing() {
      yield "one";
      throw failure;
    }
    const stream = bert.classify.stream(failing());
    assert.equal((await stream.next()).value!.index, 0);
    await assert.rejects(stream.next(), (error) => error === failure);

    const never: AsyncIterable<string> = { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) };
    const aborting = new AbortController();
    const waiting = bert.classify.stream(never, { signal: aborting.signal });
    const next = waiting.next();
    aborting.abort();
    await assert.rejects(next, hasCode("ABORTED"));

    assert.throws(() => bert.classify.stream("text" as unknown as string[]), hasCode("OPTION_INVALID"));
    assert.throws(() => bert.classify.stream(["x"], { onError: "ignore" as "row" }), hasCode("OPTION_INVALID"));
    await bert.close();
    assert.throws(() => bert.classify.stream(["x"]), hasCode("MODEL_CLOSED"));
  });
});

describe("without a head", () => {
  test("zero-shot and rerank go by similarity, and say so", async () => {
    await using bert = await open("sentences");
    const [query, ...documents] = ["the river", "a ship near the river", "north mountain", "昨天下雨"];
    const [of] = [await bert.embed(query!, { promptName: "query" })];
    const rows = await bert.embed(documents, { promptName: "document" });
    const scores = rows.map((row) => similarity(of!, row, bert.info.sentences.similarity));
    const ranked = await bert.rerank({ query: query!, documents });
    assert.deepEqual(ranked.map(({ score }) => score), scores.toSorted((a, b) => b - a));
    for (const { index, score, document, method } of ranked) {
      assert.deepEqual([score, document, method], [scores[index], documents[index], "similarity"]);
    }
    assert.deepEqual(await bert.rerank({ query: query!, documents }, { topK: 1 }), ranked.slice(0, 1));
    const { labels, method } = await bert.zeroShot("a ship near the river", { candidateLabels: documents });
    assert.equal(method, "similarity");
    assert.equal(labels[0], documents[0], "a text is most like itself");
  });

  test("token vectors are what forward() gives", async () => {
    await using bert = await open("sentences");
    const matrix = await bert.embed("the river", { pooling: "none", prompt: "" });
    assert.deepEqual(matrix, (await bert.forward("the river")).lastHiddenState);
  });
});

describe("sentence-transformers' files", () => {
  /** The folder of "sentences" with another modules.json. */
  function withModules(modules: unknown): string {
    const copy = newFolder("sentences");
    cpSync(folder("sentences"), copy, { recursive: true });
    writeFileSync(join(copy, "modules.json"), typeof modules === "string" ? modules : JSON.stringify(modules));
    return copy;
  }
  const module = (kind: string, path = "") => ({ type: `sentence_transformers.models.${kind}`, path });

  test("with a module that there is not refuse its vectors, and give those of a pooling that is named", async () => {
    await using bert = await loadBERT(withModules([module("Transformer"), module("Pooling", "1_Pooling"), module("Quantum", "2_Quantum")]));
    await assert.rejects(bert.embed("x"), hasCode("UNSUPPORTED_MODEL"));
    assert.equal((await bert.embed("x", { pooling: "mean" })).length, bert.info.hiddenSize);
    assert.equal(bert.info.sentences.normalize, false);
  });

  for (const [what, modules, code] of [
    ["that lead out of the folder", [module("Pooling", "../1_Pooling")], "PATH_ESCAPE"],
    ["that lead elsewhere", [module("Pooling", "/tmp")], "PATH_ESCAPE"],
    ["that are no list", { 0: module("Pooling") }, "CONFIG_INVALID"],
    ["that are no JSON", "[", "CONFIG_INVALID"],
  ] as const) {
    test(`${what} are refused at load`, () => assert.rejects(loadBERT(withModules(modules)), hasCode(code)));
  }
});
