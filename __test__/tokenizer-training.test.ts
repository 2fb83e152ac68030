/** trainTokenizer(): what it writes loads, and is the same each time. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { loadBERT, loadGPT2, trainTokenizer } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder, randomModel } from "./support/models.js";

const lines: string[] = readFileSync(fixturePath("tokenizer/lines.jsonl"), "utf8")
  .split("\n")
  .filter(Boolean)
  .map((line) => JSON.parse(line));

const contents = (folder: string) =>
  Object.fromEntries(readdirSync(folder).sort().map((name) => [name, readFileSync(join(folder, name), "utf8")]));

describe("trainTokenizer", () => {
  test("a byte-level BPE of any texts gives every one of them back in loadGPT2", async () => {
    const output = randomModel({ vocab_size: 600 });
    const seen: number[] = [];
    const trained = await trainTokenizer({ type: "byte-level-bpe", texts: lines, output, vocabularySize: 600, onProgress: ({ loaded, total }) => seen.push(loaded / total) });
    assert.equal(trained.vocabularySize, 600);
    assert.deepEqual(trained.files, ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]);
    assert.ok(seen.length > 0 && seen.at(-1) === 1);
    await using lm = await loadGPT2(output);
    const texts = await lm.decode(await lm.encode(lines), { skipSpecialTokens: false });
    assert.deepEqual(texts, lines);
  });

  test("iterables, async ones and files give the same tokenizer", async () => {
    const file = join(newFolder("corpus"), "corpus.jsonl");
    writeFileSync(file, lines.map((text) => JSON.stringify({ words: text })).join("\n"));
    const sources = [
      { texts: lines },
      {
        texts: (async function* () {
          yield* lines;
        })(),
      },
      { files: file, column: "words" },
    ];
    const all = [];
    for (const source of sources) {
      const output = newFolder("tokenizer");
      await trainTokenizer({ type: "wordpiece", ...source, output, vocabularySize: 3000, lowercase: true });
      all.push(contents(output));
    }
    assert.deepEqual(all[1], all[0]);
    assert.deepEqual(all[2], all[0]);
  });

  test("characters make a Chinese BERT's vocabulary", async () => {
    const output = newFolder("characters");
    const texts = ["我们很高兴能够与您合作！", "我们合作", "abc我"];
    const { vocabularySize } = await trainTokenizer({ type: "characters", texts, output, minFrequency: 1 });
    const vocabulary = readFileSync(join(output, "vocab.txt"), "utf8").trim().split("\n");
    assert.equal(vocabulary.length, vocabularySize);
    assert.deepEqual(vocabulary.slice(0, 6), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "我"]);
    assert.ok(vocabulary.includes("##b") && !vocabulary.includes("##们"));
    for (const name of ["config.json", "model.safetensors"]) writeFileSync(join(output, name), readFileSync(fixturePath(`bert-mlm/${name}`)));
    await using bert = await loadBERT(output);
    const { ids } = await bert.encode("我们abc");
    assert.equal(ids.length, 2 + 2 + 3);
    assert.ok(!ids.includes(1));
  });

  test("refuses what does not fit, by code, and writes nothing then", async () => {
    const output = join(newFolder("refused"), "deep");
    const refused = (code: Parameters<typeof hasCode>[0], options: object) =>
      assert.rejects(trainTokenizer({ type: "wordpiece", texts: ["a"], output, ...options } as never), hasCode(code));
    await refused("OPTION_UNKNOWN", { vocabSize: 3 });
    await refused("OPTION_INVALID", { type: "unigram" });
    await refused("OPTION_INVALID", { files: "a.txt" });
    await refused("OPTION_INVALID", { texts: undefined });
    await refused("OPTION_INVALID", { texts: "a" });
    await refused("OPTION_INVALID", { type: "byte-level-bpe", lowercase: true });
    await refused("OPTION_INVALID", { type: "byte-level-bpe", vocabularySize: 100 });
    await refused("OPTION_INVALID", { column: "text" });
    await refused("DATA_INVALID", { texts: [3] });
    await refused("DATA_EMPTY", { texts: [] });
    await refused("DATA_NOT_FOUND", { texts: undefined, files: "nowhere.txt" });
    await refused("IO", { output: join(fixturePath("processors.json"), "inside") });
    await refused("ABORTED", { signal: AbortSignal.abort() });
    const abort = new AbortController();
    const endless = (function* () {
      for (let i = 0; ; i++) {
        if (i === 5000) abort.abort();
        yield `text ${i}`;
      }
    })();
    await refused("ABORTED", { texts: endless, signal: abort.signal });
    assert.ok(!existsSync(output) || readdirSync(output).length === 0);
  });
});
