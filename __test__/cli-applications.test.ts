/**
 * `candlewick translate`, `sentiment`, `demo` and `chat` as somebody at a shell meets them, with packages of weights in
 * the project.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { loadBERT } from "../index.js";
import { conversations, pairs, speaker, translator } from "./support/apprentices.js";
import { candlewick as runs, program, rows as rowsOf, type Run } from "./support/cli.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder, randomModel } from "./support/models.js";
import { newProject } from "./support/project.js";
import { describeUnless } from "./support/skip.js";

const root = join(__dirname, "..");
const fixture = (name: string) => fixturePath(join("pipelines", name));

let project: string;
beforeAll(async () => {
  const [translation, dialogue] = await Promise.all([translator(), speaker()]);
  project = newProject({
    "translation-en-zh": translation,
    dialogue,
    topics: fixture("classify"),
    "sentiment-en": fixture("classify"),
    "sentiment-zh": fixture("nli"),
    minilm: fixture("sentences"),
  });
});

const candlewick = (args: string[], run: Run = {}) => runs(args, { cwd: project, ...run });
const rows = (args: string[], stdin?: string) => rowsOf(args, { stdin, cwd: project });

test("translate writes a line for each line, also for a blank one, or JSON with several translations", async () => {
  const [first, second] = pairs;
  assert.deepEqual(await rows(["translate", first[0], second[0]]), [first[1], second[1]]);
  assert.deepEqual(await rows(["translate"], `${first[0]}\n\n${second[0]}\n`), [first[1], "", second[1]]);
  const [row] = await rows(["translate", "--json", "--best", "2", "--num-beams", "3"], `${first[0]}\n`);
  const { text, translations } = JSON.parse(row!);
  assert.deepEqual([text, translations.length, translations[0]], [first[0], 2, first[1]]);
  const long = await candlewick(["translate", "--skip-bad"], { stdin: `${"word ".repeat(200)}\n${first[0]}\n` });
  assert.deepEqual([long.code, long.stdout], [1, `${first[1]}\n`]);
  assert.ok(long.stderr.includes("-:1"), long.stderr);
});

test("sentiment, classify and embed need no model", async () => {
  await using zh = await loadBERT(fixture("nli"), { threads: 1 });
  const { label, score } = await zh.classify("很好");
  assert.deepEqual(await rows(["sentiment", "--language", "zh", "很好"]), [`${label} ${score.toFixed(4)}\t很好`]);
  await using en = await loadBERT(fixture("classify"), { threads: 1 });
  const good = await en.classify("good");
  for (const command of ["sentiment", "classify"]) assert.deepEqual(await rows([command, "good"]), [`${good.label} ${good.score.toFixed(4)}\tgood`]);
  await using minilm = await loadBERT(fixture("sentences"), { threads: 1 });
  assert.deepEqual((await rows(["embed", "good"]))[0]!.split(" ").map(Number), Array.from(await minilm.embed("good")).map((x) => Number(String(x))));
  assert.equal((await rows(["rerank", "-q", "good", "bad", "good"]))[0]!.split("\t")[1], "1");
  const both = await candlewick(["sentiment", "-m", fixture("nli"), "--language", "zh", "很好"]);
  assert.ok(both.code === 1 && both.stderr.includes("OPTION_INVALID"));
  const missing = await candlewick(["fill", "a [MASK]"]);
  assert.equal(missing.code, 2, "no model is shipped for this one");
});

describe("demo", () => {
  test("goes through all of it, and says how long each took", async () => {
    const lines = await rows(["demo"]);
    const text = lines.join("\n");
    assert.equal(lines.filter((line) => / ms(,|$)/.test(line)).length >= 12, true, text);
    for (const part of ["generation", "Translation", "Dialogue", "Sentiment, English", "Sentiment, Chinese", "topic"]) assert.ok(text.includes(part), part);
    assert.ok(text.includes("我们很高兴能够与您合作！"));
    const only = await rows(["demo", "--only", "sentiment"]);
    assert.ok(only.join("\n").includes("Sentiment") && !only.join("\n").includes("Translation"));
    assert.equal((await candlewick(["demo", "--only", "singing"])).code, 2);
  });

  test("says what is not installed, and how to install it", async () => {
    const installed = join(newFolder("installed"), "node_modules", "candlewick");
    // As an installation has it: the checkout's own models are not there.
    for (const part of ["package.json", "dist", "models/default"]) cpSync(join(root, part), join(installed, part), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(installed, "node_modules"), "junction");
    const addon = readdirSync(join(root, "native")).find((name) => name.endsWith(".node"))!;
    const env = { ...process.env, CANDLEWICK_NATIVE: join(root, "native", addon) };
    const cwd = newProject({ dialogue: join(project, "node_modules", "candlewick-model-dialogue") });
    const { code, stdout, stderr } = await candlewick(["demo"], { cwd, env, main: join(installed, "dist/src/cli/main.js") });
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    const install = /npm install (.*)\n/.exec(stdout)![1]!.split(" ");
    const missing = ["translation-en-zh", "sentiment-en", "sentiment-zh", "topics"].map((name) => `candlewick-model-${name}`);
    assert.deepEqual(install, missing);
    assert.ok(stdout.includes("tokens/s"), "the dialogue is there");
  });

  test("goes on past a package that cannot be loaded, and fails in the end", async () => {
    const cwd = newProject({ "translation-en-zh": fixture("classify"), dialogue: join(project, "node_modules", "candlewick-model-dialogue") });
    const { code, stdout, stderr } = await candlewick(["demo", "--only", "translation", "--only", "dialogue"], { cwd });
    assert.equal(code, 1);
    assert.ok(stderr.includes("UNSUPPORTED_MODEL"), stderr);
    assert.ok(stdout.includes("tokens/s"), stdout);
  });
});

describe("chat in a pipe", () => {
  const [english, chinese] = conversations;

  test("answers each line, remembers what was said, and obeys commands", async () => {
    const file = join(newFolder("chats"), "chat.jsonl");
    const said = [english[0], "", english[2], `/save ${file}`, "/reset", chinese[0], "/exit", "never read"].join("\n");
    const { code, stdout, stderr } = await candlewick(["chat", "--temperature", "0"], { stdin: said });
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    const lines = stdout.split("\n");
    assert.deepEqual([lines[0], lines[1], lines.at(-2)], [english[1], english[3], chinese[1]]);
    const messages = english.map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }));
    assert.deepEqual(JSON.parse(readFileSync(file, "utf8")), { messages });
  });

  test("reads messages of several lines", async () => {
    const file = join(newFolder("chats"), "chat.jsonl");
    const said = ['one\\', "two", '"""', "  three", "", 'four"""', '"""five"""', `/save ${file}`].join("\n");
    const { code } = await candlewick(["chat", "--max-new-tokens", "2", "-m", randomModel()], { stdin: said });
    assert.equal(code, 0);
    const { messages } = JSON.parse(readFileSync(file, "utf8"));
    const users = messages.filter(({ role }: { role: string }) => role === "user").map(({ content }: { content: string }) => content);
    assert.deepEqual(users, ["one\ntwo", "  three\n\nfour", "five"]);
  });

  test("says what it cannot answer, and goes on", async () => {
    const { code, stdout, stderr } = await candlewick(["chat", "--temperature", "0"], { stdin: `${"word ".repeat(200)}\n/sing\n${english[0]}\n` });
    assert.equal(code, 1);
    assert.equal(stdout, `${english[1]}\n`);
    assert.ok(stderr.includes("CONTEXT_OVERFLOW"), stderr);
  });
});

const terminals: ChildProcess[] = [];
afterAll(() => terminals.forEach((child) => child.kill()));

/** A program at a terminal of its own, which Python lends. */
function atTerminal(args: string[], state: string) {
  const lend = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
  const env = { ...process.env, XDG_STATE_HOME: state, TERM: "xterm", NO_COLOR: "1" };
  const child = spawn("python3", ["-c", lend, process.execPath, program, ...args], { cwd: project, env, stdio: ["pipe", "pipe", "inherit"] });
  terminals.push(child);
  let screen = "";
  let seen = 0;
  let changed = () => {};
  const limit = () => Date.now() + 60_000;
  const more = () =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 500);
      changed = () => (clearTimeout(timer), resolve());
    });
  child.stdout.setEncoding("utf8").on("data", (text) => {
    screen += text;
    changed();
  });
  return {
    type: (text: string) => void child.stdin.write(text),
    /** Waits until the screen has said this, after what was waited for before. */
    async sees(text: string): Promise<void> {
      for (const until = limit(); ; await more()) {
        const at = screen.indexOf(text, seen);
        if (at !== -1) return void (seen = at + text.length);
        if (Date.now() > until) throw new Error(`never saw ${JSON.stringify(text)} at the end of ${JSON.stringify(screen.slice(seen).slice(-200))}`);
      }
    },
    /** Waits until there is so much more on the screen. */
    async grows(by: number): Promise<void> {
      for (const until = limit(); screen.length < seen + by; await more()) assert.ok(Date.now() < until, "nothing more came");
    },
    async ends(): Promise<number> {
      const [code] = child.exitCode === null ? ((await once(child, "close")) as [number]) : [child.exitCode];
      return code;
    },
  };
}

const noTerminal = spawnSync("python3", ["-c", "import pty"]).status !== 0 && "python3 with a pty module is absent";

describeUnless(noTerminal, "chat at a terminal", () => {
  const [up, ctrlC, ctrlD] = ["\x1b[A", "\x03", "\x04"];

  test("has a history that outlives it, and leaves at Ctrl-D", async () => {
    const state = newFolder("state");
    const first = atTerminal(["chat", "--temperature", "0"], state);
    await first.sees("> ");
    first.type("hello\r");
    await first.sees("good morning");
    await first.sees("> ");
    first.type(ctrlD);
    assert.equal(await first.ends(), 0);
    assert.ok(existsSync(join(state, "candlewick", "chat-history")));

    const second = atTerminal(["chat", "--temperature", "0"], state);
    await second.sees("> ");
    second.type(`${up}\r`);
    await second.sees("good morning");
    await second.sees("> ");
    second.type("/exit\r");
    assert.equal(await second.ends(), 0);
  });

  test("stops a reply at Ctrl-C, clears a line at the next, and leaves at two on an empty one", async () => {
    // It talks until its positions are full.
    const endless = randomModel({ n_positions: 16384 });
    const chat = atTerminal(["chat", "-m", endless, "--max-new-tokens", "16000", "--seed", "1"], newFolder("state"));
    await chat.sees("> ");
    chat.type("hello\r");
    await chat.sees("hello\r");
    await chat.grows(40);
    // Typed meanwhile, it waits for the reply's end.
    chat.type("/reset\r");
    chat.type(ctrlC);
    await chat.sees("(stopped)");
    await chat.sees("> /reset");
    await chat.sees("Forgotten.");
    await chat.sees("> ");
    chat.type("not this");
    await chat.sees("not this");
    chat.type(ctrlC);
    await chat.sees("> ");
    chat.type("/help\r");
    await chat.sees("/save [file]");
    await chat.sees("> ");
    chat.type(ctrlC);
    await chat.sees("Ctrl-C once more");
    await chat.sees("> ");
    chat.type(ctrlC);
    assert.equal(await chat.ends(), 0);
  });
});
