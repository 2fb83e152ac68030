/** Every BERT task says what Python's pipelines say: labels, spans and orders, and scores within 1e-4. */
import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import {
  type AggregationStrategy,
  type Answer,
  type Dtype,
  type EntityGroup,
  type Fill,
  loadBERT,
  pipeline,
  type PoolingName,
  type Precision,
  similarity,
  type TextPair,
  type TokenEntity,
} from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath, readSafetensors, realModel } from "./support/fixtures.js";
import { newFolder } from "./support/models.js";
import { testUnless } from "./support/skip.js";

const TOLERANCE = 1e-4;
const folder = (name: string) => fixturePath(join("pipelines", name));
const expected = <T>(name: string): T => JSON.parse(readFileSync(folder(`${name}.json`), "utf8")) as T;

function near(found: number, wanted: number, what: string): void {
  assert.ok(Math.abs(found - wanted) <= TOLERANCE, `${what}: ${found}, expected ${wanted}`);
}

/** Both languages are there, in numbers. */
function enough(texts: readonly string[]): void {
  const chinese = texts.filter((text) => /\p{Script=Han}/u.test(text)).length;
  assert.ok(texts.length >= 400 && chinese >= 200, `${texts.length} texts, ${chinese} with Chinese`);
}

describe("text classification", () => {
  interface Case {
    text: string | TextPair;
    scores: [string, number][];
  }
  for (const name of ["classify", "multi-label", "regression"]) {
    test(`${name}: every label's score, singles and pairs`, async () => {
      const { cases } = expected<{ cases: Case[] }>(name);
      if (name === "classify") enough(cases.map(({ text }) => JSON.stringify(text)));
      await using classify = await pipeline(name === "classify" ? "sentiment-analysis" : "text-classification", folder(name));
      const all = await classify(cases.map(({ text }) => text), { topK: "all" });
      const best = await classify(cases.map(({ text }) => text));
      for (const [index, { text, scores }] of cases.entries()) {
        const what = JSON.stringify(text);
        assert.deepEqual(all[index]!.map(({ label }) => label), scores.map(([label]) => label), what);
        for (const [i, [label, score]] of scores.entries()) near(all[index]![i]!.score, score, `${what} ${label}`);
        assert.deepEqual(best[index], all[index]![0]);
      }
      assert.deepEqual(await classify(cases[1]!.text, { topK: 2 }), all[1]!.slice(0, 2));
    });
  }
});

test("zero-shot classification by entailment", async () => {
  interface Case {
    text: string;
    template: string;
    multiLabel: boolean;
    labels: string[];
    scores: number[];
  }
  const { cases, candidateLabels } = expected<{ cases: Case[]; candidateLabels: string[] }>("nli");
  enough(cases.map(({ text }) => text));
  await using bert = await loadBERT(folder("nli"));
  for (const hypothesisTemplate of new Set(cases.map(({ template }) => template))) {
    for (const multiLabel of [false, true]) {
      const some = cases.filter((one) => one.template === hypothesisTemplate && one.multiLabel === multiLabel);
      const found = await bert.zeroShot(some.map(({ text }) => text), { candidateLabels, hypothesisTemplate, multiLabel });
      for (const [index, { text, labels, scores }] of some.entries()) {
        const one = found[index]!;
        assert.deepEqual([one.sequence, one.labels, one.method], [text, labels, "entailment"], text);
        scores.forEach((score, i) => near(one.scores[i]!, score, `${text} ${labels[i]}`));
      }
    }
  }
});

test("zero-shot classification by a classifier whose labels are numbers", async () => {
  interface Case {
    text: string;
    entailmentLabel: string;
    multiLabel: boolean;
    labels: string[];
    scores: number[];
  }
  const { cases, candidateLabels } = expected<{ cases: Case[]; candidateLabels: string[] }>("nli-labels");
  const numbered = newFolder("nli-labels");
  cpSync(folder("nli"), numbered, { recursive: true });
  const path = join(numbered, "config.json");
  const { id2label: _, label2id: __, ...config } = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  const names = ["LABEL_0", "LABEL_1", "LABEL_2"];
  const label2id = Object.fromEntries(names.map((name, id) => [name, id]));
  writeFileSync(path, JSON.stringify({ ...config, id2label: { ...names }, label2id }));
  await using bert = await loadBERT(numbered, { threads: 1 });
  assert.deepEqual(bert.info.labels, names);
  for (const { text, labels, scores, ...options } of cases) {
    const one = await bert.zeroShot(text, { candidateLabels, ...options });
    assert.deepEqual([one.labels, one.method], [labels, "entailment"], `${text} ${options.entailmentLabel}`);
    scores.forEach((score, i) => near(one.scores[i]!, score, `${text} ${labels[i]}`));
  }
  // transformers takes the last; here the caller says it.
  await assert.rejects(bert.zeroShot("a", { candidateLabels }), hasCode("TASK_UNSUPPORTED"));
  await assert.rejects(pipeline("zero-shot-classification", numbered), hasCode("TASK_UNSUPPORTED"));
  for (const entailmentLabel of ["entailment", "LABEL_3", "label_2"]) {
    await assert.rejects(bert.zeroShot("a", { candidateLabels, entailmentLabel }), hasCode("OPTION_INVALID"));
  }
  for (const entailmentLabel of ["", 2, null]) {
    await assert.rejects(bert.zeroShot("a", { candidateLabels, entailmentLabel: entailmentLabel as never }), hasCode("OPTION_INVALID"));
  }
  const task = await pipeline("zero-shot-classification", bert, { entailmentLabel: "LABEL_2", candidateLabels });
  assert.deepEqual(await task(cases[2]!.text), await bert.zeroShot(cases[2]!.text, { entailmentLabel: "LABEL_2", candidateLabels }));
  await using named = await loadBERT(folder("nli"), { threads: 1 });
  const [given, found] = [{ candidateLabels, entailmentLabel: "neutral" }, { candidateLabels }];
  assert.notDeepEqual(await named.zeroShot("a ship", given), await named.zeroShot("a ship", found), "a name that is given comes first");
  await using vectors = await loadBERT(folder("sentences"), { threads: 1 });
  await assert.rejects(vectors.zeroShot("a", { candidateLabels, entailmentLabel: "LABEL_2" }), hasCode("OPTION_INVALID"));
});

describe("fill-mask", () => {
  type Row = [token: number, score: number, tokenText: string, sequence?: string];
  interface Case {
    text: string;
    targets?: string[];
    topK: number;
    fills: Row[][];
  }
  const cassette = realModel("cassette-mlm");
  for (const [name, path, skip] of [["mlm", folder("mlm"), false], ["mlm-real", cassette.path, cassette.skip]] as const) {
    testUnless(skip, name, async () => {
      const { cases } = expected<{ cases: Case[] }>(name);
      enough(cases.map(({ text }) => text));
      await using bert = await loadBERT(path, { dtype: "f32" });
      for (const withTargets of [false, true]) {
        const some = cases.filter(({ targets }) => (targets !== undefined) === withTargets);
        const { targets, topK } = some[0]!;
        const found = await bert.fillMask(some.map(({ text }) => text), { topK, targets });
        for (const [index, { text, fills }] of some.entries()) {
          const lists = (fills.length === 1 ? [found[index]] : found[index]) as Fill[][];
          assert.equal(lists.length, fills.length, text);
          for (const [mask, rows] of fills.entries()) {
            assert.deepEqual(lists[mask]!.map(({ token, tokenText }) => [token, tokenText]), rows.map(([token, , tokenText]) => [token, tokenText]), text);
            assert.equal(lists[mask]![0]!.sequence, rows[0]![3], text);
            for (const [i, [, score]] of rows.entries()) near(lists[mask]![i]!.score, score, text);
          }
        }
      }
    });
  }
});

describe("token classification", () => {
  type Row = [label: string, score: number, start: number, end: number, word: string, index?: number];
  type Case = { text: string } & Partial<Record<AggregationStrategy, Row[]>>;
  interface Long {
    text: string;
    strategy: "simple" | "average" | "max";
    stride: number;
    entities: Row[];
  }
  const check = (text: string, found: (TokenEntity | EntityGroup)[], rows: Row[]) => {
    const label = (one: TokenEntity | EntityGroup) => ("entity" in one ? one.entity : one.entityGroup);
    assert.deepEqual(
      found.map((one) => [label(one), one.start, one.end, one.word, ...("index" in one ? [one.index] : [])]),
      rows.map(([label, , start, end, word, ...index]) => [label, start, end, word, ...index]),
      text,
    );
    rows.forEach(([, score], i) => near(found[i]!.score, score, `${text} ${i}`));
    for (const one of found) assert.equal(text.slice(one.start, one.end), one.text);
  };

  for (const aggregationStrategy of ["none", "simple", "first", "average", "max"] as const) {
    test(`aggregation ${aggregationStrategy}`, async () => {
      const cases = expected<{ cases: Case[] }>("ner").cases.filter((one) => one[aggregationStrategy]);
      if (aggregationStrategy === "none") enough(cases.map(({ text }) => text));
      assert.ok(cases.length > 200);
      await using entities = await pipeline("token-classification", folder("ner"), { aggregationStrategy });
      const found = await entities(cases.map(({ text }) => text));
      for (const [index, one] of cases.entries()) check(one.text, found[index]!, one[aggregationStrategy]!);
    });
  }

  test("long texts by windows", async () => {
    const { long } = expected<{ long: Long[] }>("ner");
    await using bert = await loadBERT(folder("ner"));
    for (const { text, strategy, stride, entities } of long) {
      check(text, await bert.entities(text, { aggregationStrategy: strategy, stride }), entities);
    }
  });
});

test("question answering: windows, several answers, impossible ones, words", async () => {
  interface Case {
    question: string;
    context: string;
    options: { top_k?: number; max_answer_len?: number; max_seq_len?: number; doc_stride?: number; handle_impossible_answer?: boolean; align_to_words?: boolean };
    answers: [score: number, start: number, end: number, answer: string][];
  }
  const { cases } = expected<{ cases: Case[] }>("questions");
  enough(cases.map(({ context }) => context));
  await using bert = await loadBERT(folder("questions"));
  const windows = cases.filter(({ context }) => context.length > 200);
  assert.ok(windows.length > 30);
  await Promise.all(
    cases.map(async ({ question, context, options, answers }) => {
      const found: Answer[] = await bert.answer(
        { question, context },
        {
          topK: options.top_k ?? 1,
          maxAnswerLength: options.max_answer_len,
          maxLength: options.max_seq_len,
          stride: options.doc_stride,
          handleImpossibleAnswer: options.handle_impossible_answer,
          alignToWords: options.align_to_words,
        },
      );
      const what = JSON.stringify({ question, context });
      assert.deepEqual(found.map((one) => [one.start, one.end, one.answer]), answers.map(([, ...span]) => span), what);
      answers.forEach(([score], i) => near(found[i]!.score, score, what));
      for (const one of found) assert.equal(context.slice(one.start, one.end), one.answer);
    }),
  );
});

test("reranking by a cross-encoder", async () => {
  interface Case {
    query: string;
    documents: number[];
    ranked: [index: number, score: number][];
  }
  const { cases, documents } = expected<{ cases: Case[]; documents: string[] }>("reranker");
  enough(cases.map(({ query }) => query));
  await using rerank = await pipeline("rerank", folder("reranker"));
  const found = await rerank(cases.map(({ query, documents: some }) => ({ query, documents: some.map((index) => documents[index]!) })));
  for (const [index, { query, ranked }] of cases.entries()) {
    assert.deepEqual(found[index]!.map((one) => one.index), ranked.map(([at]) => at), query);
    ranked.forEach(([, score], i) => near(found[index]![i]!.score, score, query));
  }
});

describe("embeddings", () => {
  const { texts } = expected<{ texts: string[] }>("sentences");
  const tensors = readSafetensors(folder("sentences.safetensors"));
  const rowsOf = (name: string) => {
    const { data, shape } = tensors.get(name)!;
    return Array.from({ length: shape[0]! }, (_, i) => data.subarray(i * shape[1]!, (i + 1) * shape[1]!));
  };
  const checkRows = (found: ArrayLike<number>[], name: string, tolerance: number) => {
    const rows = rowsOf(name);
    assert.equal(found.length, rows.length);
    for (const [index, row] of rows.entries()) {
      const vector = found[index]!;
      row.forEach((value, i) => assert.ok(Math.abs(vector[i]! - value) <= tolerance, `${name}, ${texts[index]}: ${vector[i]}, expected ${value}`));
    }
  };

  test("as the model's own files say: pooling, normalisation, length, prompts", async () => {
    enough(texts);
    await using embed = await pipeline("feature-extraction", folder("sentences"));
    checkRows(await embed(texts), "own", 1e-5);
    checkRows(await embed(texts, { promptName: "document" }), "document", 1e-5);
    checkRows(await embed(texts, { prompt: "" }), "no-prompt", 1e-5);
  });

  for (const pooling of ["cls", "max", "mean", "meanSqrtLength", "weightedMean", "last"] satisfies PoolingName[]) {
    test(`pooling ${pooling}`, async () => {
      await using bert = await loadBERT(folder("sentences"));
      const vectors = await bert.embed(texts, { pooling, normalize: false, prompt: "" });
      checkRows(vectors, `pooling.${pooling}`, 1e-4);
    });
  }

  for (const precision of ["int8", "uint8", "binary", "ubinary"] satisfies Precision[]) {
    test(`precision ${precision}`, async () => {
      await using bert = await loadBERT(folder("sentences"));
      const vectors = await bert.embed(texts, { pooling: "mean", normalize: false, prompt: "", precision });
      assert.ok(vectors.every((row) => (precision.startsWith("u") ? row instanceof Uint8Array : row instanceof Int8Array)));
      const rows = rowsOf(`precision.${precision}`);
      // A value within 1e-6 of a level's edge may fall to either side of it.
      const differ = vectors.flatMap((row, index) => Array.from(row, (value, i) => Math.abs(value - rows[index]![i]!))).filter((by) => by > 0);
      assert.ok(differ.length <= 5 && (precision.endsWith("binary") || differ.every((by) => by === 1)), `${differ.length} differ`);
    });
  }

  const minilm = realModel("minilm");
  testUnless(minilm.skip, "MiniLM, and how similar its vectors are", async () => {
    await using embed = await pipeline("feature-extraction", minilm.path, { dtype: "f32" });
    const vectors = await embed(texts);
    checkRows(vectors, "minilm", 1e-5);
    for (const vector of vectors) near(similarity(vector, vector, "dot"), 1, "length");
    const cosines = rowsOf("minilm.cosine");
    for (const [i, row] of cosines.entries()) row.forEach((cosine, j) => near(similarity(vectors[i]!, vectors[j]!), cosine, `${i}, ${j}`));
  });

  for (const [dtype, least] of [["bf16", 0.9998], ["int8", 0.999], ["q8_0", 0.999]] as const) {
    testUnless(minilm.skip, `in ${dtype} they point where those in f32 do`, async () => {
      const embed = async (dtype: Dtype) => {
        await using bert = await loadBERT(minilm.path, { dtype });
        return await bert.embed(texts);
      };
      const [exact, found] = [await embed("f32"), await embed(dtype)];
      const worst = Math.min(...exact.map((vector, index) => similarity(vector, found[index]!)));
      assert.ok(worst >= least, `${worst}`);
    });
  }
});

test("tokens, hidden states and attentions of chosen layers", async () => {
  const { texts, tokens } = expected<{ texts: string[]; tokens: string[][] }>("internals");
  const tensors = readSafetensors(folder("internals.safetensors"));
  const equal = (found: Float32Array, name: string, from = 0) => {
    const { data } = tensors.get(name)!;
    assert.ok(from + found.length <= data.length, name);
    found.forEach((value, i) => near(value, data[from + i]!, name));
  };
  await using bert = await loadBERT(folder("classify"));
  const options = { hiddenStates: [2, 0], attentions: true, returnTokens: true, maxLength: 64 } as const;
  const outputs = await bert.forward(texts, options);
  for (const [index, output] of outputs.entries()) {
    assert.deepEqual(output.tokens!.map(({ token }) => token), tokens[index]);
    for (const { token, text, start, end } of output.tokens!) {
      if (text === undefined) assert.deepEqual([start, end], [0, 0]);
      else if (/^[a-z]+$/.test(token)) assert.equal(texts[index]!.slice(start, end).normalize("NFD").replace(/\p{M}/gu, "").toLowerCase(), token);
    }
    assert.equal(output.hiddenStates!.length, 2);
    equal(output.hiddenStates![0]!.data, `${index}.hidden.0`);
    equal(output.hiddenStates![1]!.data, `${index}.hidden.2`);
    for (const [layer, heads] of output.attentions!.entries()) {
      assert.equal(heads.length, bert.info.heads);
      for (const [head, { data, shape }] of heads.entries()) {
        assert.deepEqual(shape, [tokens[index]!.length, tokens[index]!.length]);
        equal(data, `${index}.attention.${layer}`, head * data.length);
      }
    }
  }
  const [plain] = await bert.forward([texts[0]!], { maxLength: 64 });
  assert.deepEqual(plain!.lastHiddenState!.data, outputs[0]!.lastHiddenState!.data, "asking for more changes nothing");
});
