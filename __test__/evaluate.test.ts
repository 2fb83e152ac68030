/** evaluate(): the metrics of each task on models whose answers are known, its report, and what it refuses. */
import assert from "node:assert/strict";
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, test } from "vitest";
import { CandlewickError, evaluate, loadBERT, loadGPT2, similarity, trainTokenizer, type EvaluationProgress } from "../index.js";
import { defaultModelPath } from "../src/package.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder, randomModel, recitingModel } from "./support/models.js";

const close = (ours: number | undefined, expected: number, tolerance = 1e-6) =>
  assert.ok(Math.abs(ours! - expected) <= tolerance * Math.max(1, Math.abs(expected)), `${ours}, expected ${expected}`);

const words = ["good", "bad", "film", "the", "very", "new", "york", "is", "a", "好", "坏", "电", "影", "?"];
/** Texts that differ, the same in each run. */
const texts = (count: number) =>
  Array.from({ length: count }, (_, i) => Array.from({ length: 3 + (i % 9) }, (_, j) => words[(i * 7 + j * (i % 5) + j) % words.length]).join(" "));

/** A fixture's model with a tokenizer of its own. */
async function withTokenizer(name: string): Promise<string> {
  const folder = newFolder(name);
  cpSync(fixturePath(name), folder, { recursive: true });
  await trainTokenizer({ type: "wordpiece", texts: texts(60), output: folder, vocabularySize: 90, minFrequency: 1 });
  return folder;
}

const softmaxLoss = (logits: Float32Array, label: number) =>
  Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0)) - logits[label]!;
const argmax = (logits: Float32Array) => logits.indexOf(Math.max(...logits));
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

describe("a classifier", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await withTokenizer("bert-classify-5");
  });

  test("is measured as its own logits say, whatever the batch", async () => {
    await using bert = await loadBERT(folder);
    const { labels } = bert.info;
    const data = texts(70).map((text, i) => ({ text, label: labels[(i * 3) % 4] }));
    const outputs = await bert.forward(data.map(({ text }) => text));
    const logits = outputs.map(({ logits }) => logits!.data);
    const truth = data.map(({ label }) => labels.indexOf(label!));
    const metrics = await evaluate({ model: bert, task: "text-classification", data });
    assert.equal(metrics.examples, 70);
    assert.deepEqual(metrics.labels, labels);
    close(metrics.loss, mean(logits.map((row, i) => softmaxLoss(row, truth[i]!))), 1e-5);
    close(metrics.accuracy, mean(logits.map((row, i) => Number(argmax(row) === truth[i]))));
    assert.equal(metrics.micro.f1, metrics.accuracy);
    const [low, high] = metrics.accuracyInterval!;
    assert.ok(low < metrics.accuracy && metrics.accuracy < high);
    const matrix = labels.map(() => labels.map(() => 0));
    logits.forEach((row, i) => matrix[truth[i]!]![argmax(row)]!++);
    assert.deepEqual(metrics.confusionMatrix, matrix);
    assert.ok(metrics.samples.length > 0 && metrics.samples.every(({ expected, predicted }) => expected !== predicted));
    const other = await evaluate({ model: folder, task: "text-classification", data, batchSize: 3 });
    assert.deepEqual({ ...other, seconds: 0 }, { ...metrics, seconds: 0 });
    // It is still open.
    assert.equal((await bert.forward("good")).logits!.data.length, 5);
  });

  test("takes files, several, arrays and iterables alike", async () => {
    const { labels } = await loadBERT(folder).then(async (bert) => (await bert.close(), bert.info));
    const rows = texts(40).map((text, i) => ({ review: text, stars: labels[i % 5]! }));
    const at = newFolder("data");
    const jsonl = join(at, "rows.jsonl");
    writeFileSync(jsonl, rows.map((row) => JSON.stringify(row)).join("\n"));
    const halves = [0, 1].map((half) => {
      const path = join(at, `half-${half}.csv`);
      const lines = rows.slice(half * 20, half * 20 + 20).map(({ review, stars }) => `"${review}",${stars}`);
      writeFileSync(path, ["review,stars", ...lines].join("\n"));
      return path;
    });
    const sources = [
      jsonl,
      halves,
      rows,
      new Set(rows),
      (async function* () {
        for (const row of rows) yield row;
      })(),
    ];
    const columns = { text: "review", label: "stars" };
    const all = [];
    for (const data of sources) {
      const metrics = await evaluate({ model: folder, task: "text-classification", data, columns });
      all.push({ ...metrics, seconds: 0 });
    }
    for (const metrics of all) assert.deepEqual(metrics, all[0]);
  });

  test("refuses what does not fit, by code", async () => {
    const refused = (code: Parameters<typeof hasCode>[0], options: object) =>
      assert.rejects(evaluate({ model: folder, task: "text-classification", data: [{ text: "good", label: "0" }], ...options } as never), hasCode(code));
    await refused("LABEL_UNKNOWN", { data: [{ text: "good", label: "nothing of the kind" }] });
    await refused("COLUMN_UNKNOWN", { data: [{ text: "good" }] });
    await refused("COLUMN_UNKNOWN", { columns: { text: "review" } });
    await refused("DATA_EMPTY", { data: [] });
    await refused("DATA_INVALID", { data: ["text", { text: "a" }] });
    await refused("DATA_INVALID", { data: [{ text: 3, label: "0" }] });
    await refused("DATA_NOT_FOUND", { data: "nowhere.jsonl" });
    await refused("OPTION_INVALID", { data: 3 });
    await refused("OPTION_INVALID", { data: undefined });
    await refused("OPTION_INVALID", { task: "nothing" });
    await refused("OPTION_INVALID", { labels: ["a", "b"] });
    await refused("OPTION_INVALID", { generate: true });
    await refused("OPTION_INVALID", { masking: 0.3 });
    await refused("OPTION_INVALID", { stride: 3 });
    await refused("OPTION_INVALID", { separator: " " });
    await refused("OPTION_INVALID", { format: "csv" });
    await refused("OPTION_INVALID", { columns: { nothing: "text" } });
    // Another head's tasks, and another number of outputs.
    await refused("OPTION_INVALID", { task: "question-answering", data: [{ question: "good", context: "bad", answers: [] }] });
    await refused("OPTION_INVALID", { task: "fill-mask", data: [{ text: "good bad good" }] });
    await refused("OPTION_INVALID", { problemType: "regression", data: [{ text: "good", label: 0.5 }] });
    const cause = new Error("mine");
    const throws = (function* () {
      yield { text: "good", label: "0" };
      throw cause;
    })();
    await assert.rejects(
      evaluate({ model: folder, task: "text-classification", data: throws }),
      (error) => error instanceof CandlewickError && error.code === "DATA_INVALID" && error.cause === cause,
    );
    await refused("OPTION_UNKNOWN", { batch: 3 });
    await refused("OPTION_UNKNOWN", { generation: { beams: 3 } });
    await refused("UNSUPPORTED_MODEL", { task: "text-generation", data: [{ text: "a" }] });
    await refused("MODEL_NOT_FOUND", { model: "./nowhere" });
    await refused("TOKENIZER_MISSING", { model: fixturePath("bert-classify-2") });
    await using gpt2 = await loadGPT2(randomModel());
    await refused("OPTION_INVALID", { model: gpt2 });
    await refused("IO", { data: [{ text: "good", label: 0 }], report: join(folder, "config.json", "report") });
  });

  test("reports progress, and stops when it is aborted", async () => {
    const data = texts(400).map((text, i) => ({ text, label: i % 5 }));
    const seen: EvaluationProgress[] = [];
    await evaluate({ model: folder, task: "text-classification", data, onProgress: (progress) => seen.push(progress) });
    assert.deepEqual(seen.at(-1), { stage: "evaluate", done: 400, total: 400 });
    assert.ok(seen.some(({ stage }) => stage === "load"));
    const abort = new AbortController();
    const run = evaluate({ model: folder, task: "text-classification", data, batchSize: 1, signal: abort.signal, onProgress: ({ stage }) => stage === "evaluate" && abort.abort() });
    await assert.rejects(run, hasCode("ABORTED"));
    await assert.rejects(evaluate({ model: folder, task: "text-classification", data, signal: AbortSignal.abort() }), hasCode("ABORTED"));
  });

  test("leaves timers alone", async () => {
    const data = texts(3000).map((text, i) => ({ text: text.repeat(5), label: i % 5 }));
    let last = performance.now();
    let worst = 0;
    const timer = setInterval(() => {
      worst = Math.max(worst, performance.now() - last);
      last = performance.now();
    }, 5);
    await evaluate({ model: folder, task: "text-classification", data });
    clearInterval(timer);
    // Generous: other tests run beside it. A second is what a blocked loop would take.
    assert.ok(worst < 500, `${worst} ms`);
  });

  test("its report is JSON, Markdown and one page, with the curves of the training's log", async () => {
    const hostile = "<script>alert(1)</script> | `x`";
    const data = texts(30).map((text, i) => ({ text: i === 0 ? hostile : text, label: i % 5 }));
    const log = [
      ...Array.from({ length: 50 }, (_, i) => ({ type: "step", step: i + 1, loss: 2 / (i + 1), learningRate: 1e-4 * i })),
      { type: "evaluation", step: 50, loss: 0.7 },
    ];
    writeFileSync(join(folder, "training-log.jsonl"), `${log.map((row) => JSON.stringify(row)).join("\n")}\n{"type": "step", "st`);
    const report = join(newFolder("report"), "deep");
    const metrics = await evaluate({ model: folder, task: "text-classification", data, report, samples: 30 });
    const read = (ending: string) => readFileSync(join(report, `report.${ending}`), "utf8");
    assert.deepEqual(JSON.parse(read("json")).metrics, metrics);
    const html = read("html");
    assert.ok(html.includes("<svg") && html.includes('class="matrix"') && html.includes("validation"));
    assert.ok(!html.includes("<script") && !/(src|href)=/.test(html), "it needs no other file");
    assert.ok(html.includes("&#60;script&#62;"));
    const markdown = read("md");
    assert.ok(markdown.includes("## Confusion matrix") && !markdown.includes("<script"));
    await assert.rejects(evaluate({ model: folder, task: "text-classification", data, report, trainingLog: "nowhere" }), hasCode("DATA_NOT_FOUND"));
  });
});

test("several labels, and numbers", async () => {
  const several = await withTokenizer("bert-multi-label");
  await using bert = await loadBERT(several);
  const { labels } = bert.info;
  const data = texts(50).map((text, i) => ({ text, label: labels.filter((_, j) => (i + j) % 3 === 0) }));
  const logits = (await bert.forward(data.map(({ text }) => text))).map(({ logits }) => logits!.data);
  const metrics = await evaluate({ model: bert, task: "text-classification", data });
  assert.equal(metrics.problemType, "multi_label_classification");
  const wrong = data.flatMap(({ label }, i) => labels.map((name, j) => Number(label.includes(name) !== logits[i]![j]! > 0)));
  close(metrics.hammingLoss, mean(wrong));

  const number = await withTokenizer("bert-regression");
  await using regression = await loadBERT(number);
  const rows = texts(20).map((text, i) => ({ text, score: i / 4 }));
  const values = (await regression.forward(rows.map(({ text }) => text))).map(({ logits }) => logits!.data[0]!);
  const measured = await evaluate({ model: regression, task: "text-classification", data: rows, problemType: "regression" });
  close(measured.meanSquaredError, mean(values.map((value, i) => (value - i / 4) ** 2)), 1e-5);
  assert.ok(Math.abs(measured.spearman) <= 1);
});

test("tags are scored as entities", async () => {
  const folder = await withTokenizer("bert-tokens");
  await using bert = await loadBERT(folder);
  const { labels } = bert.info;
  const data = texts(30).map((text, i) => {
    const tokens = text.split(" ");
    return { tokens, tags: tokens.map((_, j) => labels[(i + j) % labels.length]!) };
  });
  const metrics = await evaluate({ model: bert, task: "token-classification", data });
  // Every word of the data is one token.
  const outputs = await bert.forward(data.map(({ tokens }) => tokens.join(" ")));
  const right = outputs.flatMap(({ logits }, i) =>
    data[i]!.tags.map((tag, j) => Number(labels[argmax(logits!.data.subarray((j + 1) * labels.length, (j + 2) * labels.length))] === tag)),
  );
  close(metrics.accuracy, mean(right));
  assert.ok(metrics.f1 >= 0 && metrics.perClass.length > 0);
});

test("answers are cut out of contexts, by windows where they are long", async () => {
  const folder = await withTokenizer("bert-questions");
  await using bert = await loadBERT(folder);
  const contexts = texts(20).map((text) => `${text} ${text} new york`);
  const said = await Promise.all(contexts.map((context) => bert.answer({ question: "a film ?", context }, { alignToWords: false, maxAnswerLength: 30 })));
  const data = contexts.map((context, i) => {
    // Half of them are what the model says.
    const text = i % 2 ? said[i]!.answer : "new york";
    return { question: "a film ?", context, answers: [{ text, answerStart: i % 2 ? said[i]!.start : context.indexOf(text) }] };
  });
  const metrics = await evaluate({ model: bert, task: "question-answering", data });
  const right = data.filter(({ answers }, i) => said[i]!.answer === answers[0]!.text).length;
  assert.ok(metrics.exactMatch >= right / 20 - 1e-9 && metrics.f1 >= metrics.exactMatch, `${metrics.exactMatch}, ${right}`);
  assert.equal(metrics.withAnswer, undefined);
  const windows = await evaluate({ model: bert, task: "question-answering", data, maxLength: 16, stride: 4 });
  assert.equal(windows.examples, 20);
  const silent = await evaluate({ model: bert, task: "question-answering", data: [...data, { question: "a film ?", context: "bad film", answers: [] }] });
  assert.ok(silent.withoutAnswer && silent.withAnswer);
});

test("masked tokens are guessed, the same ones for the same seed", async () => {
  const folder = await withTokenizer("bert-mlm");
  const data = texts(40).map((text) => ({ text }));
  const run = async (seed: number) => ({ ...(await evaluate({ model: folder, task: "fill-mask", data, seed })), seconds: 0 });
  const first = await run(1);
  close(first.perplexity, Math.exp(first.loss));
  assert.ok(first.tokens >= 40);
  assert.deepEqual(await run(1), first);
  assert.notDeepEqual(await run(2), first);
});

test("vectors are compared by their cosine", async () => {
  const folder = await withTokenizer("bert-base");
  const [a, b] = [texts(24), texts(48).slice(24)];
  const scored = a.map((text, i) => ({ text, textPair: i % 2 ? text : b[i]!, score: i % 2 }));
  const metrics = await evaluate({ model: folder, task: "feature-extraction", data: scored });
  assert.ok(metrics.spearman! > 0.8, `${metrics.spearman}`);
  const same = [...new Set(a)].map((text) => ({ anchor: text, positive: text }));
  const found = await evaluate({ model: folder, task: "feature-extraction", data: same });
  assert.equal(found.accuracy, 1);
});

test("vectors are those of embed(), with the length, the prompt and the layers that the files name", async () => {
  const folder = newFolder("sentences");
  cpSync(fixturePath("pipelines/sentences"), folder, { recursive: true });
  const data = texts(12).map((text, i) => ({ text: `${text} `.repeat(9), textPair: texts(24)[12 + i]!, score: i }));
  for (const include_prompt of [true, false]) {
    writeFileSync(join(folder, "1_Pooling", "config.json"), JSON.stringify({ embedding_dimension: 24, pooling_mode: "mean", include_prompt }));
    await using bert = await loadBERT(folder);
    const { samples } = await evaluate({ model: bert, task: "feature-extraction", data, samples: 12 });
    const [first, second] = await Promise.all([bert.embed(data.map(({ text }) => text)), bert.embed(data.map(({ textPair }) => textPair))]);
    for (const [i, { predicted }] of samples.entries()) close(predicted as number, similarity(first[i]!, second[i]!, "cosine"), 1e-5);
  }
});

describe("a language model", () => {
  test("in bf16 its perplexity is within 0.5% of f32's, in int8 within 1%", async () => {
    const data = join(__dirname, "..", "docs", "errors.md");
    const perplexity = async (dtype: "f32" | "bf16" | "int8") =>
      (await evaluate({ model: defaultModelPath, task: "text-generation", data: [{ text: readFileSync(data, "utf8") }], dtype })).perplexity;
    const exact = await perplexity("f32");
    for (const [dtype, most] of [["bf16", 0.005], ["int8", 0.01]] as const) {
      const found = await perplexity(dtype);
      assert.ok(found !== exact, `${dtype} is not f32`);
      close(found, exact!, most);
    }
  });

  test("finds texts as likely as PyTorch says", async () => {
    const { rows } = JSON.parse(readFileSync(fixturePath("perplexity.json"), "utf8"));
    await using lm = await loadGPT2(defaultModelPath, { dtype: "f32" });
    for (const { text, tokens, bytes, bits, right } of rows) {
      const metrics = await evaluate({ model: lm, task: "text-generation", data: [{ text }] });
      assert.deepEqual([metrics.tokens, metrics.bytes], [tokens, bytes]);
      close(metrics.bitsPerByte, bits / bytes, 1e-5);
      close(metrics.tokenAccuracy, right / tokens);
      close(metrics.perplexity, Math.exp(metrics.loss));
    }
    const all = await evaluate({ model: lm, task: "text-generation", data: rows.map(({ text }: { text: string }) => ({ text })), batchSize: 2 });
    const sum = (of: "bits" | "bytes") => rows.reduce((total: number, row: Record<string, number>) => total + row[of]!, 0);
    close(all.bitsPerByte, sum("bits") / sum("bytes"), 1e-5);
    assert.equal(all.examples, rows.length);
  });

  test("that recites is right to the letter", async () => {
    const model = recitingModel("one\nzwei drei vier");
    const data = [{ source: "one", target: "zwei drei vier" }];
    const metrics = await evaluate({ model, task: "translation", data });
    assert.equal(metrics.bleu!.score, 0, "three words have no four in a row");
    close(metrics.chrf, 100);
    assert.equal(metrics.exactMatch, 1);
    close(metrics.perplexity, 1);
    assert.deepEqual(metrics.samples, [{ input: "one", expected: "zwei drei vier", predicted: "zwei drei vier" }]);
    const other = await evaluate({ model, task: "completion", data: [{ prompt: "one\n", completion: "zwei drei fünf" }], generate: false });
    assert.equal(other.bleu, undefined);
    assert.ok(other.perplexity > 2);
    const talk = await evaluate({ model: recitingModel("hi"), task: "dialogue", data: [{ messages: ["", "hi"] }], separator: "", samples: 0 });
    assert.ok(talk.tokens > 0);
  });

  test("finds Chinese by itself, and beams are an option", async () => {
    const model = recitingModel("床\n疑是地上霜");
    const data = [{ source: "床", target: "疑是地上霜" }];
    const metrics = await evaluate({ model, task: "translation", data, generation: { numBeams: 2 } });
    assert.equal(metrics.bleu!.tokenizer, "zh");
    close(metrics.bleu!.score, 100);
    assert.equal((await evaluate({ model, task: "translation", data, bleuTokenizer: "none" })).bleu!.length, 1);
  });
});

test("temporary files are gone", async () => {
  const { mkdtempSync, readdirSync } = await import("node:fs");
  const folder = mkdtempSync(join(newFolder("tmp"), "x"));
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = folder;
  try {
    const model = randomModel();
    await evaluate({ model, task: "text-generation", data: [{ text: "a text" }] });
    await assert.rejects(evaluate({ model, task: "text-generation", data: [{ text: 3 }] as never }), hasCode("DATA_INVALID"));
    assert.deepEqual(readdirSync(folder), []);
    assert.ok(existsSync(folder));
  } finally {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
  }
});
