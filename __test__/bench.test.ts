/**
 * The benchmark works: a quick run of Candlewick alone, on a model the size of a fixture, writes what it says it
 * writes.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "vitest";
import type { Report } from "../benchmark/types.js";
import { newFolder, randomModel } from "./support/models.js";
import { testUnless } from "./support/skip.js";

const root = join(__dirname, "..");

/** `.ci/run` builds it. */
const notBuilt = !existsSync(join(root, "target", "release", process.platform === "win32" ? "bench-limits.exe" : "bench-limits")) && "benchmark/native is not built (npm run bench)";

testUnless(notBuilt, "bench: a quick run writes its figures", () => {
  const cache = newFolder("cache");
  mkdirSync(join(cache, "bench"));
  cpSync(randomModel(), join(cache, "bench", "gpt2"), { recursive: true });
  const json = join(cache, "figures.json");
  const args = ["--import", "tsx", "benchmark/run.ts", "decode", "--quick", "--no-build", "--json", json];
  const contenders = ["--only", "candlewick", "--dtype", "f32,q8_0", "--threads", "1"];
  const { status, stdout, stderr } = spawnSync(process.execPath, [...args, ...contenders], {
    cwd: root,
    env: { ...process.env, CANDLEWICK_CACHE: cache },
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);

  const { machine, rows, skipped } = JSON.parse(readFileSync(json, "utf8")) as Report;
  assert.equal(machine.threads, 1);
  assert.deepEqual(skipped, []);
  assert.deepEqual(rows.map((row) => row.dtype), ["f32", "q8_0"]);
  for (const row of rows) {
    assert.match(row.case, /^decode/);
    assert.equal(row.contender, "candlewick");
    assert.equal(row.unit, "tok/s");
    assert.ok(row.p10 > 0 && row.p10 <= row.median && row.median <= row.p90, JSON.stringify(row));
    assert.ok(stdout.includes(row.case));
    assert.ok(row.shareOfLimit! > 0, "a share of the machine's limit");
  }
});

test("bench: what does not exist is refused", () => {
  for (const args of [["fly"], ["decode", "--only", "nobody"], ["decode", "--dtype", "f8"], ["decode", "--threads", "none"]]) {
    const { status, stderr } = spawnSync(process.execPath, ["--import", "tsx", "benchmark/run.ts", ...args, "--no-build"], {
      cwd: root,
      encoding: "utf8",
    });
    assert.equal(status, 1, args.join(" "));
    assert.match(stderr, /there is no|not a number/);
  }
});
