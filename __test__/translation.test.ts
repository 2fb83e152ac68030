/** Translation, from the training that a user starts to the text that comes out. */
import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { evaluate, finetune, loadGPT2, pipeline, type TranslationTask } from "../index.js";
import { pairs, translator } from "./support/apprentices.js";
import { collect, hasCode } from "./support/assertions.js";
import { newFolder } from "./support/models.js";

const sources = pairs.map(([source]) => source);
const targets = pairs.map(([, target]) => ({ translationText: target }));

/** A copy of a model with another configuration. */
function withConfig(model: string, change: (config: Record<string, any>) => void): string {
  const folder = newFolder("configured");
  cpSync(model, folder, { recursive: true });
  const path = join(folder, "config.json");
  const config = JSON.parse(readFileSync(path, "utf8"));
  change(config);
  writeFileSync(path, JSON.stringify(config));
  return folder;
}

describe("translation", () => {
  let model: string;
  let translate: TranslationTask;
  beforeAll(async () => {
    model = await translator();
    translate = await pipeline("translation", model, { threads: 1 });
  });
  afterAll(() => translate?.close());

  test("says what was learned, of one text and of many, which run together", async () => {
    assert.deepEqual(await translate(sources[0]!), targets[0]);
    assert.deepEqual(await translate(sources), targets);
    const many = Array.from({ length: 200 }, (_, i) => sources[i % sources.length]!);
    const heard: number[] = [];
    const results = await translate(many, { numBeams: 1, onProgress: ({ done }) => heard.push(done) });
    assert.deepEqual(results, many.map((_, i) => targets[i % targets.length]));
    assert.equal(heard.length === 0 || heard.at(-1) === 200, true);
  });

  test("gives several translations on request, best first", async () => {
    const [best, second] = await translate(sources[1]!, { numBeams: 3, numReturnSequences: 2 });
    assert.deepEqual(best, targets[1]);
    assert.notDeepEqual(second, best);
    assert.equal((await translate(sources[1]!, { n: 2, temperature: 0.5, seed: 1 })).length, 2);
  });

  test("what is blank stays so, and lines keep their places", async () => {
    assert.deepEqual(await translate(["", sources[2]!, " \t"]), [{ translationText: "" }, targets[2], { translationText: " \t" }]);
    assert.throws(() => translate.stream(" "), hasCode("PROMPT_EMPTY"));
  });

  test("streams the tokens of a text, and the rows of many", async () => {
    const stream = translate.stream(sources[3]!);
    assert.equal((await collect(stream)).map(({ text }) => text).join(""), targets[3]!.translationText);
    assert.equal((await stream.result).finishReason, "stop");
    const rows = [];
    async function* lines() {
      yield sources[0]!;
      yield 7 as unknown as string;
      yield sources[4]!;
    }
    for await (const row of translate.stream(lines(), { onError: "row" })) rows.push(row.error?.code ?? row.result);
    assert.deepEqual(rows, [targets[0], "INPUT_INVALID", targets[4]]);
  });

  test("reads a prompt as training does: what it writes is what evaluate() sees it write", async () => {
    // Hardly trained, it says something else to every prompt, and to a prompt that differs in a token.
    for (const separator of [undefined, " ⇒ ", ""]) {
      const odd = await translator({ maxSteps: 4, ...(separator === undefined ? {} : { separator }) });
      const { task_specific_params } = JSON.parse(readFileSync(join(odd, "config.json"), "utf8"));
      assert.deepEqual(task_specific_params, { translation: { separator: separator ?? "\n" } });
      await using gpt2 = await loadGPT2(odd, { threads: 1 });
      const data = ["the file", "the file ", "窗口？\n", "full  disk"].map((source) => ({ source, target: "x" }));
      const { samples } = await evaluate({ model: gpt2, task: "translation", data, samples: 4, generation: { maxNewTokens: 12 } });
      const task = await pipeline("translation", gpt2, { numBeams: 1, maxNewTokens: 12 });
      const ours = await task(data.map(({ source }) => source));
      assert.deepEqual(ours.map(({ translationText }) => translationText), samples.map(({ predicted }) => predicted));
      const further = newFolder("further");
      await finetune({ model: odd, task: "translation", train: data, output: further, maxSteps: 1 }).result;
      assert.deepEqual(JSON.parse(readFileSync(join(further, "config.json"), "utf8")).task_specific_params, task_specific_params, "training goes on with it");
    }
  });

  test("takes beams and separator from the model's configuration, which a call overrides", async () => {
    await using gpt2 = await loadGPT2(model, { threads: 1 });
    const told = withConfig(model, (config) => (config["task_specific_params"].translation = { separator: " ", num_beams: 2, length_penalty: 0.5, max_new_tokens: 2 }));
    await using other = await pipeline("translation", told, { threads: 1 });
    const raw = await gpt2.generate(`${sources[0]} `, { numBeams: 2, lengthPenalty: 0.5, maxNewTokens: 2 }).text();
    assert.deepEqual(await other(sources[0]!), { translationText: raw.trim() });
    // Asked to sample, it does not search; the separator is what the call says.
    assert.deepEqual(await other(sources[0]!, { temperature: 0, separator: "\n", maxNewTokens: 40 }), targets[0]);
    const wrong = withConfig(model, (config) => (config["task_specific_params"].translation = { num_beams: "four" }));
    await assert.rejects(pipeline("translation", wrong), hasCode("CONFIG_INVALID"));
  });

  test("refuses what cannot be", async () => {
    await assert.rejects(translate("word ".repeat(200)), hasCode("CONTEXT_OVERFLOW"));
    await assert.rejects(translate("x".repeat(1 << 22)), hasCode("CONTEXT_OVERFLOW"));
    await assert.rejects(translate([]), hasCode("INPUT_INVALID"));
    await assert.rejects(translate([1 as unknown as string]), hasCode("INPUT_INVALID"));
    await assert.rejects(translate("a", { beams: 2 } as object), hasCode("OPTION_UNKNOWN"));
    await assert.rejects(translate("a", { separator: 1 as unknown as string }), hasCode("OPTION_INVALID"));
    assert.throws(() => translate.stream("a", { onProgress: () => {} } as object), hasCode("OPTION_INVALID"));
    await assert.rejects(translate("a", { signal: AbortSignal.abort() }), hasCode("ABORTED"));
    const abort = new AbortController();
    const long = translate(Array.from({ length: 500 }, () => sources[0]!), { signal: abort.signal });
    setTimeout(() => abort.abort(), 5);
    await assert.rejects(long, hasCode("ABORTED"));
    assert.deepEqual(await translate(sources[0]!), targets[0], "and goes on");
    const owned = await pipeline("translation", model);
    await owned.close();
    await assert.rejects(owned("a"), hasCode("MODEL_CLOSED"));
  });
});
