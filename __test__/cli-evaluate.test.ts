/** `candlewick evaluate` and `candlewick tokenizer`, as a person meets them. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "vitest";
import { fixturePath } from "./support/fixtures.js";
import { newFolder, recitingModel } from "./support/models.js";

const root = join(__dirname, "..");

async function candlewick(...args: string[]) {
  const child = spawn(process.execPath, ["--import", "tsx", "src/cli/main.ts", ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (output.stderr += text));
  const [code] = await once(child, "close");
  return { code: code as number, ...output };
}

function file(name: string, content: string): string {
  const path = join(newFolder("cli"), name);
  writeFileSync(path, content);
  return path;
}

test("evaluate prints metrics and samples, or JSON, and writes the report", async () => {
  const model = recitingModel("one\nzwei drei vier");
  const data = file("pairs.csv", "english,german\none,zwei drei vier\n");
  const flags = ["-m", model, "-t", "translation", "-d", data, "-c", "source=english", "-c", "target=german"];
  const report = join(newFolder("cli"), "report");
  const { code, stdout, stderr } = await candlewick("evaluate", ...flags, "--report", report);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^perplexity +1$/m);
  assert.match(stdout, /predicted zwei drei vier/);
  assert.ok(["json", "md", "html"].every((ending) => existsSync(join(report, `report.${ending}`))));
  const json = await candlewick("evaluate", ...flags, "--json", "--samples", "0");
  const metrics = JSON.parse(json.stdout);
  assert.deepEqual([metrics.exactMatch, metrics.samples], [1, []]);
});

test("train and evaluate say what the labels were taken for", async () => {
  const model = fixturePath("pipelines/sentences");
  const data = file("labels.csv", "text,label\nthe river,-2\nthe ship,2\nthe harbour,n/a\nthe river,-2\n");
  const output = join(newFolder("cli"), "tuned");
  const flags = ["-t", "text-classification", "-m", model, "-d", data, "-o", output, "--epochs", "1"];
  const trained = await candlewick("train", ...flags);
  const says = /labels: 3 classes \(-2, 2, n\/a\); problem type single_label_classification/;
  assert.equal(trained.code, 0, trained.stderr);
  assert.match(trained.stdout + trained.stderr, new RegExp(`${says.source}, inferred`));
  const measured = await candlewick("evaluate", "-m", output, "-t", "text-classification", "-d", data);
  assert.equal(measured.code, 0, measured.stderr);
  assert.match(measured.stdout, says);
});

test("evaluate reads a configuration, which flags override", async () => {
  const model = recitingModel("one\nzwei");
  const data = file("pairs.jsonl", '{"source": "one", "target": "zwei"}\n');
  const config = file("config.json", JSON.stringify({ "//": "a note", $schema: "x", model, task: "translation", data, generate: false, samples: 3 }));
  const without = JSON.parse((await candlewick("evaluate", config, "--json")).stdout);
  assert.equal(without.bleu, undefined);
  const over = JSON.parse((await candlewick("evaluate", config, "--generate", "--num-beams", "2", "--json")).stdout);
  assert.equal(over.bleu.length, 1);
});

test("tokenizer writes a tokenizer and says what it is", async () => {
  const text = file("text.txt", "one two three\n".repeat(50));
  const output = join(newFolder("cli"), "tokenizer");
  const { code, stdout, stderr } = await candlewick("tokenizer", text, "-t", "byte-level-bpe", "-o", output, "-n", "270");
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^2\d\d entries from 200 words/);
  assert.ok(JSON.parse(readFileSync(join(output, "vocab.json"), "utf8"))["<|endoftext|>"] === 0);
});

for (const [args, exit, says] of [
  [["evaluate", "-t", "nothing"], 2, /--help lists the options/],
  [["evaluate", "-c", "text"], 2, /role=name/],
  [["evaluate"], 1, /^OPTION_INVALID/m],
  [["evaluate", "nowhere.json"], 1, /^IO/m],
  [["evaluate", "-m", "./nowhere", "-t", "fill-mask", "-d", "x.txt"], 1, /^MODEL_NOT_FOUND/m],
  [["evaluate", file("bad.json", "{")], 1, /^OPTION_INVALID/m],
  [["evaluate", file("unknown.json", '{"batch": 3}')], 1, /^OPTION_UNKNOWN/m],
  [["tokenizer", "nowhere.txt", "-t", "wordpiece", "-o", newFolder("cli")], 1, /^DATA_NOT_FOUND/m],
  [["tokenizer"], 1, /^OPTION_INVALID/m],
] as const) {
  test(`refuses ${args.join(" ").replaceAll(/\/\S*\//g, "")}`, async () => {
    const { code, stdout, stderr } = await candlewick(...args);
    assert.deepEqual({ code, stdout }, { code: exit, stdout: "" });
    assert.match(stderr, says);
  });
}
