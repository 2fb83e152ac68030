/** `candlewick train`, as a person meets it: what it prints, Ctrl-C and --resume, what it leaves behind. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, test } from "vitest";
import { evaluate, loadGPT2, trainTokenizer } from "../index.js";
import type { FinetuneEvent } from "../src/train/events.js";
import { newFolder } from "./support/models.js";

const root = join(__dirname, "..");

function start(...args: string[]) {
  const child = spawn(process.execPath, ["--import", "tsx", "src/cli/main.ts", "train", ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (output.stderr += text));
  const ended = once(child, "close").then(([code]) => ({ code: code as number, ...output }));
  return { child, output, ended };
}

describe("candlewick train", () => {
  let model: string;
  let config: string;
  const text = "It is a truth universally acknowledged, that a single man must be in want of a wife.\n";

  beforeAll(async () => {
    model = newFolder("to-train");
    await trainTokenizer({ type: "byte-level-bpe", texts: [text.repeat(40)], output: model, vocabularySize: 280 });
    const shape = { model_type: "gpt2", n_embd: 32, n_layer: 2, n_head: 2, n_positions: 64, activation_function: "gelu_new", layer_norm_epsilon: 1e-5 };
    writeFileSync(join(model, "config.json"), JSON.stringify(shape));
    const [train, validation] = ["train.txt", "validation.txt"].map((name) => join(newFolder("data"), name)) as [string, string];
    writeFileSync(train, text.repeat(60));
    writeFileSync(validation, text.repeat(3));
    config = join(newFolder("config"), "config.json");
    const options = { model, task: "text-generation", train, validation, fromScratch: true, batchSize: 4, learningRate: 0.01, maxSteps: 30, evalSteps: 10, dropout: 0 };
    writeFileSync(config, JSON.stringify(options));
  });

  test("logs lines in a pipe, and leaves a model that has learned, with its log", async () => {
    const output = join(newFolder("tuned"), "model");
    const { code, stdout, stderr } = await start(config, "-o", output, "--set", "saveSteps=10", "--seed", "3").ended;
    assert.deepEqual([code, stderr], [0, ""]);
    assert.ok(!stdout.includes("\x1b"));
    assert.match(stdout, /^step 30\/30 {2}epoch [\d.]+ {2}loss [\d.]+ .* tokens\/s/m);
    assert.match(stdout, /validation: loss [\d.]+/);
    assert.match(stdout, /^Done after 30 steps/m);
    const log = readFileSync(join(output, "training-log.jsonl"), "utf8").trim().split("\n").map((line) => JSON.parse(line) as FinetuneEvent);
    const losses = log.filter((event) => event.type === "step").map(({ loss }) => loss);
    assert.equal(losses.length, 30);
    assert.ok(losses.at(-1)! < 0.6 * losses[0]!, `${losses[0]} → ${losses.at(-1)}`);
    await using lm = await loadGPT2(output);
    assert.ok((await lm.generate("It is a", { maxNewTokens: 4 }).text()).length > 0);
    const report = newFolder("report");
    const metrics = await evaluate({ model: output, task: "text-generation", data: [{ text }], report });
    assert.ok(metrics.perplexity < 30, `${metrics.perplexity}`);
    assert.ok(readFileSync(join(report, "report.html"), "utf8").includes("validation"));
  });

  test("Ctrl-C writes a checkpoint and ends; --resume goes on from it", async () => {
    const output = join(newFolder("interrupted"), "model");
    const run = start(config, "-o", output, "--max-steps", "150", "--json");
    while (!run.output.stdout.includes('"step":5,')) await Promise.race([once(run.child.stdout, "data"), run.ended]);
    run.child.kill("SIGINT");
    const { code, stdout, stderr } = await run.ended;
    assert.equal(code, 130);
    assert.match(stderr, /--resume/);
    const events = stdout.trim().split("\n").map((line) => JSON.parse(line) as FinetuneEvent);
    const done = events.at(-1)!;
    assert.ok(done.type === "done" && done.finishReason === "cancelled");
    assert.ok(readdirSync(output).includes(`checkpoint-${done.step}`));
    assert.ok(!existsSync(join(output, "model.safetensors")));
    const resumed = await start(config, "-o", output, "--max-steps", "150", "--resume").ended;
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.match(resumed.stdout, new RegExp(`Going on from step ${done.step}`));
    assert.match(resumed.stdout, /^Done after 150 steps/m);
  });

  for (const [args, exit, says] of [
    [["--epochs", "many"], 2, /--help lists the options/],
    [["--set", "nothing"], 2, /option=value/],
    [[], 1, /^OPTION_INVALID/m],
    [["--set", "batch=3"], 1, /^OPTION_UNKNOWN/m],
    [["-m", "./nowhere", "-t", "fill-mask", "-d", "x.txt", "-o", "./never"], 1, /^MODEL_NOT_FOUND/m],
  ] as const) {
    test(`refuses ${args.join(" ") || "nothing"}`, async () => {
      const { code, stdout, stderr } = await start(...args).ended;
      assert.deepEqual({ code, stdout }, { code: exit, stdout: "" });
      assert.match(stderr, says);
    });
  }
});
