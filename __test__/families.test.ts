/**
 * DistilBERT, RoBERTa, XLM-RoBERTa, ELECTRA and MPNet in the tasks: what Python's pipelines say with the same files
 * (`tools/fixtures/families.py`). Logits and states: `crates/models/tests/families.rs`.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { type AggregationStrategy, type Answer, type EntityGroup, type Fill, loadBERT, pipeline, type TextPair, type TokenEntity } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath, readSafetensors } from "./support/fixtures.js";

const TOLERANCE = 1e-4;
const folder = (name: string) => fixturePath(join("families", "pipelines", name));
const expected = <T>(name: string): T => JSON.parse(readFileSync(`${folder(name)}.json`, "utf8")) as T;
let compared = 0;

function near(found: number, wanted: number, what: string): void {
  assert.ok(Math.abs(found - wanted) <= TOLERANCE, `${what}: ${found}, expected ${wanted}`);
}

describe("text classification, singles and pairs", () => {
  for (const name of ["distilbert-classify", "xlm-roberta-classify"]) {
    test(name, async () => {
      const cases = expected<{ text: string | TextPair; scores: [string, number][] }[]>(name);
      await using classify = await pipeline("text-classification", folder(name), { dtype: "f32" });
      const found = await classify(cases.map(({ text }) => text), { topK: "all" });
      for (const [index, { text, scores }] of cases.entries()) {
        const what = JSON.stringify(text);
        assert.deepEqual(found[index]!.map(({ label }) => label), scores.map(([label]) => label), what);
        scores.forEach(([label, score], i) => near(found[index]![i]!.score, score, `${what} ${label}`));
      }
      assert.ok((compared += cases.length) > 0);
    });
  }
});

describe("fill-mask, with the mask that the tokenizer has", () => {
  for (const name of ["roberta-mlm", "mpnet-mlm"]) {
    test(name, async () => {
      const cases = expected<{ text: string; fills: [number, number, string, string][] }[]>(name);
      await using bert = await loadBERT(folder(name), { dtype: "f32" });
      assert.equal(bert.info.maskToken, "<mask>");
      const found = await bert.fillMask(cases.map(({ text }) => text), { topK: 3 });
      for (const [index, { text, fills }] of cases.entries()) {
        const rows = (found[index] as Fill[]).map(({ token, tokenText, sequence }) => [token, tokenText, sequence]);
        assert.deepEqual(rows, fills.map(([token, , tokenText, sequence]) => [token, tokenText, sequence]), text);
        fills.forEach(([, score], i) => near((found[index] as Fill[])[i]!.score, score, text));
      }
      compared += cases.length;
    });
  }
});

describe("token classification", () => {
  for (const name of ["roberta-ner", "electra-ner"]) {
    test(name, async () => {
      interface Case {
        text: string;
        strategy: AggregationStrategy;
        entities: [label: string, score: number, start: number, end: number, word: string][];
      }
      const cases = expected<Case[]>(name);
      await using bert = await loadBERT(folder(name), { dtype: "f32" });
      for (const aggregationStrategy of new Set(cases.map(({ strategy }) => strategy))) {
        const some = cases.filter(({ strategy }) => strategy === aggregationStrategy);
        const found = await bert.entities(some.map(({ text }) => text), { aggregationStrategy });
        for (const [index, { text, entities }] of some.entries()) {
          const label = (one: TokenEntity | EntityGroup) => ("entity" in one ? one.entity : one.entityGroup);
          const rows = found[index]!.map((one) => [label(one), one.start, one.end, one.word]);
          assert.deepEqual(rows, entities.map(([label, , ...rest]) => [label, ...rest]), `${aggregationStrategy}: ${text}`);
          entities.forEach(([, score], i) => near(found[index]![i]!.score, score, text));
        }
      }
      compared += cases.length;
    });
  }
});

describe("question answering", () => {
  for (const name of ["roberta-questions", "distilbert-questions"]) {
    test(name, async () => {
      interface Case {
        question: string;
        context: string;
        options: { top_k?: number; max_answer_len?: number; handle_impossible_answer?: boolean };
        answers: [score: number, start: number, end: number, answer: string][];
      }
      const cases = expected<Case[]>(name);
      await using bert = await loadBERT(folder(name), { dtype: "f32" });
      for (const { question, context, options, answers } of cases) {
        const { top_k: topK = 1, max_answer_len: maxAnswerLength, handle_impossible_answer: handleImpossibleAnswer } = options;
        const found: Answer[] = await bert.answer({ question, context }, { topK, maxAnswerLength, handleImpossibleAnswer });
        const what = JSON.stringify({ question, context });
        assert.deepEqual(found.map((one) => [one.start, one.end, one.answer]), answers.map(([, ...span]) => span), what);
        answers.forEach(([score], i) => near(found[i]!.score, score, what));
      }
      compared += cases.length;
    });
  }
});

describe("vectors, as sentence-transformers makes them", () => {
  for (const name of ["mpnet-sentences", "xlm-roberta-sentences"]) {
    test(name, async () => {
      const texts = expected<{ text: string }[]>(name).map(({ text }) => text);
      await using embed = await pipeline("feature-extraction", folder(name), { dtype: "f32" });
      const vectors = await embed(texts);
      const { data, shape } = readSafetensors(`${folder(name)}.safetensors`).get("vectors")!;
      assert.equal(shape[0], texts.length);
      const width = shape[1]!;
      for (const [i, vector] of vectors.entries()) {
        vector.forEach((value, j) => near(value, data[i * width + j]!, `${texts[i]} ${j}`));
      }
      compared += texts.length;
    });
  }
});

test("reranking by a RoBERTa cross-encoder", async () => {
  const [{ documents }, ...cases] = expected<[{ documents: string[] }, ...{ query: string; ranked: [number, number][] }[]]>("roberta-rerank");
  await using rerank = await pipeline("rerank", folder("roberta-rerank"), { dtype: "f32" });
  const found = await rerank(cases.map(({ query }) => ({ query, documents })));
  for (const [index, { query, ranked }] of cases.entries()) {
    assert.deepEqual(found[index]!.map((one) => one.index), ranked.map(([at]) => at), query);
    ranked.forEach(([, score], i) => near(found[index]![i]!.score, score, query));
  }
  compared += cases.length;
});

test("600 texts in all", () => assert.ok(compared >= 500, String(compared)));

test("what a model of the family says it is", async () => {
  for (const [name, modelType, types, positions] of [
    ["distilbert-base", "distilbert", 0, 20],
    ["roberta-classify", "roberta", 1, 20],
    ["xlm-roberta-mlm", "xlm-roberta", 2, 20],
    ["camembert-tokens", "camembert", 1, 17],
    ["electra-pretraining", "electra", 3, 19],
    ["mpnet-questions", "mpnet", 0, 21],
  ] as const) {
    await using bert = await loadBERT(fixturePath(join("families", name)));
    assert.deepEqual([bert.info.modelType, bert.info.types, bert.info.positions], [modelType, types, positions]);
    const { parameters, weightBytes } = bert.info;
    assert.ok(weightBytes >= 4 * parameters * 0.99, `${name}: ${parameters} parameters in ${weightBytes} bytes`);
    await assert.rejects(bert.forward({ ids: Array.from({ length: positions + 1 }, () => 7) }), hasCode("CONTEXT_OVERFLOW"));
  }
});

test("token types that a model has not are refused, and none are made of a pair", async () => {
  await using bert = await loadBERT(folder("distilbert-classify"));
  await assert.rejects(bert.forward({ ids: [7, 8], typeIds: [0, 1] }), hasCode("INPUT_INVALID"));
  const { typeIds } = await bert.encode({ text: "one", textPair: "two" });
  assert.ok(typeIds.every((id) => id === 0));
});
