/** The page of an evaluation in Chromium: on a phone and on a desk, light and dark. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, test } from "vitest";
import type { ClassificationMetrics } from "../index.js";
import { page } from "../src/evaluate/page.js";
import { noBrowser, startBrowser } from "./support/browser.js";
import { newFolder } from "./support/models.js";
import { describeUnless } from "./support/skip.js";

const labels = ["computers", "love and friendship", "politics", "science", "Unterhaltungselektronikhersteller", "工作", "food", "people"];
const matrix = labels.map((_, row) => labels.map((_, column) => (row === column ? 120 + row : (row * 7 + column * 3) % 11)));
const metrics = {
  examples: 1200, seconds: 12.3, loss: 0.61234, accuracy: 0.8125, accuracyInterval: [0.79, 0.83], mcc: 0.78, macro: { precision: 0.8, recall: 0.79, f1: 0.795 },
  labels, confusionMatrix: matrix, perClass: labels.map((label, i) => ({ label, precision: 0.8 + i / 100, recall: 0.7 + i / 100, f1: 0.75, support: 120 + i })),
  samples: [
    { input: `A link without a break: https://example.org/${"long".repeat(40)}`, expected: "science", predicted: "computers", score: 0.913 },
    { input: "房间很干净，服务也很周到，下次还会再来。".repeat(3), expected: "工作", predicted: "food", score: 0.4 },
  ],
} as unknown as ClassificationMetrics;
const training = Array.from({ length: 60 }, (_, i) => ({ type: i % 10 === 9 ? ("evaluation" as const) : ("step" as const), step: i, loss: 2 / (1 + i / 10), learningRate: 1e-4 }));

describeUnless(noBrowser, "the page of an evaluation", () => {
  let browser: Browser;
  let url: string;
  beforeAll(async () => {
    browser = await startBrowser();
    const path = join(newFolder("report"), "report.html");
    writeFileSync(path, page({ task: "text-classification", model: "./models/with/a/long/path/that-goes-on-and-on/tuned", data: "test.jsonl", created: "2026-11-26T12:00:00.000Z", metrics, training } as never));
    url = pathToFileURL(path).href;
  });
  afterAll(() => browser?.close());

  for (const colorScheme of ["light", "dark"] as const) {
    for (const width of [390, 1200]) {
      test(`fits ${width} pixels, ${colorScheme}`, async () => {
        const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
        const tab = await context.newPage();
        await tab.goto(url);
        if (process.env["SCREENSHOTS"]) await tab.screenshot({ path: join(process.env["SCREENSHOTS"], `report-${width}-${colorScheme}.png`), fullPage: true });
        // In the browser, as text: the types of a page are not those of Node.
        const found = await tab.evaluate<{ scroll: number; clipped: string[]; crooked: string[]; colours: [string, string][] }>(`(() => {
          const scrolls = (element) => element.closest(".wide");
          const clipped = [...document.querySelectorAll("body *")].filter((element) => !scrolls(element) && element.getBoundingClientRect().right > innerWidth + 1).map((element) => element.tagName);
          // A matrix of many classes may be scrolled; no other table has to be.
          clipped.push(...[...document.querySelectorAll(".wide")].filter((box) => !box.querySelector(".matrix") && box.scrollWidth > box.clientWidth).map((box) => box.textContent.slice(0, 20)));
          const crooked = [...document.querySelectorAll("table")].flatMap((table) => {
            const heads = [...table.querySelectorAll("thead th")], cells = [...(table.querySelector("tbody tr")?.children ?? [])];
            return heads.filter((head, i) => {
              const [a, b] = [head.getBoundingClientRect(), cells[i].getBoundingClientRect()];
              return Math.abs(a.left - b.left) > 1 || Math.abs(a.right - b.right) > 1 || (head.textContent && getComputedStyle(head).textAlign !== getComputedStyle(cells[i]).textAlign);
            }).map((head) => head.textContent);
          });
          const colours = ["body", "p", "th", "td", "svg text"].map((name) => {
            const style = getComputedStyle(document.querySelector(name));
            return [name === "svg text" ? style.fill : style.color, getComputedStyle(document.body).backgroundColor];
          });
          return { scroll: document.documentElement.scrollWidth, clipped, crooked, colours };
        })()`);
        assert.ok(found.scroll <= width, `${found.scroll} pixels wide`);
        assert.deepEqual(found.clipped, []);
        assert.deepEqual(found.crooked, [], "heads stand over their columns");
        for (const [text, paper] of found.colours) assert.ok(contrast(text, paper) >= 4.5, `${text} on ${paper}`);
        assert.equal(luminance(found.colours[0]![1]) < 0.2, colorScheme === "dark");
        assert.ok((await tab.getByText("0.91").count()) === 1, "a sample's score");
        await context.close();
      });
    }
  }
});

/** As WCAG defines them. */
function luminance(colour: string): number {
  const [r, g, b] = /(\d+), (\d+), (\d+)/.exec(colour)!.slice(1, 4).map((part) => {
    const share = Number(part) / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
}
const contrast = (a: string, b: string): number => {
  const [x, y] = [luminance(a), luminance(b)];
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
};
