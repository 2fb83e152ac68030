/** Chromium, if this machine has one. */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
const found = [process.env["CHROMIUM"] ?? "", ...places].find((path) => path !== "" && existsSync(path));

/** Why tests in a browser are skipped here, or `false`. */
export const noBrowser: string | false = found === undefined && "there is no Chromium here (apt-get install chromium, or CHROMIUM=/path/to/it)";

export const startBrowser = (): Promise<Browser> => chromium.launch({ executablePath: found!, args: ["--no-sandbox"] });
