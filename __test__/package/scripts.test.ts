import assert from "node:assert/strict";
import { test } from "vitest";
import { add, fromCargo, fromVitest, line } from "../../scripts/lib/totals.mjs";
import { atLeast, compilerHint } from "../../scripts/lib/toolchain.mjs";

const cargo = [
  "running 3 tests",
  "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
  "test result: FAILED. 4 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.52s",
];

test("cargo's totals are summed over its test binaries", () => {
  assert.deepEqual(fromCargo(cargo, 101), { passed: 6, failed: 3, skipped: 1 });
});

test("a cargo run that dies without a failed test counts as one failure", () => {
  assert.equal(fromCargo(cargo.slice(0, 2), 101).failed, 1);
  assert.equal(fromCargo([], 0).failed, 1, "nothing ran");
});

const vitest = (counts: object, ...testResults: object[]) =>
  JSON.stringify({ numPassedTests: 5, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults, ...counts });

test("vitest's totals are read from its JSON reporter", () => {
  const failed = { status: "failed", assertionResults: [{ status: "failed" }] };
  const text = vitest({ numFailedTests: 1, numPendingTests: 2 }, failed, { status: "passed", assertionResults: [] });
  assert.deepEqual(fromVitest(text, 1), { passed: 5, failed: 1, skipped: 2 });
});

test("a vitest run that dies, and a file that cannot be imported, count as one failure each", () => {
  assert.equal(fromVitest("", 0).failed, 1, "no totals");
  assert.equal(fromVitest(vitest({}), 134).failed, 1, "an exit code without a failed test");
  assert.equal(fromVitest(vitest({ numPassedTests: 0 }), 0).failed, 1, "nothing ran");
  assert.equal(fromVitest(vitest({}, { status: "failed", assertionResults: [] }), 1).failed, 1, "a file without tests");
});

test("the closing line names skipped tests only when there are any", () => {
  const some = { passed: 1, failed: 0, skipped: 0 };
  assert.equal(line(some), "1 passed, 0 failed");
  assert.equal(line(add(some, { passed: 2, failed: 1, skipped: 3 })), "3 passed, 1 failed, 3 skipped");
});

test("versions compare by number", () => {
  assert.ok(atLeast("1.95.0", "1.88"));
  assert.ok(atLeast("20.19.0", "20.19"));
  assert.ok(!atLeast("1.9.0", "1.88"));
  assert.ok(!atLeast("18.20.8", "20.19"));
});

test("a missing compiler is named in the platform's own words", () => {
  assert.match(compilerHint("linux", "ubuntu"), /apt-get install build-essential/);
  assert.match(compilerHint("linux", "fedora"), /dnf/);
  assert.match(compilerHint("darwin"), /xcode-select --install/);
  assert.match(compilerHint("win32"), /BuildTools/);
  assert.match(compilerHint("linux", "another"), /gcc or clang/);
});
