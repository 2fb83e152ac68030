/** The support desk's page in Chromium: on models that load in no time, and on those that ship. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, test, type TestContext } from "vitest";
import { type RunningServer, startServer } from "../examples/support-desk/server.js";
import { noBrowser, startBrowser } from "./support/browser.js";
import { endlessModel, health, RECITED, startDesk } from "./support/desk.js";
import { describeUnless } from "./support/skip.js";

const STAGES = ["topic", "sentiment", "translation", "similar"];

let browser: Browser;
beforeAll(async () => {
  if (!noBrowser) browser = await startBrowser();
});
afterAll(() => browser?.close());

/** A page of the server; what it says on the console fails the test. */
async function open(t: TestContext, url: string, options: Parameters<Browser["newContext"]>[0] = {}, context?: BrowserContext): Promise<Page> {
  const own = context ?? (await browser.newContext(options));
  const page = await own.newPage();
  page.setDefaultTimeout(20_000);
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && !/status of \d{3}|ERR_|net::/.test(message.text()) && complaints.push(message.text()));
  t.onTestFinished(async () => {
    if (!context) await own.close();
    assert.deepEqual(complaints, []);
  });
  await page.goto(url);
  return page;
}

const reply = (page: Page) => page.locator("#reply").inputValue();
const body = (page: Page, stage: string) => page.locator(`#${stage} .body`);
const read = async (page: Page, message: string) => {
  await page.getByLabel("Customer’s message").fill(message);
  await page.getByRole("button", { name: "Read message" }).click();
};
/** Until the browser says so. (`waitForFunction` of a text is what the page's policy forbids.) */
async function until(page: Page, expression: string): Promise<void> {
  for (let waited = 0; !(await page.evaluate<boolean>(expression)); waited += 25) {
    assert.ok(waited < 20_000, `not so after twenty seconds: ${expression}`);
    await sleep(25);
  }
}
const written = (page: Page) => until(page, `document.getElementById("writing").textContent.startsWith("First word")`);
const analysed = (page: Page) => until(page, `!document.querySelector(".waiting") && document.getElementById("state").textContent.startsWith("Read in")`);
/** Until so many requests are at work. */
async function atWork(url: string, count: number): Promise<void> {
  for (let waited = 0; (await health(url)).requests !== count; waited += 50) {
    assert.ok(waited < 10_000, `not ${count} requests at work after ten seconds`);
    await sleep(50);
  }
}

describeUnless(noBrowser, "the page", () => {
  let server: RunningServer;
  let url: string;
  beforeAll(async () => {
    server = await startDesk();
    ({ url } = server);
  });
  afterAll(() => server?.close());

  test("a message: every card and the reply fill, with the keyboard alone", async (t) => {
    const page = await open(t, url);
    await page.getByLabel("Customer’s message").focus();
    await page.keyboard.type("Where is my parcel? It should have been here last week.");
    await page.keyboard.press("Control+Enter");
    await Promise.all([analysed(page), written(page)]);
    for (const stage of STAGES) assert.notEqual(((await body(page, stage).textContent()) ?? "").trim(), "", stage);
    assert.match((await body(page, "similar").textContent())!, /Where is my parcel/);
    const text = await reply(page);
    assert.ok(text.length > 10 && RECITED.includes(text));
  });

  test("an earlier answer is used, changed, sent, and found the next time", async (t) => {
    const page = await open(t, url);
    await read(page, "Do you sell globes of Mars?");
    await Promise.all([analysed(page), written(page)]);
    await body(page, "similar").getByRole("button", { name: "Use this answer" }).first().click();
    await page.locator("#reply").fill("Only of <img src=x onerror=alert(1)> & Venus.");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await until(page, `document.getElementById("writing").textContent.startsWith("Sent")`);
    await read(page, "Do you sell globes of Mars?");
    await Promise.all([analysed(page), written(page)]);
    const first = body(page, "similar").locator("li").first();
    assert.match((await first.textContent())!, /100%.*Only of <img src=x onerror=alert\(1\)> & Venus\./s);
    assert.equal(await page.locator("#similar img").count(), 0, "what people write is text");
  });

  test("another draft", async (t) => {
    const page = await open(t, url);
    await read(page, "Hello");
    await Promise.all([analysed(page), written(page)]);
    await page.locator("#reply").fill("mine");
    await page.getByRole("button", { name: "Another draft" }).click();
    await until(page, `document.getElementById("reply").value.length > 10`);
    await written(page);
  });

  test("copies", async (t) => {
    const page = await open(t, url, { permissions: ["clipboard-read", "clipboard-write"] });
    await read(page, "Hello");
    await written(page);
    await page.getByRole("button", { name: "Copy" }).click();
    await until(page, `document.getElementById("writing").textContent === "Copied"`);
    assert.equal(await page.evaluate("navigator.clipboard.readText()"), await reply(page));
  });

  test("bad input shows an error, and is forgotten with the next message", async (t) => {
    const page = await open(t, url);
    await page.getByRole("button", { name: "Read message" }).click();
    const alert = page.getByRole("alert");
    await alert.waitFor({ state: "visible" });
    assert.equal(await page.locator("#message").getAttribute("aria-invalid"), "true");
    assert.equal(await page.locator("#problem").getAttribute("data-code"), "REQUEST_INVALID");
    await read(page, "Hello");
    await Promise.all([analysed(page), written(page)]);
    assert.equal(await alert.isVisible(), false);
    // What the server refuses is shown as well.
    await page.evaluate(`document.getElementById("message").removeAttribute("maxlength")`);
    await read(page, "x".repeat(4001));
    await alert.waitFor({ state: "visible" });
    assert.equal(await page.locator("#problem").getAttribute("data-code"), "REQUEST_INVALID");
  });

  for (const colorScheme of ["light", "dark"] as const) {
    test(`fits a phone, ${colorScheme}; every control has a name`, async (t) => {
      const page = await open(t, url, { viewport: { width: 360, height: 740 }, colorScheme });
      await read(page, `Hello ${"x".repeat(300)}`);
      await Promise.all([analysed(page), written(page)]);
      assert.ok((await page.evaluate<number>("document.documentElement.scrollWidth")) <= 360);
      const controls = await page.locator("button, textarea").evaluateAll((all) =>
        all.map((control: any) => control.textContent.trim() || control.labels?.[0]?.textContent || control.ariaLabel || control.getAttribute("aria-labelledby")),
      );
      assert.ok(controls.length > 8 && controls.every(Boolean));
      assert.ok((await contrasts(page)).every((ratio) => ratio >= 4.5), `contrast: ${await contrasts(page)}`);
    });
  }

  test("a server that has gone is an error, and not a page that waits", async (t) => {
    const lost = await startDesk();
    const page = await open(t, lost.url);
    await lost.close();
    await read(page, "Hello");
    await page.getByRole("alert").waitFor({ state: "visible" });
    assert.equal(await page.locator(".waiting").count(), 0);
  });
});

/** WCAG's contrast of the text with what is behind it. */
function contrasts(page: Page): Promise<number[]> {
  return page.evaluate<number[]>(`(() => {
    const light = (colour) => {
      const [r, g, b] = colour.match(/[\\d.]+/g).map((value) => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
      const colour = getComputedStyle(element).backgroundColor;
      return /, 0\\)$/.test(colour) && element.parentElement ? behind(element.parentElement) : colour;
    };
    return [...document.querySelectorAll("h1, h2, .note, .big, .translated, .empty, .question, .answers p, button:enabled, textarea")].map((element) => {
      const [a, b] = [getComputedStyle(element).color, behind(element)].map(light).sort((a, b) => b - a);
      return (a + 0.05) / (b + 0.05);
    });
  })()`);
}

describeUnless(noBrowser, "replies that do not end", () => {
  let server: RunningServer;
  let url: string;
  beforeAll(async () => {
    server = await startDesk({ models: { reply: endlessModel() } });
    ({ url } = server);
  });
  afterAll(() => server?.close());
  const growing = (page: Page) => until(page, `document.getElementById("reply").value.length > 20`);

  for (const [name, stop] of [
    ["the button", (page: Page) => page.getByRole("button", { name: "Stop" }).click()],
    ["Escape", (page: Page) => page.keyboard.press("Escape")],
  ] as const) {
    test(`${name} stops one; what is written stays`, async (t) => {
      const page = await open(t, url);
      await read(page, "Hello");
      await growing(page);
      await stop(page);
      await until(page, `document.getElementById("writing").textContent === "Stopped"`);
      const text = await reply(page);
      assert.ok(text.length > 20);
      await atWork(url, 0);
      assert.equal(await reply(page), text);
      assert.ok(await page.getByRole("button", { name: "Send", exact: true }).isEnabled());
    });
  }

  test("an earlier answer takes the place of what is being written", async (t) => {
    const page = await open(t, url);
    await read(page, "Where is my parcel?");
    await growing(page);
    const use = body(page, "similar").getByRole("button", { name: "Use this answer" }).first();
    const answer = await body(page, "similar").locator("li > p").first().textContent();
    await use.click();
    await atWork(url, 0);
    assert.equal(await reply(page), answer);
    assert.ok(await page.getByRole("button", { name: "Send", exact: true }).isEnabled());
  });

  test("two tabs at once; one closes and the other goes on", async (t) => {
    const context = await browser.newContext();
    t.onTestFinished(() => context.close());
    const [one, two] = [await open(t, url, {}, context), await open(t, url, {}, context)];
    await Promise.all([read(one, "Hello"), read(two, "Hi there")]);
    await Promise.all([growing(one), growing(two)]);
    await Promise.all([analysed(one), analysed(two)]);
    await atWork(url, 2);
    await one.close();
    const { length } = await reply(two);
    await until(two, `document.getElementById("reply").value.length > ${length + 20}`);
    await atWork(url, 1);
    // Another message takes the first one's place.
    await read(two, "And now?");
    await analysed(two);
    await growing(two);
    await atWork(url, 1);
    await two.close();
    await atWork(url, 0);
    assert.equal((await health(url)).status, "ok");
  });
});

/** The packages of weights that this checkout has not. */
const missing = ["topics", "sentiment-en", "sentiment-zh", "minilm", "translation-en-zh", "dialogue"].filter(
  (name) => !["config.json", "adapter_config.json"].some((file) => existsSync(join(__dirname, "../models", name, file))),
);

describeUnless(noBrowser || (missing.length > 0 && `models/ has no ${missing.join(", ")}`), "with the models that ship", () => {
  let server: RunningServer | undefined;
  beforeAll(async () => {
    server = await startServer({ port: 0, database: ":memory:" });
  });
  afterAll(() => server?.close());

  /** Drafts are drawn: one may be empty, or in no language. Of three, one is not. */
  async function drafted(page: Page, wanted: RegExp): Promise<void> {
    const ended = () => until(page, `/^(First word|Nothing)/.test(document.getElementById("writing").textContent)`);
    await ended();
    for (let more = 2; more > 0 && !wanted.test(await reply(page)); more--) {
      await page.getByRole("button", { name: "Another draft" }).click();
      await ended();
    }
    assert.match(await reply(page), wanted);
  }

  test("an English message", async (t) => {
    const page = await open(t, server!.url);
    await read(page, "I am very disappointed. The cover was torn and the pages are dirty. I cannot open the file.");
    await analysed(page);
    assert.equal(await page.locator("#sentiment .big").textContent(), "negative");
    assert.equal(await page.locator("#topic .scores li").count(), 3);
    assert.match((await body(page, "translation").textContent())!, /\p{Script=Han}{2}/u);
    assert.match((await body(page, "similar").textContent())!, /torn cover/);
    await drafted(page, /\w{2}/);

    await read(page, "What a wonderful book, I love it!");
    await analysed(page);
    assert.equal(await page.locator("#sentiment .big").textContent(), "positive");
  });

  test("a Chinese message", async (t) => {
    const page = await open(t, server!.url);
    await read(page, "书很好看，服务也很好，谢谢你们！");
    await analysed(page);
    assert.equal(await page.locator("#sentiment .big").textContent(), "positive");
    assert.match((await body(page, "similar").textContent())!, /服务太好了/);
    await drafted(page, /\p{Script=Han}/u);
    assert.equal(await page.locator("#reply").getAttribute("lang"), "zh");
  });
});
