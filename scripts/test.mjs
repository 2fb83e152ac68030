// `npm test`: builds what is not up to date, runs the Rust and the TypeScript tests, ends with "N passed, N failed".
//   npm test -- rust         the Rust tests
//   npm test -- ts           the TypeScript tests
//   npm test -- stream       the files of __test__ whose path contains "stream"
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build, orExplain } from "./build.mjs";
import { tool } from "./lib/paths.mjs";
import { locked, run } from "./lib/run.mjs";
import { add, fromCargo, fromVitest, line, none } from "./lib/totals.mjs";

export async function rustTests() {
  const lines = [];
  const code = await run("cargo", ["test", "--release", "--workspace", "--no-fail-fast", ...locked], {
    onLine: (text) => lines.push(text),
  });
  return fromCargo(lines, code);
}

/** The files of __test__ whose path contains `filter`. All of them, in CI, with the coverage of src/ and its floor. */
export async function typescriptTests(filter = "") {
  const folder = mkdtempSync(join(tmpdir(), "candlewick-totals-"));
  const totals = join(folder, "totals.json");
  const more = filter !== "" ? [filter] : process.env.CI ? ["--coverage"] : [];
  const code = await run(process.execPath, [tool.vitest, "run", "--reporter=default", "--reporter=json", `--outputFile.json=${totals}`, ...more]);
  try {
    return fromVitest(readFileSync(totals, "utf8"), code);
  } catch {
    return fromVitest("", code);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Every test, or those that `what` names. */
export async function allTests(what) {
  let totals = none;
  if (what === undefined || what === "rust") {
    const rust = await rustTests();
    console.log(`Rust: ${line(rust)}\n`);
    totals = add(totals, rust);
  }
  if (what !== "rust") {
    const typescript = await typescriptTests(what === "ts" ? "" : what);
    console.log(`TypeScript: ${line(typescript)}\n`);
    totals = add(totals, typescript);
  }
  return totals;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await orExplain(build);
  const totals = await allTests(process.argv[2]);
  console.log(line(totals));
  process.exitCode = totals.failed > 0 || totals.passed === 0 ? 1 : 0;
}
