/** The program: its settings, and how it begins and ends. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, afterEach, describe, test } from "vitest";
import { randomModel } from "../../../__test__/support/models.js";
import { ConfigError, readConfig, shown } from "../src/cli/config.js";
import { allEvents, answer, post, shipped, until } from "./support/server.js";

const main = join(__dirname, "..", "dist", "src", "cli", "main.js");
const folder = mkdtempSync(join(tmpdir(), "candlewick-server-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const children: ChildProcess[] = [];
afterEach(() => children.splice(0).forEach((child) => child.kill("SIGKILL")));

let files = 0;
function file(content: unknown): string {
  const path = join(folder, `config-${++files}.json`);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

/** Output and exit code of a run that ends by itself. */
function run(args: readonly string[], environment: Record<string, string> = {}): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { env: { ...process.env, ...environment } }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

async function start(args: readonly string[]): Promise<{ url: string; child: ChildProcess; stderr: () => string }> {
  const child = spawn(process.execPath, [main, ...args, "--port", "0", "--json"], { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let errors = "";
  child.stderr!.on("data", (part) => (errors += String(part)));
  const [line] = (await Promise.race([once(createInterface(child.stdout!), "line"), once(child, "exit").then(() => Promise.reject(new Error(errors)))])) as [string];
  return { ...(JSON.parse(line) as { url: string }), child, stderr: () => errors };
}

describe("settings", () => {
  const none = { flags: {}, environment: {} };

  test("are the flag's, else the environment's, else the file's, else the default", () => {
    const path = file({ models: { a: "./a" }, port: 1, drain: 1, maxWait: 1 });
    const config = readConfig({ file: path, flags: { port: "3" }, environment: { CANDLEWICK_SERVER_PORT: "2", CANDLEWICK_SERVER_DRAIN: "2" } });
    assert.deepEqual([config.port, config.drain, config.maxWait, config.keepAlive], [3, 2, 1, 5]);
  });

  test("take models from flags and file together", () => {
    const path = file({ models: { a: { path: "./a", dtype: "q8_0" }, b: "./b" }, threads: 3 });
    const { models } = shown(readConfig({ ...none, file: path, models: ["b=./other", "c=hub/id"] })) as { models: object };
    assert.deepEqual(models, { a: { threads: 3, path: "./a", dtype: "q8_0" }, b: { threads: 3, path: "./other" }, c: { threads: 3, path: "hub/id" } });
  });

  test("show keys as digests alone", () => {
    const config = readConfig({ ...none, models: ["a=a"], environment: { CANDLEWICK_SERVER_API_KEY: "sk-0123456789abcdef" } });
    const text = JSON.stringify(shown(config));
    assert.match(text, /"sha256":"[0-9a-f]{64}"/);
    assert.doesNotMatch(text, /sk-0123/);
  });

  const wrong: [name: string, config: Parameters<typeof readConfig>[0], message: RegExp][] = [
    ["no model", none, /no model is named/],
    ["a model without a path", { ...none, models: ["a"] }, /--model: must be name=path/],
    ["a port that is none", { ...none, models: ["a=a"], flags: { port: "70000" } }, /port/],
    ["a flag that is no number", { ...none, models: ["a=a"], flags: { drain: "soon" } }, /--drain: must be a number/],
    ["a variable that is no number", { ...none, models: ["a=a"], environment: { CANDLEWICK_SERVER_STALL: "" } }, /CANDLEWICK_SERVER_STALL/],
    ["a variable that is neither true nor false", { ...none, models: ["a=a"], environment: { CANDLEWICK_SERVER_PAGE: "maybe" } }, /CANDLEWICK_SERVER_PAGE/],
    ["a file that is not there", { ...none, file: "/no/such/file.json" }, /no such file/],
    ["a file that is no JSON", { ...none, file: file("{") }, /config-.*json/],
    ["an unknown setting", { ...none, file: file({ models: { a: "a" }, prot: 1 }) }, /prot/],
    ["a key without a value", { ...none, file: file({ models: { a: "a" }, keys: [{ name: "x" }] }) }, /keys\.0/],
    ["a short key", { ...none, file: file({ models: { a: "a" }, keys: [{ name: "x", key: "short" }] }) }, /16 characters/],
    ["an unknown dtype", { ...none, models: ["a=a"], flags: { dtype: "f8" } }, /dtype/],
  ];
  for (const [name, config, message] of wrong) {
    test(`refuse ${name}`, () => assert.throws(() => readConfig(config), (error) => error instanceof ConfigError && message.test(error.message)));
  }
});

test("--help lists every option, --version is the package's", async () => {
  const { code, stdout } = await run(["--help"]);
  assert.equal(code, 0);
  for (const flag of ["--model", "--config", "--check", "--json", "--host", "--port", "--drain", "--max-wait", "--share-prefixes", "--no-page", "CANDLEWICK_SERVER_MAX_WAIT", "CANDLEWICK_SERVER_API_KEY"]) {
    assert.ok(stdout.includes(flag), flag);
  }
  assert.match((await run(["--version"])).stdout, /^\d+\.\d+\.\d+\n$/);
});

test("--check prints the settings, and loads nothing", async () => {
  const { code, stdout } = await run(["--check", "--model", "a=/no/such/folder", "--no-page", "--max-wait", "3"]);
  assert.equal(code, 0);
  const { models, page, maxWait, port } = JSON.parse(stdout);
  assert.deepEqual([models, page, maxWait, port], [{ a: { path: "/no/such/folder" } }, false, 3, 8_000]);
});

test("what cannot be is said in a line: 2 for a command, 1 for a model", async () => {
  const unknown = await run(["--modle", "x=y"]);
  assert.equal(unknown.code, 2);
  assert.match(unknown.stderr, /Did you mean --model/);
  assert.equal((await run([])).code, 2);
  const missing = await run(["--model", "a=/no/such/folder", "--port", "0"]);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /MODEL_NOT_FOUND/);
  assert.doesNotMatch(missing.stderr, /\n {4}at /);
});

test("serves both kinds of models, and adapters by their names", async () => {
  const { url } = await start(["--model", `gpt=${shipped("default")}`, "--model", `vectors=${shipped("minilm")}`]);
  assert.equal((await answer(url, "/v1/completions", { model: "gpt", prompt: "Once", max_tokens: 2 }))["choices"].length, 1);
  assert.equal((await answer(url, "/v1/embeddings", { model: "vectors", input: "x" }))["data"][0].embedding.length, 384);
  const { data } = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
  assert.deepEqual(data.map(({ id }) => id), ["gpt", "vectors"]);
});

describe("the end", () => {
  const endless = () => ["--model", `m=${randomModel({ n_positions: 8_192, n_embd: 64 })}`];
  const body = { model: "m", prompt: "abc", max_tokens: 8_000, ignore_eos: true, stream: true };

  test("SIGTERM under 32 streams: no new ones, each ends with an event, exit code 0", async () => {
    const { url, child, stderr } = await start([...endless(), "--drain", "1", "--max-wait", "3600"]);
    // How fast the model is must be known, or there is no room for so much.
    await answer(url, "/v1/completions", { ...body, max_tokens: 50, stream: false });
    const streams = await Promise.all(Array.from({ length: 32 }, () => post(url, "/v1/completions", body)));
    const reading = streams.map(allEvents);
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    const status = async () => {
      const response = await post(url, "/v1/completions", body);
      await response.body?.cancel();
      return response.status;
    };
    await until(async () => (await status()) === 503, "new requests are refused");
    for (const events of await Promise.all(reading)) assert.equal(events.at(-1).error.code, "server_draining");
    assert.deepEqual(await exited, [0, null]);
    assert.match(stderr(), /3\d requests/);
  });

  test("a second signal ends it at once, with exit code 0", async () => {
    const { url, child } = await start([...endless(), "--drain", "600"]);
    const stream = await post(url, "/v1/completions", body);
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    await until(async () => (await fetch(`${url}/readyz`)).status === 503, "it drains");
    child.kill("SIGINT");
    assert.deepEqual(await exited, [0, null]);
    await assert.rejects(allEvents(stream));
  });

  test("without requests it ends at once", async () => {
    const { child } = await start(endless());
    const exited = once(child, "exit");
    child.kill("SIGINT");
    assert.deepEqual(await exited, [0, null]);
  });
});
