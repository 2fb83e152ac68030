/**
 * The types of the public API's overloads. The compiler is the test: `tsc` of `npm run check`, and vitest's type
 * checker.
 */
import { describe, expectTypeOf, test } from "vitest";
import {
  type BERT,
  CandlewickError,
  type Classification,
  type ClassificationMetrics,
  type DoneEvent,
  type ErrorCode,
  evaluate,
  finetune,
  type FinetuneEvent,
  type ForwardOutput,
  generate,
  type GenerationResult,
  type GPT2,
  type LanguageMetrics,
  loadBERT,
  loadGPT2,
  pipeline,
  type Prompt,
  type RegressionMetrics,
  type Reply,
  type TextScore,
  type Token,
  type TokenEntity,
  type TokenStream,
  type Vocabulary,
} from "../../index.js";

declare const lm: GPT2;
declare const bert: BERT;

describe("generation", () => {
  test("a stream iterates tokens, and has a result", () => {
    expectTypeOf(generate("text")).toEqualTypeOf<TokenStream>();
    expectTypeOf(generate).parameter(0).toExtend<string | readonly string[] | readonly number[] | Uint32Array | readonly (readonly number[] | Uint32Array)[]>();
    expectTypeOf(generate("text").next()).resolves.toEqualTypeOf<IteratorResult<Token, undefined>>();
    expectTypeOf(generate("text").result).resolves.toEqualTypeOf<GenerationResult>();
    expectTypeOf(loadGPT2("folder")).resolves.toEqualTypeOf<GPT2>();
    // @ts-expect-error: an unknown option
    generate("text", { temprature: 1 });
    // @ts-expect-error: a prompt is text or ids
    generate({ text: "text" });
    // @ts-expect-error: a BERT does not generate
    generate("text", { model: bert });
  });

  test("one text gives one answer, several give several", () => {
    expectTypeOf(lm.encode("text")).resolves.toEqualTypeOf<Uint32Array>();
    expectTypeOf(lm.encode(["text"])).resolves.toEqualTypeOf<Uint32Array[]>();
    expectTypeOf(lm.decode([1, 2])).resolves.toEqualTypeOf<string>();
    expectTypeOf(lm.decode([[1, 2], new Uint32Array(1)])).resolves.toEqualTypeOf<string[]>();
    expectTypeOf(lm.countTokens("text")).resolves.toEqualTypeOf<number>();
    expectTypeOf(lm.countTokens(["text"])).resolves.toEqualTypeOf<number[]>();
    expectTypeOf(lm.score("text")).resolves.toEqualTypeOf<TextScore>();
    expectTypeOf(lm.score([1, 2])).resolves.toEqualTypeOf<TextScore>();
    expectTypeOf(lm.score(new Uint32Array(2))).resolves.toEqualTypeOf<TextScore>();
    expectTypeOf(lm.score(["text"])).resolves.toEqualTypeOf<TextScore[]>();
    expectTypeOf(lm.score([[1, 2], new Uint32Array(1)])).resolves.toEqualTypeOf<TextScore[]>();
    expectTypeOf(lm.score("text" as Prompt)).resolves.toEqualTypeOf<TextScore | TextScore[]>();
    expectTypeOf(lm.vocabulary()).resolves.toEqualTypeOf<Vocabulary>();
  });
});

describe("BERT", () => {
  test("forward", () => {
    expectTypeOf(loadBERT("folder")).resolves.toEqualTypeOf<BERT>();
    expectTypeOf(bert.forward("text")).resolves.toExtend<ForwardOutput>();
    expectTypeOf(bert.forward(["text"])).resolves.toExtend<ForwardOutput[]>();
  });
});

describe("pipelines", () => {
  test("classification: a list where topK is given", async () => {
    const classify = await pipeline("text-classification", "folder");
    expectTypeOf(classify("text")).resolves.toEqualTypeOf<Classification>();
    expectTypeOf(classify(["text"])).resolves.toEqualTypeOf<Classification[]>();
    expectTypeOf(classify("text", { topK: 2 })).resolves.toEqualTypeOf<Classification[]>();
    expectTypeOf(classify(["text"], { topK: 2 })).resolves.toEqualTypeOf<Classification[][]>();
    expectTypeOf(bert.classify).toEqualTypeOf(classify);
  });

  test("embeddings, entities, translation, dialogue", async () => {
    const embed = await pipeline("feature-extraction");
    expectTypeOf(embed("text")).resolves.toEqualTypeOf<Float32Array>();
    expectTypeOf(embed(["text"])).resolves.toEqualTypeOf<Float32Array[]>();
    const entities = await pipeline("ner", bert);
    expectTypeOf(entities("text")).resolves.toEqualTypeOf<TokenEntity[]>();
    const translate = await pipeline("translation");
    expectTypeOf(translate("text")).resolves.toExtend<{ translationText: string }>();
    expectTypeOf(translate(["text"])).resolves.toExtend<{ translationText: string }[]>();
    expectTypeOf(translate("text", { numReturnSequences: 2 })).resolves.toExtend<{ translationText: string }[]>();
    expectTypeOf(translate.stream("text")).toEqualTypeOf<TokenStream>();
    const chat = await pipeline("dialogue", lm);
    expectTypeOf(chat("text")).resolves.toEqualTypeOf<Reply>();
    // @ts-expect-error: a GPT-2 has no vectors of texts
    void pipeline("feature-extraction", lm);
    // @ts-expect-error: there is no such task
    void pipeline("summarization");
    // @ts-expect-error: an option of another task
    void pipeline("text-classification", "folder", { candidateLabels: ["a"] });
  });
});

describe("training and evaluation", () => {
  test("events and the result of a run", () => {
    const run = finetune({ model: "folder", task: "text-classification", train: "train.jsonl", output: "out" });
    expectTypeOf(run.next()).resolves.toEqualTypeOf<IteratorResult<FinetuneEvent, undefined>>();
    expectTypeOf(run.result).resolves.toEqualTypeOf<DoneEvent>();
  });

  test("metrics are those of the task", () => {
    const data = "test.jsonl";
    expectTypeOf(evaluate({ model: lm, task: "text-generation", data })).resolves.toEqualTypeOf<LanguageMetrics>();
    expectTypeOf(evaluate({ model: bert, task: "text-classification", data })).resolves.toEqualTypeOf<ClassificationMetrics>();
    expectTypeOf(evaluate({ model: bert, task: "text-classification", data, problemType: "regression" })).resolves.toEqualTypeOf<RegressionMetrics>();
  });
});

test("errors carry a code from a closed list", () => {
  expectTypeOf<CandlewickError["code"]>().toEqualTypeOf<ErrorCode>();
  expectTypeOf<"CONTEXT_OVERFLOW">().toExtend<ErrorCode>();
  // @ts-expect-error: not a code
  void new CandlewickError("OVERFLOW", "");
});
