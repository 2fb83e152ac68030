/** Several LoRA adapters over one GPT-2 at generation time. What PEFT says: `tools/fixtures/adapters.py`. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "vitest";
import { loadGPT2 } from "../index.js";
import { fixturePath } from "./support/fixtures.js";
import { hasCode } from "./support/assertions.js";

const expected = JSON.parse(readFileSync(`${fixturePath("adapters")}/expected.json`, "utf8")) as {
  prompt: number[];
  greedy: Record<"base" | "all" | "stabilised", number[]>;
};
const adapters = { all: `${fixturePath("adapters")}/all`, stabilised: `${fixturePath("adapters")}/stabilised` };
const names = ["base", "all", "stabilised"] as const;

const load = () => loadGPT2(fixturePath("gpt2-base"), { dtype: "f32", adapters });
type Model = Awaited<ReturnType<typeof load>>;
const greedy = async (lm: Model, name: (typeof names)[number]) => {
  const options = { temperature: 0, maxNewTokens: expected.greedy[name].length, ...(name !== "base" && { adapter: name }) };
  return (await lm.generate(expected.prompt, options).result).tokens.map(({ id }) => id);
};

describe("adapters", () => {
  test("each gives PEFT's greedy text, and so does the base, all at once", async () => {
    await using lm = await load();
    assert.deepEqual(lm.info.adapters, ["all", "stabilised"]);
    const texts = await Promise.all(names.map((name) => greedy(lm, name)));
    assert.deepEqual(texts, names.map((name) => expected.greedy[name]));
  });

  test("one after another: a shared beginning is not taken from another adapter's past", async () => {
    await using lm = await load();
    for (const name of [...names, ...names.toReversed()]) assert.deepEqual(await greedy(lm, name), expected.greedy[name], name);
  });

  test("a name that the model does not have is refused at once", async () => {
    await using lm = await load();
    assert.throws(() => lm.generate([1], { adapter: "none" }), hasCode("OPTION_INVALID"));
    await using plain = await loadGPT2(fixturePath("gpt2-base"));
    assert.throws(() => plain.generate([1], { adapter: "all" }), hasCode("OPTION_INVALID"));
  });

  test("an adapter that cannot be loaded fails the load", async () => {
    const load = (folders: unknown) => loadGPT2(fixturePath("gpt2-base"), { adapters: folders as Record<string, string> });
    await assert.rejects(load({ x: "./no/such/folder" }), hasCode("MODEL_NOT_FOUND"));
    await assert.rejects(load({ x: 5 }), hasCode("OPTION_INVALID"));
    await assert.rejects(load(["x"]), hasCode("OPTION_INVALID"));
  });
});
