/** finetune(): what it says while it trains, what it leaves on the disk, how it ends, and what it refuses. */
import assert from "node:assert/strict";
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, test } from "vitest";
import { evaluate, finetune, loadBERT, loadGPT2, trainTokenizer, type ErrorCode, type FinetuneEvent, type FinetuneOptions } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";
import { bits, generator, MODES, killAndResume, train, trainingOptions } from "./support/kills.js";
import { newFolder } from "./support/models.js";
import { testUnless } from "./support/skip.js";

const verdicts = { good: ["fine", "lovely", "bright"], bad: ["poor", "dull", "broken"] };
const rows = Array.from({ length: 96 }, (_, i) => {
  const label = i % 2 ? "good" : "bad";
  return { text: `the ${verdicts[label][i % 3]} film number ${i % 7}`, label };
});

async function collect(run: AsyncIterable<FinetuneEvent>): Promise<FinetuneEvent[]> {
  const events = [];
  for await (const event of run) events.push(event);
  return events;
}

const steps = (events: readonly FinetuneEvent[]) => events.filter((event) => event.type === "step");

describe("a classifier", () => {
  let options: FinetuneOptions;
  beforeAll(async () => {
    const model = newFolder("bert");
    cpSync(fixturePath("bert-base"), model, { recursive: true });
    await trainTokenizer({ type: "wordpiece", texts: rows.map(({ text }) => text), output: model, vocabularySize: 80, minFrequency: 1 });
    options = {
      model,
      task: "text-classification",
      train: rows.slice(0, 64),
      validation: rows.slice(64),
      output: newFolder("tuned"),
      epochs: 4,
      batchSize: 8,
      learningRate: 3e-3,
    };
  });

  test("learns in bf16 what it learns in f32, and says so", async () => {
    const output = newFolder("tuned-bf16");
    const losses: number[][] = [];
    for (const precision of ["f32", "bf16"] as const) {
      const events = await collect(finetune({ ...options, output: join(output, precision), precision, dropout: 0 }));
      assert.equal(events[0]!.type === "start" && events[0]!.precision, precision);
      losses.push(steps(events).map(({ loss }) => loss));
    }
    const [exact, rounded] = losses.map((all) => all.reduce((sum, loss) => sum + loss, 0) / all.length) as [number, number];
    assert.notDeepEqual(losses[0], losses[1]);
    assert.ok(Math.abs(rounded - exact) <= 0.01 * exact, `${rounded}, in f32 ${exact}`);
    const metrics = await evaluate({ model: join(output, "bf16"), task: "text-classification", data: rows.slice(64) });
    assert.ok(metrics.accuracy > 0.95, `${metrics.accuracy}`);
    assert.throws(() => finetune({ ...options, precision: "f16" as "f32" }), { code: "OPTION_INVALID" });
  });

  test("learns, says how, and loads", async () => {
    const events = await collect(finetune(options));
    const types = events.map(({ type }) => type);
    assert.equal(types[0], "start");
    assert.equal(types.at(-1), "done");
    assert.equal(steps(events).length, 32);
    assert.ok(types.includes("checkpoint") && types.filter((type) => type === "evaluation").length === 4);
    const metrics = await evaluate({ model: options.output, task: "text-classification", data: rows.slice(64) });
    assert.ok(metrics.accuracy > 0.95, `${metrics.accuracy}`);
    const best = events.filter((event) => event.type === "evaluation").reduce((a, b) => (b.loss < a.loss ? b : a));
    assert.ok(Math.abs(best.loss - metrics.loss) < 1e-4, "the output is the best evaluation's model");
    assert.deepEqual(best.metrics["confusionMatrix"], metrics.confusionMatrix);
    await using bert = await loadBERT(options.output);
    assert.deepEqual([...bert.info.labels].sort(), ["bad", "good"]);
    const log = readFileSync(join(options.output, "training-log.jsonl"), "utf8").trimEnd().split("\n");
    assert.equal(log.map((line) => JSON.parse(line)).filter(({ type }) => type === "step").length, 32);
  });

  test("learns through adapters, which are written in PEFT's format and merged", async () => {
    const output = newFolder("lora");
    const { finishReason } = await finetune({ ...options, output, learningRate: 1e-2, lora: { rank: 4 } }).result;
    assert.equal(finishReason, "completed");
    assert.ok(existsSync(join(output, "adapter", "adapter_model.safetensors")));
    assert.equal(JSON.parse(readFileSync(join(output, "adapter", "adapter_config.json"), "utf8")).r, 4);
    const metrics = await evaluate({ model: output, task: "text-classification", data: rows.slice(64) });
    assert.ok(metrics.accuracy > 0.9, `${metrics.accuracy}`);
  });

  test("stops early when nothing gets better", async () => {
    const output = newFolder("early");
    const done = await finetune({ ...options, output, epochs: 50, learningRate: 1e-7, evalSteps: 1, metricForBestModel: "macro.f1", earlyStoppingPatience: 3 }).result;
    assert.equal(done.finishReason, "early-stopping");
    assert.ok(done.step < 50 * 8);
  });

  test("what is wrong is an error before the first step", async () => {
    const refuses = async (more: Partial<FinetuneOptions>, code: ErrorCode) => {
      const events: FinetuneEvent[] = [];
      await assert.rejects(async () => {
        for await (const event of finetune({ ...options, output: newFolder("bad"), ...more })) events.push(event);
      }, hasCode(code));
      assert.equal(steps(events).length, 0);
    };
    const file = join(newFolder("file"), "a file");
    writeFileSync(file, "x");
    await refuses({ validation: [{ text: "a film", label: "neither" }] }, "LABEL_UNKNOWN");
    await refuses({ columns: { text: "review" } }, "COLUMN_UNKNOWN");
    await refuses({ train: [] }, "DATA_EMPTY");
    await refuses({ train: [{ text: "a film", label: "good" }] }, "OPTION_INVALID");
    await refuses({ task: "token-classification", train: [{ tokens: ["film"], tags: ["O"] }], validation: undefined }, "OPTION_INVALID");
    await refuses({ metricForBestModel: "macro.f9" }, "OPTION_INVALID");
    await refuses({ train: "no such file.jsonl" }, "DATA_NOT_FOUND");
    await refuses({ output: join(file, "below") }, "IO");
    await refuses({ task: "text-generation" }, "OPTION_INVALID");
    await refuses({ lora: { targetModules: ["c_attn"] } }, "OPTION_INVALID");
    assert.throws(() => finetune({ ...options, epoch: 3 } as FinetuneOptions), hasCode("OPTION_UNKNOWN"));
    assert.throws(() => finetune({ ...options, learningRate: 0 }), hasCode("OPTION_INVALID"));
    assert.throws(() => finetune({ ...options, lora: { rank: 0 } }), hasCode("OPTION_INVALID"));
  });

  test("a loss that is no number ends it", async () => {
    const run = finetune({ ...options, output: newFolder("nan"), learningRate: 1e30, maxGradNorm: 0 });
    await assert.rejects(run.result, hasCode("LOSS_NOT_FINITE"));
  });
});

describe("a language model from scratch", () => {
  test("is cancelled, goes on, and writes", async () => {
    const options = await trainingOptions("full");
    let seen = 0;
    for await (const event of finetune(options)) {
      if (event.type === "step" && ++seen === 4) break; // leaving the loop cancels
    }
    assert.ok(!existsSync(join(options.output, "model.safetensors")));
    const run = finetune(options);
    const events = await collect(run);
    const [start] = events;
    assert.ok(start?.type === "start" && start.step >= 4 && start.resumedFrom !== null);
    assert.equal(steps(events)[0]!.step, start.step + 1);
    assert.equal((await run.result).finishReason, "completed");
    await using model = await loadGPT2(options.output);
    assert.ok((await model.generate("sea wind", { maxNewTokens: 8, ignoreEos: true, temperature: 0 }).result).text.length > 0);
  });

  test("is cancelled while rows are still read, or the model is", async () => {
    const options = await trainingOptions("full");
    async function* endless() {
      for (;;) yield { text: "sea wind salt" };
    }
    const reading = finetune({ ...options, train: endless() });
    setTimeout(() => reading.cancel(), 20);
    const { step, finishReason } = await reading.result;
    assert.deepEqual({ step, finishReason }, { step: 0, finishReason: "cancelled" });
    const waiting = finetune(options);
    const first = waiting.next();
    waiting.cancel();
    const { value } = await first;
    assert.ok(value?.type === "start" || (value?.type === "done" && value.finishReason === "cancelled"));
    assert.equal((await waiting.result).finishReason, "cancelled");
  });

  test("an aborted signal ends it with a checkpoint", async () => {
    const options = await trainingOptions("full");
    const controller = new AbortController();
    const run = finetune({ ...options, signal: controller.signal });
    await assert.rejects(async () => {
      for await (const event of run) if (event.type === "step") controller.abort();
    }, hasCode("ABORTED"));
    await assert.rejects(run.result, hasCode("ABORTED"));
    assert.ok(existsSync(join(options.output, "training-log.jsonl")));
    const { skipped } = (await collect(finetune(options)))[0] as Extract<FinetuneEvent, { type: "start" }>;
    assert.deepEqual(skipped, []);
  });

});

describe("what interrupts a run changes no bit", () => {
  for (const kind of ["gpt2", "bert"] as const) {
    for (const mode of MODES) {
      test(`kills: ${kind}, ${mode}`, async () => {
        const { kills, same } = await killAndResume(mode, kind, 2, generator(7));
        assert.deepEqual({ kills, same }, { kills: 2, same: true });
      });
    }
  }

  // Files of an adapter are small: what does not fit is the model at the end.
  for (const [mode, fileSize] of [["full", 1 << 20], ["full", 2 << 20], ["lora", 1 << 20]] as const) {
    testUnless(process.platform === "win32" && "no limit to set", `a disk that is full: ${mode}, ${fileSize} bytes`, async () => {
      const options = { ...(await trainingOptions(mode)), saveSteps: 7 };
      const whole = { ...options, output: newFolder("whole") };
      assert.deepEqual(await train(whole), { killed: false, code: undefined });
      await train(options, { lines: 12, wait: 0 });
      assert.deepEqual(await train(options, { fileSize }), { killed: false, code: "IO" });
      const names = readdirSync(options.output);
      assert.ok(!names.includes("model.safetensors") && !names.some((name) => name.startsWith(".checkpoint-")), names.join());
      if (mode === "full") await (await loadGPT2(join(options.output, names.find((name) => name.startsWith("checkpoint-"))!))).close();
      const [start] = await collect(finetune(options));
      assert.ok(start?.type === "start" && start.step >= 7 && start.skipped.length === 0);
      assert.equal(bits(options.output), bits(whole.output));
    });
  }
});
