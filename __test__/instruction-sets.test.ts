/** `CANDLEWICK_ISA` and `info.instructionSet`: other instructions, the same bits; what bf16 says where it is slow. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "vitest";
import { loadBERT } from "../index.js";
import { fixturePath } from "./support/fixtures.js";

const program = `
  import { loadBERT, loadGPT2 } from "candlewick";
  const found = [];
  for (const dtype of ["f32", "bf16", "int8", "q8_0"]) {
    const bert = await loadBERT(${JSON.stringify(fixturePath("bert-base"))}, { dtype });
    const lm = await loadGPT2(${JSON.stringify(fixturePath("gpt2-wide"))}, { dtype });
    const { lastHiddenState } = await bert.forward({ ids: [1, 2, 3, 40, 5] });
    const { tokens } = await lm.generate([5, 6, 7], { temperature: 0, maxNewTokens: 40, logprobs: 1 }).result;
    found.push([dtype, Array.from(lastHiddenState.data), tokens.map(({ id, logprob }) => [id, logprob])]);
    if (dtype === "f32") console.log(bert.info.instructionSet === lm.info.instructionSet ? lm.info.instructionSet : "two");
    await Promise.all([bert.close(), lm.close()]);
  }
  console.log(JSON.stringify(found));
`;

function run(isa: string) {
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: join(__dirname, ".."),
    env: { ...process.env, CANDLEWICK_ISA: isa },
    encoding: "utf8",
  });
  const [instructionSet, found] = stdout.trim().split("\n");
  return { instructionSet, found, stderr };
}

test("every instruction set of the machine gives the same bits, and bf16 says once where it is slow", async () => {
  await using bert = await loadBERT(fixturePath("bert-base"));
  const best = run(bert.info.instructionSet);
  assert.equal(best.instructionSet, bert.info.instructionSet, best.stderr);
  assert.equal(best.stderr.includes("CANDLEWICK_BF16_SLOW"), bert.info.instructionSet !== "avx512bf16");
  const sets = ["portable", "neon", "neondotprod", "avx2", "avx512", "avx512vnni", "avx512bf16"];
  const slower = sets.slice(0, sets.indexOf(bert.info.instructionSet)).map((isa) => ({ isa, ...run(isa) }));
  const refused = slower.filter(({ stderr }) => stderr.includes("UNSUPPORTED_DEVICE"));
  assert.ok(refused.length < slower.length, "a processor has one set beside its best");
  for (const { isa, instructionSet, found, stderr } of slower.filter((run) => !refused.includes(run))) {
    assert.equal(instructionSet, isa);
    assert.ok(found === best.found, `${isa} gives other bits`);
    assert.equal(stderr.split("CANDLEWICK_BF16_SLOW").length, 2, "one warning");
  }
});

test("an instruction set that there is not is refused at load", () => {
  assert.match(run("avx1024").stderr, /UNSUPPORTED_DEVICE/);
});
