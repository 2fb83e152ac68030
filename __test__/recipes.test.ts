/** The data of the recipes: nothing of the held-out side is anywhere else. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { dataFile, type Prepared } from "../recipes/lib/data.js";
import { readCatalogue } from "../recipes/lib/catalogue.js";
import { letters, split, SPLITS } from "../recipes/lib/split.js";
import { recipes } from "../recipes/run.js";
import { testUnless } from "./support/skip.js";

describe("split", () => {
  const shares = { heldout: 10, validation: 20 };
  const keys = { group: (text: string) => text, texts: (text: string) => [text] };
  const texts = Array.from({ length: 5000 }, (_, i) => `Text number ${i}, 第${i}个`);

  test("removes what differs in case, width and punctuation alone", () => {
    const { splits, counts } = split(["A text.", "a  TEXT!", "Ａ ｔｅｘｔ", "another"], keys, shares);
    assert.deepEqual([counts.rows, counts.duplicates, Object.values(splits).flat().length], [4, 2, 2]);
  });

  test("has the shares that were asked for, and leaves every text where it is when others come", () => {
    const { splits } = split(texts, keys, shares);
    assert.ok(Math.abs(splits.heldout.length - 500) < 80 && Math.abs(splits.validation.length - 225) < 60);
    const more = split(["first", ...texts.map((text) => `${text} more`), ...texts], keys, shares).splits;
    for (const side of SPLITS) assert.ok(splits[side].every((text) => more[side].includes(text)));
  });

  test("keeps what shares a text with the held-out side out of the others", () => {
    const pairs = Array.from({ length: 3000 }, (_, i) => [`question ${i}`, `answer ${i % 400}`] as const);
    const { splits, counts } = split(pairs, { group: ([question]) => question, texts: (pair) => pair }, shares);
    const heldout = new Set(splits.heldout.flat().map(letters));
    assert.ok(splits.heldout.length > 200 && counts.shared > 0);
    assert.ok(![...splits.train, ...splits.validation].flat().some((text) => heldout.has(letters(text))));
  });
});

test("a catalogue is read in both orders of bytes", () => {
  const pairs = [["", "header"], ["Open", "打开"], ["menu\u0004Shut", "关"], ["one\0many", "一\0多"], ["Close\n", "关闭\n"]];
  for (const little of [true, false]) {
    const texts = [...pairs.map(([source]) => source!), ...pairs.map(([, target]) => target!)].map((text) => Buffer.from(text));
    const file = Buffer.alloc(28 + 16 * pairs.length);
    const write = (value: number, at: number) => (little ? file.writeUInt32LE(value, at) : file.writeUInt32BE(value, at));
    [0x950412de, 0, pairs.length, 28, 28 + 8 * pairs.length].forEach((value, i) => write(value, 4 * i));
    let at = file.length;
    texts.forEach((text, i) => {
      write(text.length, 28 + 8 * i);
      write(at, 32 + 8 * i);
      at += text.length + 1;
    });
    const whole = Buffer.concat([file, ...texts.map((text) => Buffer.concat([text, Buffer.alloc(1)]))]);
    assert.deepEqual(readCatalogue(whole), [["Open", "打开"], ["Shut", "关"], ["Close\n", "关闭\n"]]);
  }
  assert.throws(() => readCatalogue(Buffer.from("not a catalogue")));
});

/** Every text of a row, whatever its columns are. */
function textsOf(row: Record<string, unknown>): string[] {
  const { text, source, target, messages } = row;
  if (messages) return (messages as { content: string }[]).map(({ content }) => content);
  return target === undefined ? [text as string] : [source as string, target as string];
}

describe("prepared data", () => {
  for (const name of recipes) {
    const there = existsSync(dataFile(name, "train"));
    testUnless(!there && `npm run recipe -- ${name} --data was not run here`, name, () => {
      const { files } = JSON.parse(readFileSync(join(__dirname, "..", "recipes", name, "data.json"), "utf8")) as Prepared;
      const hashes = {} as Record<(typeof SPLITS)[number], Set<string>>;
      for (const side of SPLITS) {
        const content = readFileSync(dataFile(name, side), "utf8");
        assert.equal(createHash("sha256").update(content).digest("hex"), files[side].sha256, `${side}: not what data.json describes`);
        const rows = content.split("\n").filter(Boolean).map((line) => JSON.parse(line) as Record<string, unknown>);
        assert.equal(rows.length, files[side].rows);
        hashes[side] = new Set(rows.flatMap(textsOf).map((text) => createHash("sha256").update(letters(text)).digest("hex")));
      }
      for (const side of ["train", "validation"] as const) {
        const shared = [...hashes.heldout].filter((hash) => hashes[side].has(hash));
        assert.deepEqual(shared, [], `${shared.length} held-out texts are in ${side}`);
      }
    });
  }
});
