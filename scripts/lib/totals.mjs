// What the test runners say, in numbers. One that failed without naming a test counts as one failure.

export const none = Object.freeze({ passed: 0, failed: 0, skipped: 0 });

export const add = (a, b) => ({
  passed: a.passed + b.passed,
  failed: a.failed + b.failed,
  skipped: a.skipped + b.skipped,
});

/** "1 passed, 0 failed", and the skipped ones if there are any. */
export const line = ({ passed, failed, skipped }) =>
  `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;

/** cargo test: one "test result:" line per test binary. */
export function fromCargo(lines, exitCode) {
  let totals = none;
  for (const text of lines) {
    const match = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/.exec(text);
    if (match) totals = add(totals, { passed: Number(match[1]), failed: Number(match[2]), skipped: Number(match[3]) });
  }
  return orDied(totals, exitCode);
}

/**
 * Vitest: what its JSON reporter wrote. A file that could not be imported has no tests of its own, and counts as one
 * failure.
 */
export function fromVitest(text, exitCode) {
  if (!text.trim()) return { passed: 0, failed: 1, skipped: 0 };
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(text);
  const broken = testResults.filter(({ status, assertionResults }) => status === "failed" && !assertionResults.some((test) => test.status === "failed"));
  return orDied({ passed: numPassedTests, failed: numFailedTests + broken.length, skipped: numPendingTests + numTodoTests }, exitCode);
}

function orDied(totals, exitCode) {
  const ranNothing = totals.passed + totals.failed === 0;
  return totals.failed === 0 && (exitCode !== 0 || ranNothing) ? { ...totals, failed: 1 } : totals;
}
