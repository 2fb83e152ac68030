// `npm run check`: what CI runs. Every step runs even when one before it failed, except that nothing runs after a
// failed build. Ends with a table and "N passed, N failed", where each step beside the tests counts as one.
//   npm run check -- --no-tests   the quick part
import { build, orExplain } from "./build.mjs";
import { checkCircles } from "./check-circles.mjs";
import { checkFeatures } from "./check-features.mjs";
import { checkFiles } from "./check-files.mjs";
import { checkLayers } from "./check-layers.mjs";
import { tool } from "./lib/paths.mjs";
import { locked, run } from "./lib/run.mjs";
import { add, line, none } from "./lib/totals.mjs";
import { rustTests, typescriptTests } from "./test.mjs";

const node = (...args) => run(process.execPath, args);
const report = (violations) => {
  for (const violation of violations) console.error(violation);
  return violations.length === 0 ? 0 : 1;
};

/** Each returns an exit code, or the totals of tests. */
const steps = [
  ["rustfmt", () => run("cargo", ["fmt", "--all", "--check"])],
  ["layers", () => report(checkLayers())],
  ["circles", () => report(checkCircles())],
  ["features", () => report(checkFeatures())],
  ["committed files", () => report(checkFiles())],
  ["tsc", () => node(tool.tsc, "--noEmit", "-p", "tsconfig.json")],
  ["oxlint", () => node(tool.oxlint, "--deny-warnings")],
  ["clippy", () => run("cargo", ["clippy", "--release", "--workspace", "--all-targets", ...locked, "--", "-D", "warnings"])],
  ["Rust tests", rustTests],
  ["TypeScript tests", () => typescriptTests()],
].filter(([name]) => !(process.argv.includes("--no-tests") && name.endsWith("tests")));

/** A step that throws has failed; the others still run. */
async function attempt(step) {
  try {
    return await step();
  } catch (error) {
    console.error(error);
    return 1;
  }
}

await orExplain(build);
let totals = none;
const table = [];
for (const [name, step] of steps) {
  console.log(`\n== ${name}`);
  const started = performance.now();
  const result = await attempt(step);
  const counts = typeof result === "object" ? result : { ...none, [result === 0 ? "passed" : "failed"]: 1 };
  totals = add(totals, counts);
  const seconds = `${((performance.now() - started) / 1000).toFixed(1)} s`;
  table.push([name, counts.failed > 0 ? "FAILED" : "ok", typeof result === "object" ? line(counts) : "", seconds]);
}

const widths = [0, 1, 2, 3].map((column) => Math.max(...table.map((row) => row[column].length)));
console.log(`\n${table.map((row) => row.map((cell, i) => (i === 3 ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join("  ")).join("\n")}\n`);
console.log(line(totals));
process.exitCode = totals.failed > 0 ? 1 : 0;
