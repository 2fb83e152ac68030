/** A pair of ids is read as the pair of texts that they are of. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type BERT, loadBERT, type TextPair } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";

let bert: BERT;
beforeAll(async () => {
  bert = await loadBERT(fixturePath(join("pipelines", "nli")), { threads: 1 });
});
afterAll(() => bert?.close());

const PAIRS: TextPair[] = [
  { text: "a lovely journey by train", textPair: "it is about travel" },
  { text: "the cook", textPair: "the river is wide and the ship is late, said the old captain" },
  { text: "体育新闻", textPair: "这句话是关于体育的。" },
  { text: "same", textPair: "same" },
  { text: "a ".repeat(70), textPair: "b c d" },
  { text: "a b c", textPair: "b ".repeat(90) },
  { text: "", textPair: "something" },
];
/** Without special tokens. */
const bare = async (text: string) => (await bert.encode(text, { truncate: false, maxLength: 96 })).ids.slice(1, -1);
const idsOf = async ({ text, textPair }: TextPair) => ({ ids: await bare(text), pairIds: await bare(textPair) });

describe("a pair of ids", () => {
  test("has the special tokens and types of a pair of texts, and its outputs", async () => {
    for (const options of [{}, { maxLength: 12 }, { maxLength: 40 }]) {
      const ids = await Promise.all(PAIRS.map(idsOf));
      assert.deepEqual(await bert.encode(ids, options), await bert.encode(PAIRS, options));
      const [found, expected] = [await bert.forward(ids, options), await bert.forward(PAIRS, options)];
      assert.deepEqual(found.map(({ logits }) => logits), expected.map(({ logits }) => logits));
      assert.deepEqual(found[2], expected[2]);
    }
    const [one] = PAIRS;
    const { ids, pairIds } = await idsOf(one!);
    assert.deepEqual(await bert.forward({ ids: Array.from(ids), pairIds: Array.from(pairIds) }), await bert.forward(one!));
    const { typeIds } = await bert.encode({ ids, pairIds });
    assert.deepEqual([typeIds[0], typeIds[ids.length + 1], typeIds[ids.length + 2], typeIds.at(-1)], [0, 0, 1, 1]);
  });

  test("may have no id in either place", async () => {
    const { ids } = await idsOf(PAIRS[0]!);
    const [cls, ...rest] = (await bert.encode({ ids: [], pairIds: [] })).ids;
    assert.deepEqual(rest, [rest[0], rest[0]]);
    assert.deepEqual([...(await bert.encode({ ids, pairIds: [] })).ids], [cls, ...ids, rest[0], rest[0]]);
    assert.deepEqual([...(await bert.encode({ ids: [], pairIds: ids })).ids], [cls, rest[0], ...ids, rest[0]]);
  });

  test("that cannot be read is refused", async () => {
    const anyway = (value: unknown) => value as never;
    const long = Array.from({ length: 200 }, () => 7);
    const cases: [string, () => Promise<unknown>][] = [
      ["CONTEXT_OVERFLOW", () => bert.forward({ ids: long, pairIds: [7] }, { truncate: false })],
      ["INPUT_INVALID", () => bert.forward({ ids: [7], pairIds: [100_000] })],
      ["INPUT_INVALID", () => bert.forward(anyway({ ids: [7], pairIds: [7], typeIds: [0] }))],
      ["INPUT_INVALID", () => bert.forward(anyway({ text: "a", textPair: "b", pairIds: [7] }))],
      ["INPUT_INVALID", () => bert.forward(anyway({ text: "a", pairIds: [7] }))],
      ["OPTION_INVALID", () => bert.forward(anyway({ pairIds: [7] }))],
      ["OPTION_INVALID", () => bert.forward(anyway({ ids: [7], pairIds: "b" }))],
      ["OPTION_INVALID", () => bert.forward(anyway({ ids: [7], pairIds: [-1] }))],
      ["OPTION_INVALID", () => bert.forward(anyway([{ ids: [7], pairIds: [7] }, { ids: [7] }]))],
      ["OPTION_INVALID", () => bert.forward({ ids: [7], pairIds: [7] }, { returnTokens: true })],
      ["OPTION_UNKNOWN", () => bert.forward(anyway({ ids: [7], pair_ids: [7] }))],
    ];
    for (const [code, run] of cases) await assert.rejects(run(), hasCode(anyway(code)), String(run));
  });
});
