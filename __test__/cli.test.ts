/** `candlewick embed`, `classify`, … as somebody at a shell meets them: rows in, rows out, exit codes. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, test } from "vitest";
import { loadBERT } from "../index.js";
import { candlewick, rows as rowsOf } from "./support/cli.js";
import { fixturePath } from "./support/fixtures.js";

const folder = (name: string) => fixturePath(join("pipelines", name));
const temporary = mkdtempSync(join(tmpdir(), "candlewick-cli-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

/** What it writes; it must succeed, and say nothing else. */
const rows = (args: string[], stdin?: string) => rowsOf(args, { stdin });
const json = async (args: string[], stdin?: string) => (await rows([...args, "--json"], stdin)).map((row) => JSON.parse(row));

const model = (name: string) => ["-m", folder(name), "--threads", "1"];
const texts = ["I loved this wonderful film 😀", "我们喜欢北京。", "boring and broken"];

function file(name: string, content: string): string {
  const path = join(temporary, name);
  writeFileSync(path, content);
  return path;
}

describe("classify", () => {
  test("says the same of arguments, a file, standard input and JSON lines", async () => {
    await using bert = await loadBERT(folder("classify"), { threads: 1 });
    const expected = (await bert.classify(texts)).map(({ label, score }, i) => `${label} ${score.toFixed(4)}\t${texts[i]}`);
    const lines = `\ufeff${texts.join("\r\n")}\r\n`;
    assert.deepEqual(await rows(["classify", ...model("classify"), ...texts]), expected);
    assert.deepEqual(await rows(["classify", ...model("classify"), "-f", file("texts.txt", lines)]), expected);
    assert.deepEqual(await rows(["classify", ...model("classify")], lines), expected);
    const objects = texts.map((text, i) => JSON.stringify(i % 2 ? text : { text })).join("\n\n");
    assert.deepEqual(await rows(["classify", ...model("classify"), "-f", file("texts.jsonl", objects)]), expected);
    const out = join(temporary, "out.tsv");
    assert.deepEqual(await rows(["classify", ...model("classify"), "-o", out], lines), []);
    assert.equal(readFileSync(out, "utf8"), `${expected.join("\n")}\n`);
  });

  test("writes JSON lines, reads pairs, and takes labels", async () => {
    await using bert = await loadBERT(folder("classify"), { threads: 1 });
    const pair = { text: texts[0]!, textPair: texts[1]! };
    assert.deepEqual(await json(["classify", ...model("classify"), "--from", "jsonl", "-k", "2"], JSON.stringify(pair)), [
      { ...pair, labels: await bert.classify(pair, { topK: 2 }) },
    ]);
    const given = await json(["classify", ...model("classify"), texts[0]!, "-l", "travel", "-l", "体育", "-k", "2", "--entailment-label", "joy"]);
    const { labels, scores } = await bert.zeroShot(texts[0]!, { candidateLabels: ["travel", "体育"], entailmentLabel: "joy" });
    assert.deepEqual(given[0].labels, labels.map((label, i) => ({ label, score: scores[i] })));
    assert.equal((await candlewick(["classify", ...model("classify"), "a", "-l", "travel"])).code, 1, "none of its labels means entailment");
    assert.equal((await candlewick(["classify", ...model("classify"), "a", "--entailment-label", "joy"])).code, 2, "without labels to choose from");
    const [row] = await json(["classify", ...model("nli"), texts[0]!, "-l", "travel", "-l", "体育", "--top-k", "2"]);
    assert.equal(row.method, "entailment");
    assert.deepEqual(row.labels.map(({ label }: { label: string }) => label).sort(), ["travel", "体育"]);
  });

  test("reports bad rows and goes on with --skip-bad, else stops at the first", async () => {
    const path = file("bad.jsonl", '"good"\n{"no": "text"}\n"good again"\n');
    const skipping = await candlewick(["classify", ...model("classify"), "-f", path, "--skip-bad"]);
    assert.equal(skipping.code, 1);
    assert.equal(skipping.stdout.trim().split("\n").length, 2);
    assert.ok(skipping.stderr.includes(`${path}:2`), skipping.stderr);
    const stopping = await candlewick(["classify", ...model("classify"), "-f", path]);
    assert.equal(stopping.code, 1);
    assert.ok(stopping.stderr.includes("INPUT_INVALID: ") && stopping.stderr.includes(`${path}:2`), stopping.stderr);
  });
});

test("embed writes the model's vectors", async () => {
  await using bert = await loadBERT(folder("sentences"), { threads: 1 });
  const expected = await bert.embed(texts, { pooling: "mean", promptName: "document" });
  const options = ["--pooling", "mean", "--prompt-name", "document"];
  const found = await json(["embed", ...model("sentences"), ...options, ...texts]);
  assert.deepEqual(found.map(({ text, embedding }) => [text, Float32Array.from(embedding)]), expected.map((row, i) => [texts[i], row]));
  const lines = await rows(["embed", ...model("sentences"), ...options, ...texts]);
  assert.deepEqual(lines.map((line) => Float32Array.from(line.split(" "), Number)), expected);
});

test("fill writes each mask's words", async () => {
  await using bert = await loadBERT(folder("mlm"), { threads: 1 });
  const text = "the [MASK] river";
  const fills = (await bert.fillMask(text, { topK: 2 })) as { score: number; tokenText: string; sequence: string }[];
  const [row] = await json(["fill", ...model("mlm"), "-k", "2", text]);
  assert.deepEqual(row, { text, masks: [fills] });
  assert.deepEqual(await rows(["fill", ...model("mlm"), "-k", "2", text]), fills.map((one) => `${one.score.toFixed(4)}\t${one.tokenText}\t${one.sequence}`));
});

test("entities writes what is written, of a whole file too", async () => {
  const text = "Alice sold the 👩‍👩‍👧‍👦 house in Cambridge.\nBob remembered Berlin 😀 yesterday. ".repeat(8);
  const path = file("article.txt", text);
  const options = ["entities", ...model("ner"), "--stride", "8", "--from", "whole", "-f", path];
  const [row] = await json(options);
  assert.equal(row.text, text);
  assert.ok(row.entities.length > 5);
  for (const one of row.entities) assert.equal(text.slice(one.start, one.end), one.text);
  assert.equal((await rows(options)).join("\n").split("\n").length >= row.entities.length, true);
});

test("answer reads its question from the command line or from JSON lines", async () => {
  await using bert = await loadBERT(folder("questions"), { threads: 1 });
  const asked = { question: "who sold it?", context: "Alice sold the house 😀 near London." };
  const answers = await bert.answer(asked, { topK: 2 });
  assert.deepEqual(await json(["answer", ...model("questions"), "-k", "2", "-q", asked.question, asked.context]), [{ question: asked.question, answers }]);
  assert.deepEqual(await json(["answer", ...model("questions"), "-k", "2", "--from", "jsonl"], JSON.stringify(asked)), [{ question: asked.question, answers }]);
  const { code, stderr } = await candlewick(["answer", ...model("questions"), asked.context]);
  assert.equal(code, 1);
  assert.ok(stderr.includes("INPUT_INVALID: ") && stderr.includes("--question"), stderr);
});

test("rerank writes the best documents first", async () => {
  await using bert = await loadBERT(folder("reranker"), { threads: 1 });
  const ranked = await bert.rerank({ query: "wonderful film", documents: texts }, { topK: 2 });
  const lines = await rows(["rerank", ...model("reranker"), "-q", "wonderful film", "-k", "2"], `${texts.join("\n")}\n`);
  assert.deepEqual(lines, ranked.map(({ index, score, document }) => `${score.toFixed(4)}\t${index}\t${document}`));
});

describe("the command line", () => {
  test("serve runs the server, with its own options", async () => {
    const { code, stdout } = await candlewick(["serve", "--check", "--model", "a=./a", "--port", "1"]);
    assert.equal(code, 0);
    assert.equal(JSON.parse(stdout).port, 1);
    const wrong = await candlewick(["serve", "--prot", "1"]);
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /Did you mean --port/);
    assert.match((await candlewick(["serve", "--help"])).stdout, /candlewick-server/);
  });

  test("lists its commands, and each its options", async () => {
    const { code, stdout } = await candlewick(["--help"]);
    assert.equal(code, 0);
    for (const name of ["generate", "embed", "classify", "fill", "entities", "answer", "rerank"]) {
      assert.match(stdout, new RegExp(`^  ${name} `, "m"));
      const help = await candlewick([name, "--help"]);
      assert.equal(help.code, 0);
      assert.match(help.stdout, /--model <path>[^]+--threads <n>/);
    }
  });

  for (const [args, code] of [
    [["fill", "text"], 2],
    [["embedd"], 2],
    [["classify", ...model("classify"), "x", "--multi-label"], 2],
    [["classify", ...model("classify"), "x", "--top-k", "two"], 2],
    [["classify", ...model("mlm"), "x"], 1],
    [["embed", "-m", "./no-such-folder", "x"], 1],
    [["embed", ...model("sentences"), "-f", "./no-such-file"], 1],
    [["embed", ...model("sentences"), "x", "-o", "./no/such/folder/out"], 1],
    [["embed", ...model("sentences"), "--no-truncate", "long ".repeat(200)], 1],
  ] as const) {
    test(`ends with ${code} after ${args.join(" ").slice(0, 60)}`, async () => {
      const { code: found, stdout, stderr } = await candlewick([...args]);
      assert.deepEqual({ found, stdout }, { found: code, stdout: "" });
      assert.match(stderr, code === 2 ? /--help/ : /^[A-Z_]+: ./m);
    });
  }
});
