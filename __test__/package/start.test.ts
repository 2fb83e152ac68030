// `candlewick generate`, which `npm start` runs, as a person at a terminal meets it: what is printed, the exit codes,
// Ctrl-C.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "vitest";
import { testUnless } from "../support/skip.js";

const root = join(__dirname, "..", "..");

function start(...args: string[]) {
  const child = spawn(process.execPath, ["dist/src/cli/main.js", "generate", ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (output.stderr += text));
  const ended = once(child, "close").then(([code]) => ({ code: code as number, ...output }));
  return { child, output, ended };
}

test("continues a prompt, and says how fast on standard error, without colours in a pipe", async () => {
  const { code, stdout, stderr } = await start("Once upon a time", "--max-new-tokens", "6", "--threads", "1").ended;
  assert.equal(code, 0);
  assert.match(stdout, /^Once upon a time[^]*\n$/);
  assert.match(stderr, /default: 5\.4 million[^]+6 tokens: \d+ tokens\/s.*seed \d+/);
  assert.ok(!`${stdout}${stderr}`.includes("\x1b"));
});

test("has an English and a Chinese prompt of its own, and says what to try next", async () => {
  const { code, stdout, stderr } = await start("--max-new-tokens", "4").ended;
  assert.equal(code, 0);
  assert.match(stdout, /It is a truth universally acknowledged[^]+我们很高兴能够与您合作！/);
  assert.match(stderr, /npm test/);
});

test("gives the same text for the same seed, and another for another", async () => {
  const text = async (seed: string) => (await start("Once", "--max-new-tokens", "12", "--seed", seed, "--quiet").ended).stdout;
  const [first, again, other] = [await text("1"), await text("1"), await text("2")];
  assert.match(first, /^Once./);
  assert.equal(first, again);
  assert.notEqual(first, other);
});

test("--help lists the options", async () => {
  const { code, stdout } = await start("--help").ended;
  assert.equal(code, 0);
  assert.match(stdout, /--max-new-tokens <n>[^]+--seed <n>/);
});

for (const args of [["--temprature", "1"], ["Once", "--seed", "seven"], ["--model"]]) {
  test(`refuses ${args.join(" ")}`, async () => {
    const { code, stdout, stderr } = await start(...args).ended;
    assert.deepEqual({ code, stdout }, { code: 2, stdout: "" });
    assert.match(stderr, /--help lists the options/);
  });
}

for (const [args, expected] of [
  [["Once", "--model", "./no-such-folder"], "MODEL_NOT_FOUND"],
  [["Once", "--temperature=-1"], "OPTION_INVALID"],
] as const) {
  test(`names the code ${expected}, and what to do`, async () => {
    const { code, stdout, stderr } = await start(...args).ended;
    assert.deepEqual({ code, stdout }, { code: 1, stdout: "" });
    assert.match(stderr, new RegExp(`${expected}: .*(a path|--help)`, "s"));
    assert.ok(!stderr.includes("docs/errors.md"), "a file that an installation need not have");
  });
}

const longest = ["Once upon a time", "--max-new-tokens", "200", "--threads", "1"];

testUnless(process.platform === "win32" && "no signals", "stops when it is interrupted", async () => {
  const { child, ended } = start(...longest);
  await once(child.stdout, "data");
  child.kill("SIGINT");
  const { code, stderr } = await ended;
  assert.equal(code, 130);
  assert.match(stderr, /Stopped/);
  assert.ok(!stderr.includes("200 tokens"));
});

test("ends quietly when its reader goes away", async () => {
  const { child, ended } = start(...longest);
  await once(child.stdout, "data");
  child.stdout.destroy();
  const { code, stderr } = await ended;
  assert.equal(code, 0);
  assert.ok(!/EPIPE|Error/.test(stderr), stderr);
});
