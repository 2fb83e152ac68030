/**
 * The picture in README.md: `node --import tsx examples/support-desk/picture.ts [--models FILE] [--output FILE]`. Takes
 * Chromium (`CHROMIUM=…`) and a Chinese font.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { startServer } from "./server.js";

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { models: { type: "string" }, output: { type: "string", default: join(__dirname, "../../docs/support-desk.webp") } },
  });
  const models = values.models === undefined ? {} : (JSON.parse(readFileSync(values.models, "utf8")) as Record<string, string>);
  const server = await startServer({ port: 0, database: ":memory:", models });
  const browser = await chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 860 }, colorScheme: "light" });
    await page.goto(server.url);
    const examples = page.getByRole("group", { name: "Examples" }).getByRole("button");
    // The first is slower than all others.
    for (const example of [2, 1]) {
      await examples.nth(example).click();
      await page.getByText(/^Read in/).waitFor();
      await page.getByText(/^(First word after|Nothing came)/).waitFor();
      await page.waitForTimeout(500);
    }
    await page.getByRole("button", { name: "Use this answer" }).first().click();
    await page.locator("h1").click();
    const { data } = await (await page.context().newCDPSession(page)).send("Page.captureScreenshot", { format: "webp", quality: 82 });
    writeFileSync(values.output, Buffer.from(data, "base64"));
  } finally {
    await browser.close();
    await server.close();
  }
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
