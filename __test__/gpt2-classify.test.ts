/**
 * A GPT-2 that classifies texts: what Python's pipeline says, alone, in a batch and in a stream; trained and evaluated.
 */
import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { evaluate, finetune, loadBERT, loadGPT2, pipeline, type Dtype, type TextPair } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder } from "./support/models.js";

interface Case {
  text: string | TextPair;
  scores: [string, number][];
}
const source = fixturePath("classify-gpt2");
const expected = JSON.parse(readFileSync(join(source, "pipeline.json"), "utf8")) as Record<string, Case[]>;

/** The fixture with other values in its configuration. */
function changed(config: Record<string, unknown>): string {
  const folder = newFolder("classify-gpt2");
  cpSync(source, folder, { recursive: true });
  const path = join(folder, "config.json");
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...config }));
  return folder;
}

describe("the pipeline says what Python's says", () => {
  for (const problem of ["single_label_classification", "multi_label_classification", "regression"]) {
    test(problem, async () => {
      const cases = expected[problem]!;
      assert.ok(cases.length >= (problem.startsWith("single") ? 200 : 40));
      await using classify = await pipeline("text-classification", changed({ problem_type: problem }));
      const texts = cases.map(({ text }) => text);
      const all = await classify(texts, { topK: "all" });
      for (const [index, { text, scores }] of cases.entries()) {
        const what = JSON.stringify(text);
        assert.deepEqual(all[index]!.map(({ label }) => label), scores.map(([label]) => label), what);
        for (const [i, [label, score]] of scores.entries()) {
          assert.ok(Math.abs(all[index]![i]!.score - score) <= 1e-4, `${what} ${label}: ${all[index]![i]!.score}, ${score}`);
        }
      }
      // The same bits alone, and as rows that stream.
      assert.deepEqual(await classify(texts[3]!, { topK: "all" }), all[3]);
      let rows = 0;
      for await (const { index, result } of classify.stream(texts, { topK: "all" })) {
        assert.deepEqual(result, all[index]);
        rows++;
      }
      assert.equal(rows, texts.length);
    });
  }
});

test("every dtype loads and names the likeliest class of almost every text", async () => {
  const cases = expected["single_label_classification"]!.slice(0, 100);
  // Among them are texts whose two best classes are almost as likely.
  const least: Record<Dtype, number> = { f32: 100, f16: 97, bf16: 88, int8: 85, q8_0: 85, q4_0: 55 };
  for (const dtype of Object.keys(least) as Dtype[]) {
    await using bert = await loadBERT(source, { dtype });
    const { modelType, head, types, positions, labels } = bert.info;
    assert.deepEqual({ modelType, head, types, positions, labels }, { modelType: "gpt2", head: "sequence-classification", types: 0, positions: 64, labels: ["anger", "joy", "中性"] });
    const found = await bert.classify(cases.map(({ text }) => text));
    const same = found.filter(({ label }, i) => label === cases[i]!.scores[0]![0]).length;
    assert.ok(same >= least[dtype], `${dtype}: ${same} of 100`);
  }
});

test("what it cannot do is refused by name", async () => {
  await using bert = await loadBERT(source);
  await assert.rejects(bert.fillMask("x"), hasCode("TASK_UNSUPPORTED"));
  await assert.rejects(bert.classify(""), hasCode("PROMPT_EMPTY"));
  await assert.rejects(bert.forward([{ ids: [5, 6], typeIds: [0, 1] }]), hasCode("INPUT_INVALID"));
  await assert.rejects(loadGPT2(source), hasCode("UNSUPPORTED_MODEL"));
  await assert.rejects(loadBERT(fixturePath("gpt2-base")), hasCode("UNSUPPORTED_MODEL"));
  await assert.rejects(loadBERT(changed({ architectures: ["GPT2ForTokenClassification"] })), hasCode("UNSUPPORTED_MODEL"));
});

describe("a language model becomes a classifier", () => {
  const rows = Array.from({ length: 48 }, (_, i) => ({ text: `${["wonderful", "terrible"][i % 2]} story ${i % 7}`, label: ["good", "bad"][i % 2]! }));
  for (const lora of [undefined, { rank: 4 }]) {
    test(lora ? "by LoRA" : "by all its weights", async () => {
      // What it writes has no classifier.
      const base = newFolder("language-model");
      await finetune({ model: changed({ architectures: ["GPT2LMHeadModel"] }), task: "text-generation", train: rows, output: base, maxSteps: 2 }).result;
      const output = newFolder("tuned");
      const run = finetune({ model: base, task: "text-classification", train: rows, validation: rows, output, epochs: 8, learningRate: 1e-2, batchSize: 8, seed: 3, lora });
      await run.result;
      const config = JSON.parse(readFileSync(join(output, "config.json"), "utf8"));
      assert.deepEqual(config.architectures, ["GPT2ForSequenceClassification"]);
      const metrics = await evaluate({ model: output, task: "text-classification", data: rows });
      assert.ok(metrics.accuracy >= 0.95, JSON.stringify(metrics));
      await using classify = await pipeline("text-classification", lora ? join(output, "adapter") : output);
      assert.equal((await classify("wonderful story 3")).label, "good");
      assert.equal((await classify("terrible story 3")).label, "bad");
    });
  }
});
