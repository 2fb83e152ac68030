/** The page at `/` in Chromium, on models that ship and on one that does not stop. Pictures: `target/screenshots/`. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type BERT, type GPT2, loadGPT2 } from "candlewick";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, test, type TestContext } from "vitest";
import { noBrowser, startBrowser } from "../../../__test__/support/browser.js";
import { randomModel } from "../../../__test__/support/models.js";
import { describeUnless } from "../../../__test__/support/skip.js";
import type { CreateHandlerOptions } from "../index.js";
import { answer, loadShipped, loadShippedBERT, metric, post, shipped, type Started, startServer, until, untilIdle } from "./support/server.js";

const folder = join(__dirname, "..", "page");
const pictures = join(__dirname, "..", "..", "..", "target", "screenshots");
const missing = ["dialogue", "minilm", "topics", "sentiment-en"].filter((name) => !existsSync(join(shipped(name), "config.json")));

/** A module of the page, which is JavaScript. */
const pageModule = (name: string): Promise<any> => import(join(folder, name));

describe("the page's parts", () => {
  test("both languages have the same words, and all that the markup asks for", async () => {
    const [{ en }, { zh }] = await Promise.all([pageModule("en.js"), pageModule("zh.js")]);
    assert.deepEqual(Object.keys(zh), Object.keys(en));
    for (const key of Object.keys(en)) assert.ok(typeof en[key] === typeof zh[key] || key === "minutesAgo", key);
    const html = readFileSync(join(folder, "index.html"), "utf8");
    for (const [, key = ""] of html.matchAll(/data-word[\w-]*="(\w+)"/g)) assert.ok(key in en, key);
    const sources = readdirSync(folder).filter((name) => name.endsWith(".js")).map((name) => readFileSync(join(folder, name), "utf8"));
    for (const [, key = ""] of sources.join("\n").matchAll(/(?:\bsay: |\bword\(|say\([\w.()]+, )"(\w+)"/g)) assert.ok(key in en, key);
  });

  test("nothing in the markup is inline or of another place", () => {
    const html = readFileSync(join(folder, "index.html"), "utf8");
    assert.doesNotMatch(html, /<style|\sstyle=|\son\w+=|https?:|(?:href|src)="\//);
    assert.doesNotMatch(html, /<script(?![^>]*\ssrc=)/);
  });

  test("Prometheus' text is read; rates and quantiles are its own", async () => {
    const { parseMetrics, sumOf, rate, quantile } = await pageModule("metrics.js");
    const text = (count: number, buckets: readonly number[]) =>
      `# HELP x\n# TYPE x counter\nx_total{model="a \\"b\\" {c}\\n"} ${count}\nx_total{model="d"} 2\ngauge 1.5e3\n` +
      [0.1, 0.5, "+Inf"].map((bound, i) => `h_bucket{le="${bound}",model="d"} ${buckets[i]}`).join("\n");
    const before = { at: 1_000, families: parseMetrics(text(4, [1, 1, 1])) };
    const after = { at: 3_000, families: parseMetrics(text(14, [5, 9, 11])) };
    assert.equal(sumOf(after.families, "x_total"), 16);
    assert.equal(sumOf(after.families, "x_total", { model: 'a "b" {c}\n' }), 14);
    assert.equal(sumOf(after.families, "gauge"), 1_500);
    assert.equal(sumOf(after.families, "none"), null);
    assert.equal(rate(before, after, "x_total"), 5);
    assert.equal(rate(after, before, "x_total"), null, "a restart");
    // 4 up to 0.1, 4 more up to 0.5, 2 beyond: the fifth of ten is a quarter of the way from 0.1 to 0.5.
    assert.ok(Math.abs(quantile(before, after, "h", 0.5) - 0.2) < 1e-12);
    assert.equal(quantile(before, after, "h", 0.95), 0.5);
    assert.equal(quantile(after, after, "h", 0.5), null);
  });
});

describeUnless(noBrowser || (missing.length > 0 && `models/ has no ${missing.join(", ")}`), "the page in a browser", () => {
  let browser: Browser;
  let models: Record<"default" | "dialogue", GPT2> & Record<"minilm" | "topics" | "sentiment", BERT>;
  /** Talks nonsense for minutes. */
  let endless: GPT2;
  let server: Started;
  let url: string;

  beforeAll(async () => {
    browser = await startBrowser();
    const [lm, dialogue, minilm, topics, sentiment] = await Promise.all([
      loadShipped("default"),
      loadShipped("dialogue"),
      loadShippedBERT("minilm"),
      loadShippedBERT("topics"),
      loadShippedBERT("sentiment-en"),
    ]);
    models = { default: lm, dialogue, minilm, topics, sentiment };
    endless = await loadGPT2(randomModel({ n_positions: 100_000 }), { threads: 1 });
    server = await startServer({ models: { ...models, endless } });
    ({ url } = server);
  });
  afterAll(async () => {
    await browser?.close();
    await server?.[Symbol.asyncDispose]();
    await Promise.all([...Object.values(models ?? {}), endless].map((model) => model?.close()));
  });

  /** A page of the server. What it says on the console, or asks of another place, fails the test. */
  async function open(t: TestContext, address = `${url}/`, options: BrowserContextOptions = {}): Promise<Page> {
    const context = await browser.newContext({ locale: "en-US", viewport: { width: 1280, height: 860 }, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    const complaints: string[] = [];
    const { host } = new URL(address);
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && !/status of \d{3}|ERR_|net::/.test(message.text()) && complaints.push(message.text()));
    page.on("request", (request) => new URL(request.url()).host !== host && complaints.push(`asked for ${request.url()}`));
    t.onTestFinished(async () => {
      await context.close();
      assert.deepEqual(complaints, []);
    });
    await page.goto(address);
    await holds(page, `document.querySelector("#generator option") !== null`);
    return page;
  }

  /** Until the browser says so. (`waitForFunction` of a text is what the page's policy forbids.) */
  async function holds(page: Page, expression: string): Promise<void> {
    for (let waited = 0; !(await page.evaluate<boolean>(expression)); waited += 25) {
      assert.ok(waited < 20_000, `not so after twenty seconds: ${expression}`);
      await sleep(25);
    }
  }

  const option = (name: string) => `#option-${name}`;
  async function set(page: Page, options: Record<string, string | number | boolean>): Promise<void> {
    await page.evaluate(`document.querySelectorAll(".group").forEach((one) => (one.open = true))`);
    for (const [name, value] of Object.entries(options)) {
      if (typeof value === "boolean") await page.locator(option(name)).setChecked(value);
      else if (name === "priority") await page.locator(option(name)).selectOption(String(value));
      else await page.locator(option(name)).fill(String(value));
    }
  }
  const go = (page: Page) => page.locator("#go").click();
  const done = (page: Page) => holds(page, `/^(Done|Broken)/.test(document.getElementById("progress").textContent)`);
  const shownText = (page: Page, place = "#answers") => page.locator(`${place} .text`).allTextContents();
  const pick = (page: Page, model: string) => page.locator("#generate").getByLabel("Model", { exact: true }).selectOption(model);
  const picture = (page: Page, name: string, options: object = {}) => page.screenshot({ path: join(pictures, `${name}.png`), ...options });

  const PROMPT = "It is a truth universally acknowledged";

  test("continues a text as the API does, with every option", async (t) => {
    const page = await open(t);
    await page.getByLabel("Prompt", { exact: true }).fill(PROMPT);
    const fields = {
      max_tokens: 24, temperature: 0.9, top_p: 0.95, seed: 11, top_k: 60, min_p: 0.01, repetition_penalty: 1.1, no_repeat_ngram_size: 4,
      presence_penalty: 0.1, frequency_penalty: 0.1, min_tokens: 4, n: 2,
    };
    await set(page, { ...fields, stop: "qqq\n\\n\\n", stop_token_ids: "1, 2", ignore_eos: true, priority: "batch", echo: true, logit_bias: `5 -3\n" the": 1.5`, probabilities: false });
    const asked = page.waitForRequest((request) => request.url().endsWith("/v1/completions"));
    await go(page);
    const sent = (await asked).postDataJSON();
    const { tokens } = await answer(url, "/tokenize", { model: "default", prompt: " the" });
    const body = {
      model: "default", prompt: PROMPT, ...fields, stop: ["qqq", "\n\n"], stop_token_ids: [1, 2], ignore_eos: true, priority: "batch", echo: true, logit_bias: { 5: -3, [tokens[0]]: 1.5 },
    };
    assert.deepEqual(sent, { ...body, stream: true, stream_options: { include_usage: true } });
    await done(page);
    const { choices, usage } = await answer(url, "/v1/completions", body);
    assert.deepEqual(await shownText(page), choices.map(({ text }: { text: string }) => text));
    assert.match((await page.locator("#figures").textContent())!, new RegExp(`Tokens generated${usage.completion_tokens}`));
    assert.match((await page.locator("#figures").textContent())!, /Speed[\d,]+ tokens\/s.*First token after[\d.]+ m?s/);
  });

  test("what is empty is not sent", async (t) => {
    const page = await open(t);
    await set(page, { max_tokens: "", alternatives: "" });
    const asked = page.waitForRequest((request) => request.url().endsWith("/v1/completions"));
    await go(page);
    assert.deepEqual((await asked).postDataJSON(), { model: "default", prompt: PROMPT, logprobs: 0, stream: true, stream_options: { include_usage: true } });
    await done(page);
  });

  test("the best of several is not streamed", async (t) => {
    const page = await open(t);
    await set(page, { max_tokens: 8, seed: 5, n: 1, best_of: 4, probabilities: false });
    await go(page);
    await done(page);
    const { choices } = await answer(url, "/v1/completions", { model: "default", prompt: PROMPT, max_tokens: 8, seed: 5, n: 1, best_of: 4 });
    assert.deepEqual(await shownText(page), [choices[0].text]);
  });

  test("each token has its probability: by colour, in a panel, in a table, with the keyboard", async (t) => {
    const page = await open(t);
    await set(page, { max_tokens: 16, seed: 3, temperature: 1 });
    await go(page);
    await done(page);
    const { choices } = await answer(url, "/v1/completions", { model: "default", prompt: PROMPT, max_tokens: 16, seed: 3, temperature: 1, logprobs: 5 });
    const [{ text, logprobs }] = choices;
    assert.deepEqual(await shownText(page), [text]);
    const spans = page.locator("#answers .token");
    assert.equal(await spans.count(), logprobs.tokens.length);
    for (const [index, logprob] of logprobs.token_logprobs.entries()) {
      const share = Math.exp(logprob);
      const expected = [0.8, 0.5, 0.2, 0.05, 0].findIndex((bound) => share >= bound);
      assert.match((await spans.nth(index).getAttribute("class"))!, new RegExp(`\\bp${expected}\\b`));
    }
    // One stop of the tabulator for all of them; arrows go on.
    assert.equal(await page.locator(`#answers .token[tabindex="0"]`).count(), 1);
    await spans.first().focus();
    for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home", "ArrowDown"]) await page.keyboard.press(key);
    assert.equal(await page.evaluate(`document.activeElement.dataset.unit`), "1");
    assert.match((await spans.nth(1).getAttribute("title"))!, /— [\d.]+%\. Candidates: .+%/);
    assert.equal(await spans.nth(1).getAttribute("aria-label"), await spans.nth(1).getAttribute("title"));
    const rows = Object.keys(logprobs.top_logprobs[1]).length;
    assert.equal(await page.locator("#detail li").count(), rows);
    assert.equal(await page.locator("#detail li.chosen").count(), 1);
    await page.getByText("Tokens as a table").click();
    await until(async () => (await page.locator("#token-table tbody tr").count()) === logprobs.tokens.length, "a row for each token");
  });

  test("a character that several tokens make is one, which names their bytes", async (t) => {
    const page = await open(t);
    const prompt = "龘 and 𠮷";
    const { tokens } = (await answer(url, "/v1/completions", { model: "default", prompt, max_tokens: 1, echo: true, logprobs: 0, seed: 1 })).choices[0].logprobs;
    assert.ok(tokens.some((token: string) => token.startsWith("bytes:")), `no torn token: ${tokens}`);
    await page.getByLabel("Prompt", { exact: true }).fill(prompt);
    await set(page, { max_tokens: 1, echo: true, seed: 1 });
    await go(page);
    await done(page);
    assert.ok((await shownText(page))[0]!.startsWith(prompt));
    const torn = page.locator("#answers .token", { hasText: "龘" });
    assert.match((await torn.getAttribute("title"))!, /bytes:(\\x[0-9a-f]{2})+/);
    await torn.hover();
    assert.match((await page.locator("#detail").textContent())!, /bytes:\\x/);
  });

  for (const [name, stop] of [
    ["the button", (page: Page) => page.getByRole("button", { name: "Stop" }).click()],
    ["Escape", (page: Page) => page.keyboard.press("Escape")],
  ] as const) {
    test(`${name} stops it, on the server too; what is written stays`, async (t) => {
      const page = await open(t);
      await pick(page, "endless");
      await set(page, { max_tokens: 90_000, ignore_eos: true, probabilities: false });
      await go(page);
      await holds(page, `document.querySelector("#answers .text").textContent.length > 40`);
      assert.ok((await metric(server.handler, "requests_running")) >= 1);
      await stop(page);
      await holds(page, `document.getElementById("progress").textContent.startsWith("Stopped")`);
      await until(async () => (await metric(server.handler, "requests_running")) === 0, "nothing runs");
      await until(() => server.handler.working === 0, "nothing is under way");
      await untilIdle(endless);
      const [text] = await shownText(page);
      assert.ok(text!.length > 40);
      await sleep(200);
      assert.deepEqual(await shownText(page), [text]);
      assert.ok(await page.locator("#go").isEnabled());
    });
  }

  test("a conversation, with its history", async (t) => {
    const page = await open(t);
    assert.equal(await page.getByRole("group", { name: "Mode" }).isVisible(), false, "a model that cannot chat");
    await pick(page, "dialogue");
    await page.getByText("Chat", { exact: true }).click();
    await set(page, { max_tokens: 24, seed: 2, temperature: 0.5 });
    const messages: { role: string; content: string }[] = [];
    for (const content of ["Hello! How are you?", "What did you do today?"]) {
      messages.push({ role: "user", content });
      await page.getByLabel("Your message").fill(content);
      await page.keyboard.press("Control+Enter");
      await done(page);
      assert.equal(await page.locator("#generate-problem").textContent(), "");
      const { choices } = await answer(url, "/v1/chat/completions", { model: "dialogue", messages, max_tokens: 24, seed: 2, temperature: 0.5, logprobs: true, top_logprobs: 5 });
      messages.push(choices[0].message);
      assert.deepEqual(await shownText(page, "#conversation"), messages.map(({ content }) => content));
      assert.equal(await page.locator("#conversation li").last().locator(".token").count(), choices[0].logprobs.content.length);
      await holds(page, `document.getElementById("message").value === ""`);
    }
    await picture(page, "chat");
    await page.getByRole("button", { name: "New conversation" }).click();
    assert.equal(await page.locator("#conversation li").count(), 0);
  });

  test("what the server refuses is said in words, at the field", async (t) => {
    const page = await open(t);
    await set(page, { temperature: 3 });
    await go(page);
    const alert = page.locator("#generate-problem [role=alert]");
    await alert.getByText("temperature").waitFor();
    assert.match((await alert.textContent())!, /The server refused this: .*from 0 to 2.*invalid_value/);
    assert.equal(await page.locator(option("temperature")).getAttribute("aria-invalid"), "true");
    assert.equal(await page.evaluate(`document.activeElement.id`), "option-temperature");
    await set(page, { temperature: 1, logit_bias: `" a long text" 1` });
    await go(page);
    await alert.getByText(/is \d+ tokens; a bias is for one/).waitFor();
    await page.getByRole("button", { name: "Reset" }).click();
    await page.getByLabel("Prompt", { exact: true }).fill("word ".repeat(600));
    await go(page);
    await alert.getByText("context_length_exceeded").waitFor();
    assert.equal(await page.locator("#prompt").getAttribute("aria-invalid"), "true");
    await page.getByLabel("Prompt", { exact: true }).fill(PROMPT);
    await go(page);
    await done(page);
    assert.equal(await alert.textContent(), "");
  });

  test("a server that is busy says when to come again", async (t) => {
    // However fast the model is, no more than eight texts of all its positions are let in.
    const other = await startServer({ models: { endless }, maxWaitMs: 1 });
    t.onTestFinished(() => other[Symbol.asyncDispose]());
    const page = await open(t, `${other.url}/`);
    await set(page, { max_tokens: 80_000, ignore_eos: true, probabilities: false });
    const busy = new AbortController();
    t.onTestFinished(() => busy.abort());
    await post(other.url, "/v1/completions", { model: "endless", prompt: "x", max_tokens: 90_000, n: 8, ignore_eos: true, stream: true }, { signal: busy.signal });
    await go(page);
    const again = page.getByRole("button", { name: "Try again" });
    await again.waitFor();
    assert.ok(await again.isDisabled());
    assert.match((await page.locator("#generate-problem").textContent())!, /The server is busy: .*Try again in \d+ s/);
    busy.abort();
    await until(() => again.isEnabled(), "the time has come");
    await again.click();
    await holds(page, `document.querySelector("#answers .text")?.textContent.length > 20`);
    await page.keyboard.press("Escape");
    await until(() => other.handler.working === 0, "nothing is under way");
  });

  test("an error in the middle of a stream is shown, and what came before it stays", async (t) => {
    const other = await startServer({ models: { endless } });
    t.onTestFinished(() => other[Symbol.asyncDispose]());
    const page = await open(t, `${other.url}/`);
    await set(page, { max_tokens: 90_000, ignore_eos: true });
    await go(page);
    await holds(page, `document.querySelectorAll("#answers .token").length > 10`);
    await other.handler.close();
    const alert = page.locator("#generate-problem [role=alert]");
    await alert.getByText("server_draining").waitFor();
    assert.match((await page.locator("#progress").textContent())!, /^Broken off/);
    assert.ok((await page.locator("#answers .token").count()) > 10);
    await other[Symbol.asyncDispose]();
    await go(page);
    await alert.getByText("cannot be reached").waitFor();
    await holds(page, `document.getElementById("state").textContent.includes("does not answer")`);
  });

  const lines = (page: Page, label: string, texts: readonly string[]) => page.getByRole("textbox", { name: label }).fill(texts.join("\n"));

  test("similarities are those of the embeddings", async (t) => {
    const page = await open(t);
    await page.getByRole("tab", { name: "Similarity" }).click();
    const texts = ["A cat sleeps.", "The kitten naps.", "Rates rose <b>again</b>."];
    await lines(page, "Texts, one a line", texts);
    await page.getByRole("button", { name: "Compare" }).click();
    await page.locator("#matrix td").first().waitFor();
    const { data } = await answer(url, "/v1/embeddings", { model: "minilm", input: texts });
    const vectors: number[][] = data.map(({ embedding }: { embedding: number[] }) => embedding);
    const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
    const cells = await page.locator("#matrix tbody td").evaluateAll((all) => all.map((cell: any) => [cell.textContent, cell.title]));
    assert.equal(cells.length, 9);
    for (const [index, [shown, title]] of cells.entries()) {
      const [a, b] = [vectors[Math.floor(index / 3)]!, vectors[index % 3]!];
      const expected = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
      assert.ok(Math.abs(Number(shown) - expected) <= 0.005_001, `${shown} for ${expected}`);
      assert.ok(Math.abs(Number(title.slice(title.lastIndexOf(":") + 1)) - expected) <= 0.000_051);
    }
    assert.equal(await page.locator("#matrix b").count(), 0, "what people write is text");
    assert.equal(await page.locator(`#matrix th[scope="row"]`).count(), 3);
  });

  test("documents in their order", async (t) => {
    const page = await open(t);
    await page.getByRole("tab", { name: "Similarity" }).click();
    const documents = ["The car is parked.", "A kitten plays with wool.", "Soup for dinner."];
    await page.getByRole("textbox", { name: "Query" }).fill("a small cat");
    await lines(page, "Documents, one a line", documents);
    await page.getByRole("button", { name: "Rank" }).click();
    await page.locator("#ranked li").first().waitFor();
    const { results } = await answer(url, "/v1/rerank", { model: "minilm", query: "a small cat", documents });
    const shown = await page.locator("#ranked li").evaluateAll((all) => all.map((row: any) => [row.firstChild.textContent, row.lastChild.textContent]));
    assert.deepEqual(shown, results.map(({ index, relevance_score }: any) => [documents[index], relevance_score.toFixed(3)]));
    // Without a query there is nothing to send.
    await page.getByRole("textbox", { name: "Query" }).fill("");
    await page.getByRole("button", { name: "Rank" }).click();
    await page.getByText("There is no query yet.").waitFor();
  });

  test("labels of texts", async (t) => {
    const page = await open(t);
    await page.getByRole("tab", { name: "Classification" }).click();
    const texts = ["What a wonderful book, I love it!", "This was dreadful."];
    await page.locator("#classifier").selectOption("sentiment");
    await lines(page, "Texts, one a line", texts);
    await page.getByRole("button", { name: "Classify" }).click();
    await page.locator("#labelled article").first().waitFor();
    const { data } = await answer(url, "/v1/classify", { model: "sentiment", input: texts });
    assert.deepEqual(await page.locator("#labelled h3").allTextContents(), texts);
    assert.deepEqual(await page.locator("#labelled .big").allTextContents(), data.map(({ label }: { label: string }) => label));
    assert.equal(await page.locator("#labelled .bar").count(), 4);
    const models = await page.locator("#classifier option").allTextContents();
    assert.deepEqual(models, ["topics", "sentiment"], "those with labels");
  });

  test("charts move, and say what they show", async (t) => {
    const page = await open(t, `${url}/#/server`);
    const chart = page.getByRole("img", { name: /^Tokens a second/ });
    await chart.waitFor();
    assert.equal(await page.locator("#charts .plot canvas").count(), 6);
    const before = await metric(server.handler, "tokens_total", 'kind="completion"');
    const label = await chart.getAttribute("aria-label");
    await Promise.all(Array.from({ length: 4 }, () => answer(url, "/v1/completions", { model: "default", prompt: "x", max_tokens: 100, ignore_eos: true })));
    await holds(page, `document.querySelector("#totals").textContent.includes("Tokens generated${new Intl.NumberFormat("en").format(before + 400)}")`);
    await until(async () => (await chart.getAttribute("aria-label")) !== label, "another description");
    await until(async () => /Median: now [\d.]+/.test((await page.getByRole("img", { name: /^Time to first token/ }).getAttribute("aria-label"))!), "a median");
    await page.locator(".readings summary").first().click();
    await page.locator(".readings table tbody tr").first().waitFor();
    // What runs shows, in every tab.
    const running = new AbortController();
    await post(url, "/v1/completions", { model: "endless", prompt: "x", max_tokens: 90_000, ignore_eos: true, stream: true }, { signal: running.signal });
    await holds(page, `document.getElementById("state").textContent.startsWith("1 running")`);
    await page.getByLabel("Models shown").selectOption("minilm");
    await until(async () => /Running: now 0,/.test((await page.getByRole("img", { name: /^Requests/ }).getAttribute("aria-label"))!), "another model's");
    running.abort();
    await holds(page, `document.getElementById("state").textContent.startsWith("0 running")`);
  });

  test("Chinese: by the browser's language, by the switch, and kept", async (t) => {
    const page = await open(t, `${url}/`, { locale: "zh-CN" });
    assert.equal(await page.evaluate("document.documentElement.lang"), "zh-CN");
    await page.getByRole("tab", { name: "生成" }).waitFor();
    await set(page, { max_tokens: 8, seed: 1 });
    await page.getByRole("button", { name: "生成" }).click();
    await holds(page, `document.getElementById("progress").textContent.startsWith("完成")`);
    assert.match((await page.locator("#figures").textContent())!, /词元\/秒/);
    assert.match((await page.locator("#answers .token").first().getAttribute("title"))!, /候选/);
    // Every word is of the language but names, units and what models wrote.
    const english = await page.evaluate<string[]>(`[...document.querySelectorAll("label, h1, h2, h3, dt, summary, .note, [role=tab], footer")]
      .map((one) => one.textContent).filter((text) => /[a-z]{3}/i.test(text) && !/\\p{Script=Han}/u.test(text))`);
    assert.deepEqual(english, ["Candlewick", "Top p", "Top k", "Min p"].filter((text) => english.includes(text)));
    const text = await shownText(page);
    await page.getByRole("button", { name: "English" }).click();
    assert.equal(await page.evaluate("document.documentElement.lang"), "en");
    await page.getByRole("tab", { name: "Generate" }).waitFor();
    assert.match((await page.locator("#progress").textContent())!, /^Done/);
    assert.match((await page.locator("#answers .token").first().getAttribute("title"))!, /Candidates/);
    assert.deepEqual(await shownText(page), text);
    await page.reload();
    await page.getByRole("tab", { name: "Generate" }).waitFor();
  });

  test("with the keyboard alone", async (t) => {
    const page = await open(t);
    const at = () => page.evaluate<string>(`document.activeElement.id || document.activeElement.dataset.language || document.activeElement.className || document.activeElement.tagName`);
    const tabTo = async (wanted: string, most = 60) => {
      for (let count = 0; (await at()) !== wanted; count++) {
        assert.ok(count < most, `the tabulator does not come to ${wanted}`);
        await page.keyboard.press("Tab");
        // Where the keyboard is can be seen.
        const outline = await page.evaluate<string>(`(() => { const one = document.activeElement; const shown = one.type === "radio" ? one.parentElement : one; return getComputedStyle(shown).outlineStyle; })()`);
        assert.notEqual(outline, "none", await at());
      }
    };
    await page.keyboard.press("Tab");
    assert.equal(await at(), "skip");
    await tabTo("tab-generate");
    await page.keyboard.press("ArrowRight");
    assert.equal(await at(), "tab-similarity");
    assert.ok(await page.locator("#similarity").isVisible());
    await page.keyboard.press("End");
    await page.keyboard.press("ArrowRight");
    assert.equal(await at(), "tab-generate");
    assert.equal(await page.getByRole("tab", { selected: true }).count(), 1);
    await tabTo("prompt");
    await page.keyboard.press("Control+A");
    await page.keyboard.type("Once upon a time");
    await page.keyboard.press("Control+Enter");
    await done(page);
    await tabTo("token p" + (await page.locator("#answers .token").first().getAttribute("class"))!.slice(7));
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.evaluate("document.activeElement.dataset.unit"), "1");
    await tabTo("option-seed");
    await page.keyboard.type("12");
    assert.equal(await page.locator(option("seed")).inputValue(), "12");
    // Streamed text is told once, at its end.
    assert.match((await page.locator("#announcer").textContent())!, /^Done: 64 tokens in .+\. ./s);
    assert.equal(await page.locator("#answers [aria-live], #answers[aria-live]").count(), 0);
  });

  for (const [name, options] of [
    ["on a phone, light", { viewport: { width: 360, height: 740 }, colorScheme: "light" }],
    ["at 200 %, dark", { viewport: { width: 640, height: 430 }, colorScheme: "dark" }],
    ["on a desk, in Chinese", { locale: "zh-CN", colorScheme: "dark" }],
  ] as const) {
    test(`${name}: it fits, every control has a name, words can be read`, async (t) => {
      const page = await open(t, `${url}/`, { reducedMotion: "reduce", ...options });
      const width = page.viewportSize()!.width;
      await set(page, { max_tokens: 30, seed: 4 });
      await page.locator("#request-details summary").click();
      await go(page);
      await holds(page, `!document.getElementById("figures").hidden`);
      await page.locator("#token-table summary").click();
      for (const tab of ["generate", "similarity", "classify", "server"]) {
        await page.locator(`#tab-${tab}`).click();
        for (const button of await page.locator(`#${tab}:not(#generate) button.primary`).all()) await button.click();
        await holds(page, `document.querySelectorAll("#matrix td, #ranked li").length > 0 || ${tab !== "similarity"}`);
        await holds(page, `document.querySelectorAll("#labelled article").length > 0 || ${tab !== "classify"}`);
        await holds(page, `document.querySelectorAll(".plot canvas").length > 0 || ${tab !== "server"}`);
        assert.ok((await page.evaluate<number>("document.documentElement.scrollWidth")) <= width, `${tab} is wider than the window`);
        assert.deepEqual(await page.evaluate<string[]>(UNNAMED), [], tab);
        assert.deepEqual(await page.evaluate<string[]>(UNREADABLE), [], tab);
        await picture(page, `${tab}-${name.replaceAll(/\W+/g, "-")}`, { fullPage: true });
      }
    });
  }

  describe("elsewhere", () => {
    async function serve(t: TestContext, options: Partial<CreateHandlerOptions>): Promise<string> {
      const other = await startServer({ models: { default: models.default }, ...options });
      t.onTestFinished(() => other[Symbol.asyncDispose]());
      return other.url;
    }
    const generates = async (page: Page) => {
      await set(page, { max_tokens: 4 });
      await go(page);
      await done(page);
      assert.notEqual((await shownText(page))[0], "");
      assert.match((await page.locator("#state").textContent())!, /running/);
      await page.getByRole("tab", { name: "Similarity" }).click();
      await page.getByText("No model of this server makes vectors of texts.").waitFor();
    };

    for (const path of ["/ai", "/ai/"]) {
      test(`mounted, at ${path}`, async (t) => {
        const page = await open(t, `${await serve(t, { basePath: "/ai" })}${path}`);
        await generates(page);
        const links = await page.locator("footer a").evaluateAll((all) => all.map((link: any) => new URL(link.href).pathname));
        assert.deepEqual(links, ["/ai/openapi.json", "/ai/metrics"]);
      });
    }

    /** A server with a key. Chromium asks its user only if Basic is all that the header offers. */
    async function locked(t: TestContext): Promise<string> {
      const other = await serve(t, { keys: [{ name: "a", key: "secret" }] });
      const { status, headers } = await fetch(other);
      assert.equal(status, 401);
      assert.match(headers.get("www-authenticate")!, /^Basic realm="[^"]*"(, charset="UTF-8")?$/);
      return other;
    }

    test("with a key, which the browser asks for", async (t) => {
      const other = await locked(t);
      await generates(await open(t, `${other}/`, { httpCredentials: { username: "", password: "secret" } }));
    });

    test("with a key in the address", async (t) => {
      const other = new URL(await locked(t));
      other.username = "me";
      other.password = "secret";
      await generates(await open(t, other.href));
    });

    test("while models are on their way", async (t) => {
      let give!: (model: GPT2) => void;
      const page = await open(t, `${await serve(t, { models: { late: new Promise<GPT2>((resolve) => (give = resolve)) } })}/`);
      await page.locator("#generator option", { hasText: "is being loaded" }).waitFor({ state: "attached" });
      give(models.default);
      await holds(page, `document.querySelector("#generator option:not(:disabled)") !== null`);
      await set(page, { max_tokens: 4 });
      await go(page);
      await done(page);
    });
  });
});

/** Controls that can be seen and that nothing names, and what refers to an element that is not there. */
const UNNAMED = `(() => {
  const text = (ids) => ids.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join("");
  const name = (one) => one.getAttribute("aria-label") || (one.hasAttribute("aria-labelledby") && text(one.getAttribute("aria-labelledby"))) || one.labels?.[0]?.textContent || (!["INPUT", "SELECT", "TEXTAREA"].includes(one.tagName) && one.textContent.trim());
  const seen = (one) => one.checkVisibility();
  const controls = [...document.querySelectorAll("button, input, select, textarea, summary, a, [role], section, form, [tabindex]:not(main)")];
  const unnamed = controls.filter((one) => seen(one) && !["alert", "status", "timer", "group"].includes(one.getAttribute("role")) && !name(one));
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  const lost = [...document.querySelectorAll("[aria-controls], [aria-describedby], [aria-labelledby], [for]")]
    .flatMap((one) => ["aria-controls", "aria-describedby", "aria-labelledby", "for"].flatMap((name) => one.getAttribute(name)?.split(" ") ?? [])).filter((id) => !ids.includes(id));
  const twice = ids.filter((id, index) => ids.indexOf(id) !== index);
  const small = [...document.querySelectorAll("button, select, input, summary")].filter((one) => seen(one) && one.type !== "radio" && one.type !== "checkbox" && one.getBoundingClientRect().height < 20);
  return [...unnamed, ...small].map((one) => one.outerHTML.slice(0, 120)).concat(lost, twice);
})()`;

/** Texts whose contrast with what is behind them is below WCAG's 4.5. */
const UNREADABLE = `(() => {
  // Whatever form a computed colour has, a canvas gives its bytes.
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const bytes = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); return [...pen.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => {
    [r, g, b] = [r, g, b].map((value) => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => { const colour = bytes(getComputedStyle(one).backgroundColor); return colour[3] === 0 && one.parentElement ? behind(one.parentElement) : colour; };
  const wanted = "h1, h2, h3, p, label, legend, button:enabled, textarea, input, select, .token, td, th, dt, dd, summary, li, code, pre, a";
  return [...document.querySelectorAll(wanted)].filter((one) => one.checkVisibility() && one.textContent.trim() !== "" && !one.matches(".unseen, .skip")).flatMap((one) => {
    const [a, b] = [light(bytes(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => b - a);
    const ratio = (a + 0.05) / (b + 0.05);
    return ratio >= 4.5 ? [] : [ratio.toFixed(2) + " " + one.outerHTML.slice(0, 100)];
  });
})()`;
