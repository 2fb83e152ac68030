/** The JavaScript thread is never held: while the engine is busy, timers run. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadBERT, loadGPT2 } from "../index.js";
import { fixturePath } from "./support/fixtures.js";
import { randomModel } from "./support/models.js";

describe("the event loop", () => {
  test("turns while a megabyte is tokenised", async () => {
    await using lm = await loadGPT2(randomModel(), { threads: 1 });
    const text = "The quick brown fox, 敏捷的棕色狐狸. ".repeat(25_000);
    const { turns, value } = await turnsDuring(() => lm.countTokens(text));
    assert.ok(value >= 1_000_000);
    assert.ok(turns > 5, `${turns} turns`);
    assert.equal((await lm.encode(text)).length, value);
  });

  test("turns while a long prompt is prefilled", async () => {
    await using lm = await loadGPT2(randomModel({ n_positions: 2048, n_embd: 256, n_layer: 6 }), { threads: 1 });
    const prompt = "a".repeat(2000);
    const { turns } = await turnsDuring(() => lm.generate(prompt, { maxNewTokens: 1 }).next());
    assert.ok(turns > 5, `${turns} turns`);
  });

  test("turns while an encoder reads many texts", async () => {
    await using bert = await loadBERT(fixturePath("bert-base"), { threads: 1 });
    const inputs = Array.from({ length: 500 }, () => ({ ids: Array.from({ length: 48 }, (_, id) => id) }));
    const { turns, value } = await turnsDuring(() => bert.forward(inputs, { hiddenStates: true }));
    assert.equal(value.length, 500);
    assert.ok(turns > 5, `${turns} turns`);
  });

  test("loading does not hold it either, and reports progress", async () => {
    const model = randomModel({ n_positions: 2048, n_embd: 512, n_layer: 6 });
    const reports: { loaded: number; total: number }[] = [];
    const { turns, value } = await turnsDuring(() =>
      loadGPT2(model, { threads: 1, onProgress: ({ loaded, total }) => reports.push({ loaded, total }) }),
    );
    await value.close();
    assert.ok(turns > 2, `${turns} turns`);
    const last = reports.at(-1)!;
    assert.equal(last.loaded, last.total);
    assert.ok(reports.every(({ loaded }, i) => loaded >= (reports[i - 1]?.loaded ?? 0)));
  });
});

/** How often the loop turned before the call was answered. */
async function turnsDuring<T>(run: () => Promise<T>): Promise<{ turns: number; value: T }> {
  let turns = 0;
  let running = true;
  const turn = () => {
    turns++;
    if (running) setTimeout(turn, 1);
  };
  setTimeout(turn, 1);
  const value = await run();
  running = false;
  return { turns, value };
}
