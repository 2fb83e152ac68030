/** The support desk (examples/support-desk) over real sockets. Its page is tested in support-desk-page.test.ts. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { TokenStream } from "candlewick";
import { afterAll, beforeAll, describe, test } from "vitest";
import { grams, languageOf, lastSentences, sentencesOf } from "../examples/support-desk/language.js";
import type { RunningServer } from "../examples/support-desk/server.js";
import { endlessModel, health, RECITED, startDesk, tinyModels } from "./support/desk.js";
import { newFolder, randomModel } from "./support/models.js";

const seeds = JSON.parse(readFileSync(join(__dirname, "../examples/support-desk/answers.json"), "utf8")) as { question: string }[];
const MESSAGE = "Where is my parcel? It should have been here last week.";

interface Event {
  event: string;
  data: any;
}

const post = (url: string, body: unknown, init: RequestInit = {}) =>
  fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: typeof body === "string" ? body : JSON.stringify(body), ...init });

async function eventsOf(response: Response): Promise<Event[]> {
  assert.match(String(response.headers.get("content-type")), /^text\/event-stream/);
  const parts = (await response.text()).split("\n\n").filter(Boolean);
  return parts.map((part) => {
    const of = (field: string) => new RegExp(`^${field}: (.*)$`, "m").exec(part)?.[1];
    const data = of("data")!;
    return { event: of("event") ?? "message", data: data === "[DONE]" ? data : JSON.parse(data) };
  });
}

async function analysis(url: string, message: string): Promise<Record<string, any>> {
  const events = await eventsOf(await post(`${url}/api/analysis`, { message }));
  assert.equal(events.at(-1)!.event, "done");
  return Object.fromEntries(events.map(({ event, data }) => [event, data]));
}

/** Until it is so; fails after ten seconds. */
async function until(what: () => Promise<boolean> | boolean): Promise<void> {
  for (let waited = 0; !(await what()); waited += 20) {
    assert.ok(waited < 10_000, "not so after ten seconds");
    await sleep(20);
  }
}

describe("the desk", () => {
  let server: RunningServer;
  let url: string;
  beforeAll(async () => {
    server = await startDesk();
    ({ url } = server);
  });
  afterAll(() => server.close());

  test("an English message: every stage comes, and the end", async () => {
    const { language, topic, sentiment, similar, translation } = await analysis(url, MESSAGE);
    assert.deepEqual(language, { language: "en" });
    assert.ok(topic.topics.length > 1 && topic.topics[0].score >= topic.topics[1].score);
    assert.ok(sentiment.label && sentiment.score > 0 && sentiment.score <= 1);
    assert.equal(similar.method, "meaning");
    assert.equal(similar.answers[0].question, MESSAGE, "what was asked in the same words is the nearest");
    assert.ok(translation.text.length > 0);
  });

  test("a Chinese message: earlier answers by characters, nothing to translate", async () => {
    const { language, topic, sentiment, similar, translation } = await analysis(url, "书的封面都破了！");
    assert.deepEqual([language, topic.topics, translation.text], [{ language: "zh" }, [], null]);
    assert.ok(sentiment.label);
    assert.equal(similar.method, "characters");
    assert.equal(similar.answers[0].question, "书的封面破了，书角也弯了。");
  });

  test("a reply comes in parts, as OpenAI's API sends them", async () => {
    const events = await eventsOf(await post(`${url}/api/reply`, { message: "Hello", seed: 1 }));
    assert.equal(events.at(-1)!.data, "[DONE]");
    const texts = events.slice(0, -1).flatMap(({ data }) => data.choices.map(({ text }: { text: string }) => text) as string[]);
    assert.ok(texts.length > 20 && RECITED.includes(texts.join("")));
  });

  test("messages as long as they may be", async () => {
    const words = "A long word, ".repeat(307).trim();
    const glued = "x".repeat(4000);
    for (const message of [words, glued, "字".repeat(4000), "\u0000\u202e<b>&\ud83d"]) {
      assert.equal((await analysis(url, message))["failed"], undefined);
      assert.equal((await eventsOf(await post(`${url}/api/reply`, { message }))).at(-1)!.data, "[DONE]");
    }
  });

  test("an answer that is sent is found from then on, and kept once", async () => {
    const answer = { question: "Do you sell globes of the moon?", answer: "We have two sizes." };
    const before = (await health(url)).answers;
    const ids: number[] = [];
    for (const _ of [1, 2]) {
      const response = await post(`${url}/api/answers`, answer);
      assert.equal(response.status, 201);
      ids.push(((await response.json()) as { id: number }).id);
    }
    assert.equal(ids[0], ids[1]);
    assert.equal((await health(url)).answers, before + 1);
    const { similar } = await analysis(url, answer.question);
    assert.equal(similar.answers.filter(({ id }: { id: number }) => id === ids[0]).length, 1);
    assert.equal(similar.answers[0].answer, answer.answer);
    assert.ok(similar.answers[0].score > 0.999);

    const chinese = { question: "你们卖地球仪吗？", answer: "有两种。" };
    await post(`${url}/api/answers`, chinese);
    assert.equal((await analysis(url, "请问卖不卖地球仪")).similar.answers[0].answer, chinese.answer);
  });

  test("what is the client's fault gets a 4xx with a code", async () => {
    const long = "x".repeat(4001);
    const bad: [path: string, body: unknown, status: number, code: string][] = [
      ["/api/analysis", {}, 400, "REQUEST_INVALID"],
      ["/api/analysis", { message: 5 }, 400, "REQUEST_INVALID"],
      ["/api/analysis", { message: " \n " }, 400, "REQUEST_INVALID"],
      ["/api/analysis", { message: long }, 400, "REQUEST_INVALID"],
      ["/api/analysis", { message: "a", extra: 1 }, 400, "REQUEST_INVALID"],
      ["/api/analysis", "{", 400, "REQUEST_INVALID"],
      ["/api/analysis", "null", 400, "REQUEST_INVALID"],
      ["/api/analysis", { message: "x".repeat(100_000) }, 413, "BODY_TOO_LARGE"],
      ["/api/reply", { message: "a", seed: -1 }, 400, "REQUEST_INVALID"],
      ["/api/reply", { message: "a", seed: "1" }, 400, "REQUEST_INVALID"],
      ["/api/answers", { question: "a" }, 400, "REQUEST_INVALID"],
      ["/api/nothing", { message: "a" }, 404, "NOT_FOUND"],
    ];
    for (const [path, body, status, code] of bad) {
      const response = await post(url + path, body);
      const { error } = (await response.json()) as { error: { code: string; message: string } };
      assert.deepEqual([response.status, error.code], [status, code], JSON.stringify(body).slice(0, 80));
      assert.ok(error.message);
    }
    // A form of another site can send this one.
    const form = await post(`${url}/api/answers`, { question: "a", answer: "b" }, { headers: { "content-type": "text/plain" } });
    assert.equal(form.status, 415);
    // The body's length is not always said at first.
    const stream = new ReadableStream({
      pull: (controller) => controller.enqueue(new TextEncoder().encode("x".repeat(10_000))),
    });
    const endless = await post(`${url}/api/analysis`, "", { body: stream, duplex: "half" } as RequestInit).catch(() => undefined);
    assert.ok(endless === undefined || endless.status === 413);
    await until(async () => (await health(url)).requests === 0);
  });

  test("the page has no script and no style but its own files'", async () => {
    const response = await fetch(url);
    assert.match(String(response.headers.get("content-security-policy")), /default-src 'self'/);
    const html = await response.text();
    assert.doesNotMatch(html, /<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc="\/)|https?:/i);
    for (const [, path] of html.matchAll(/(?:src|href)="([^"]+)"/g)) assert.equal((await fetch(url + path)).status, 200, path);
  });
});

describe("a client that goes away", () => {
  test("ends the reply's compute, and the others go on", async () => {
    await using server = await startDesk({ models: { reply: endlessModel() } }).then(disposable);
    const { desk, url } = server;
    const streams: TokenStream[] = [];
    const reply = desk.reply.bind(desk);
    desk.reply = async (...given) => {
      const stream = await reply(...given);
      streams.push(stream);
      return stream;
    };
    const gone = new AbortController();
    const [leaving, staying] = await Promise.all([gone.signal, undefined].map((signal) => post(`${url}/api/reply`, { message: "Hello" }, { signal })));
    const reader = leaving!.body!.getReader();
    await reader.read();
    gone.abort();
    await until(async () => (await health(url)).requests === 1);
    const { finishReason, usage } = await streams[0]!.result;
    assert.equal(finishReason, "aborted");
    assert.ok(usage.completionTokens < 50_000);
    const other = staying!.body!.getReader();
    for (let chunks = 0; chunks < 20; chunks++) assert.equal((await other.read()).done, false);
    await other.cancel();
    await until(async () => (await health(url)).requests === 0);
  });

  test("ends an analysis", async () => {
    await using server = await startDesk({ models: { translation: endlessModel() } }).then(disposable);
    const gone = new AbortController();
    const response = await post(`${server.url}/api/analysis`, { message: "Hello" }, { signal: gone.signal });
    await response.body!.getReader().read();
    gone.abort();
    await until(async () => (await health(server.url)).requests === 0);
    // The translator is free again, or this would wait for minutes.
    const next = new AbortController();
    const again = await post(`${server.url}/api/analysis`, { message: "字" }, { signal: next.signal });
    assert.equal((await eventsOf(again)).at(-1)!.event, "done");
  });

  test("too many at once are told so, and a crowd that leaves leaves nothing behind", async () => {
    await using server = await startDesk({ models: { reply: endlessModel() }, mostRequests: 8 }).then(disposable);
    const url = `${server.url}/api/reply`;
    const gone = new AbortController();
    const crowd = await Promise.all(Array.from({ length: 8 }, () => post(url, { message: "Hello" }, { signal: gone.signal })));
    assert.ok(crowd.every(({ status }) => status === 200));
    const one = await post(url, { message: "Hello" });
    assert.deepEqual([one.status, ((await one.json()) as { error: { code: string } }).error.code], [503, "BUSY"]);
    assert.ok(Number(one.headers.get("retry-after")) > 0);
    gone.abort();
    await until(async () => (await health(server.url)).requests === 0);
    const again = await post(url, { message: "Hello" });
    assert.equal(again.status, 200);
    await again.body!.cancel();
  });

  test("closing the server ends what is at work", { timeout: 30_000 }, async () => {
    const server = await startDesk({ models: { reply: endlessModel() } });
    const response = await post(`${server.url}/api/reply`, { message: "Hello" });
    await response.body!.getReader().read();
    await server.close();
    await assert.rejects(fetch(server.url));
  });
});

const disposable = (server: RunningServer) => Object.assign(server, { [Symbol.asyncDispose]: () => server.close() });

describe("the database", () => {
  const file = (): string => join(newFolder("desk"), "answers.sqlite");

  test("is there the next time, also for another model's vectors", async () => {
    const database = file();
    const answer = { question: "Do you sell globes of the moon?", answer: "We have two sizes." };
    const first = await startDesk({ database });
    await post(`${first.url}/api/answers`, answer);
    await first.close();
    const { topic } = tinyModels();
    for (const models of [{}, { similar: topic }, {}]) {
      const again = await startDesk({ database, models });
      assert.equal((await health(again.url)).answers, seeds.length + 1);
      const { similar } = await analysis(again.url, answer.question);
      assert.equal(similar.answers[0].score > 0.999, true);
      await again.close();
    }
  });

  test("is one process's at a time", async () => {
    const database = file();
    const first = await startDesk({ database });
    writeFileSync(`${database}.owner`, String(process.ppid));
    await assert.rejects(startDesk({ database }));
    await first.close();
  });

  test("opens after a crash, which leaves SQLite's mark behind", async () => {
    const database = file();
    const first = await startDesk({ database });
    await first.close();
    // A process that has ended.
    const { pid } = spawn(process.execPath, ["-e", ""]).once("error", assert.fail);
    await until(() => {
      try {
        return !process.kill(pid!, 0);
      } catch {
        return true;
      }
    });
    writeFileSync(`${database}.owner`, String(pid));
    mkdirSync(`${database}.lock`);
    const again = await startDesk({ database });
    assert.equal((await health(again.url)).answers, seeds.length);
    await again.close();
  });
});

describe("the command", () => {
  async function run(...options: string[]) {
    const models = join(newFolder("desk"), "models.json");
    writeFileSync(models, JSON.stringify(tinyModels()));
    const main = join(__dirname, "../examples/support-desk/main.ts");
    const child = spawn(process.execPath, ["--import", "tsx", main, "--port", "0", "--models", models, "--database", ":memory:", ...options], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let errors = "";
    child.stderr.on("data", (data) => (errors += data));
    const ended = once(child, "exit").then(([code]) => code as number);
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    return { child, ended, lines, errors: () => errors };
  }

  test("says where it is, and a signal ends it in order", async () => {
    const { child, ended, lines } = await run();
    const { value } = await lines.next();
    const [url] = /http:\S+/.exec(value as string)!;
    assert.equal((await health(url)).status, "ok");
    child.kill("SIGTERM");
    assert.equal(await ended, 0);
  });

  test("teaches the model that replies from the desk's own answers", async () => {
    const output = join(newFolder("desk"), "reply");
    const { reply } = tinyModels();
    const teach = join(__dirname, "../examples/support-desk/teach.ts");
    const options = ["--model", reply!, "--database", join(newFolder(), "none"), "--output", output, "--epochs", "1"];
    // The second time there may be new answers.
    for (const _ of [1, 2]) {
      const child = spawn(process.execPath, ["--import", "tsx", teach, ...options], { stdio: ["ignore", "ignore", "inherit"] });
      assert.deepEqual(await once(child, "exit"), [0, null]);
    }
    const models = JSON.parse(readFileSync(join(output, "models.json"), "utf8")) as { reply: string };
    const server = await startDesk({ models });
    const events = await eventsOf(await post(`${server.url}/api/reply`, { message: "Hello" }));
    assert.equal(events.at(-1)!.data, "[DONE]");
    await server.close();
  });

  test("ends with 1 and a message if it cannot start", async () => {
    const models = join(newFolder("desk"), "models.json");
    writeFileSync(models, JSON.stringify({ reply: join(newFolder(), "nowhere") }));
    const { ended, errors } = await run("--models", models);
    assert.equal(await ended, 1);
    assert.ok(errors().trim().split("\n").length === 1, errors());
  });
});

describe("language", () => {
  test("what a message is written in", () => {
    for (const text of ["你好", "iPhone 打不开", "书，book", "我 am"]) assert.equal(languageOf(text), "zh", text);
    for (const text of ["hello", "", "!!", "I like 茶", "12"]) assert.equal(languageOf(text), "en", text);
  });

  test("sentences, none longer than asked for, with every letter", () => {
    const letters = (text: string) => text.replace(/\s/g, "");
    for (const text of ["One. Two? 三。Four!", "word ".repeat(500), "x".repeat(999), "字".repeat(500), " \n", "a\n\nb", "👩‍👩‍👧 ".repeat(90)]) {
      const sentences = sentencesOf(text, 50);
      assert.ok(sentences.every((sentence) => [...sentence].length <= 50 && sentence.trim() === sentence && sentence !== ""));
      assert.equal(letters(sentences.join("")), letters(text));
      const last = lastSentences(text, 100);
      assert.ok([...last].length <= 101 && letters(text).endsWith(letters(last)));
    }
  });

  test("grams", () => assert.deepEqual([...grams("书破了, A")], ["书", "破", "书破", "了", "破了", "a"]));
});

test("a model that cannot be loaded leaves nothing open", async () => {
  await assert.rejects(startDesk({ models: { reply: join(randomModel(), "nowhere") } }), { code: "MODEL_NOT_FOUND" });
});
