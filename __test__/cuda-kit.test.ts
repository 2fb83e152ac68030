/**
 * The CUDA kit without a GPU (`tools/cuda/run.sh`): every step runs small models on the CPU, beside PyTorch where there
 * is one, and nothing that only a GPU can show is said to be reached.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { describe, test } from "vitest";
import { goalsTable, outcomes } from "../benchmark/cuda/goals.js";
import { merged } from "../benchmark/cuda/page.js";
import type { KitReport } from "../benchmark/cuda/types.js";
import { newFolder } from "./support/models.js";
import { testUnless } from "./support/skip.js";

const root = join(__dirname, "..");
const script = join(root, "tools", "cuda", "run.sh");
const cache = process.env["CANDLEWICK_CACHE"] ?? join(homedir(), ".cache", "candlewick");
const venv = join(cache, "venv", "bin", "python");
const python = process.env["CANDLEWICK_PYTHON"] ?? (existsSync(venv) ? venv : "python3");
const windows = process.platform === "win32" && "run.sh is for bash";

const kit = (...args: string[]) => spawnSync("bash", [script, ...args], { encoding: "utf8", env: { ...process.env, CANDLEWICK_PYTHON: python } });

describe("the CUDA kit", () => {
  testUnless(windows, "runs what a CPU can, and says what it skips", () => {
    const out = newFolder("kit");
    const { status, stdout, stderr } = kit("--cpu", "--out", out, "--minutes", "3");
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    const report = JSON.parse(readFileSync(join(out, "report.json"), "utf8")) as KitReport;
    assert.equal(report.device, "cpu");
    assert.deepEqual(report.steps.map(({ name, status }) => [name, status]), ["smoke", "parity", "benchmark", "invariance", "faults", "more"].map((name) => [name, "done"]));
    assert.ok(report.checks.length > 12 && report.checks.every(({ passed }) => passed !== false), JSON.stringify(report.checks));
    assert.ok(report.checks.some(({ what }) => what.startsWith("same bits: GPT-2 among")));
    assert.equal(report.checks.some(({ what }) => what.startsWith("greedy tokens are PyTorch's")), report.pytorch !== null);
    assert.ok(report.figures.some(({ case: name, median }) => name.startsWith("decode, 4 streams") && median > 0));
    const skipped = report.skipped.map(({ what }) => what);
    assert.ok(skipped.includes("the Rust example") && (report.pytorch !== null || skipped.includes("PyTorch")), skipped.join("; "));
    assert.ok(readdirSync(out).length <= 8, readdirSync(out).join(" "));
    const table = readFileSync(join(out, "table.md"), "utf8");
    assert.ok(table.split("\n").length <= 60);
    assert.ok(!/reached|missed/.test(table), table);
  });

  testUnless(windows, "a step or a number that cannot be is refused", () => {
    for (const args of [["--only", "fly"], ["--minutes", "none"], ["--fly"]]) {
      const { status, stderr } = kit(...args);
      assert.equal(status, 1, args.join(" "));
      assert.match(stderr, /no step fly|not a number of minutes|Unknown option/);
    }
  });

  const report = (figures: Partial<KitReport["figures"][number]>[], device: "cuda" | "cpu" = "cuda"): KitReport => ({
    format: 1, date: "2026-01-01", device, gpu: { name: "a GPU", capability: "9.0", driver: "580", bytes: 1 }, cpu: "a CPU", cores: 1, node: "v20", candlewick: "0",
    addon: "0", pytorch: null, limits: null, steps: [], checks: [], skipped: [],
    figures: figures.map((figure) => ({ case: "", dtype: "bf16", who: "candlewick", median: 1, p10: 1, p90: 1, unit: "tok/s", ...figure })),
  });
  const name = "decode, 1 stream, context 128";
  const verdicts = (of: KitReport | undefined) => outcomes(of).filter((row) => row.case === `${name}, bf16`).map(({ verdict }) => verdict);

  test("a goal is reached, missed, or not measured", () => {
    const measured = report([{ case: name, median: 100, share: 0.1 }, { case: name, who: "PyTorch graph", median: 90 }]);
    assert.deepEqual(verdicts(measured), ["**missed**", "reached", "not measured"]);
    assert.deepEqual(verdicts({ ...measured, device: "cpu" }), ["not measured", "not measured", "not measured"]);
    assert.ok(outcomes(undefined).every(({ verdict }) => verdict === "not measured"));
    assert.ok(goalsTable(measured).split("\n").length <= 60);
  });

  test("of several reports the last one counts, and other GPUs are refused", () => {
    const first = report([{ case: name, median: 100 }, { case: "another" }]);
    const last = report([{ case: name, median: 200 }]);
    assert.deepEqual(merged([first, last])!.figures.map(({ case: what, median }) => [what, median]), [[name, 200], ["another", 1]]);
    assert.throws(() => merged([first, { ...last, gpu: { ...last.gpu!, name: "another" } }]), /different devices/);
  });
});
