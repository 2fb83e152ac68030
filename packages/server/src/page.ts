/** The page at `/`: files of `page/` and of two libraries, which need no network. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { App } from "./app.js";

const HTML = "text/html; charset=utf-8";
const SCRIPT = "text/javascript; charset=utf-8";
const STYLE = "text/css; charset=utf-8";

/** Its own modules, each of which a file imports by name. */
const MODULES = ["page", "api", "classify", "dom", "en", "generate", "metrics", "options", "server", "similarity", "tokens", "words", "zh"];

/** Paths beside `index.html`, with their files: in `page/`, or in a package. */
const FILES: Readonly<Record<string, readonly [file: string, type: string, packageName?: string]>> = {
  ...Object.fromEntries(MODULES.map((name) => [`/page/${name}.js`, [`${name}.js`, SCRIPT]] as const)),
  "/page/page.css": ["page.css", STYLE],
  "/page/icon.svg": ["icon.svg", "image/svg+xml"],
  "/page/uplot.js": ["dist/uPlot.esm.js", SCRIPT, "uplot"],
  "/page/uplot.css": ["dist/uPlot.min.css", STYLE, "uplot"],
  "/page/eventsource-parser.js": ["dist/index.js", SCRIPT, "eventsource-parser"],
};

const HEADERS = {
  "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

const folderOf = (packageName: string) => dirname(require.resolve(`${packageName}/package.json`));

export function addPage(app: App, check: (headers: Headers) => unknown): void {
  const own = join(folderOf("candlewick-server"), "page");
  for (const [path, [file, type, packageName]] of Object.entries(FILES)) {
    app.get(path, (c) => {
      check(c.req.raw.headers);
      return c.body(readFileSync(join(packageName === undefined ? own : folderOf(packageName), file), "utf8"), 200, { ...HEADERS, "content-type": type });
    });
  }
  // Where the handler is mounted at a path, it may be asked for with a slash at its end and without.
  for (const path of ["/", ""]) {
    app.get(path, (c) => {
      check(c.req.raw.headers);
      const html = readFileSync(join(own, "index.html"), "utf8");
      return c.body(below(c.req.path, html), 200, { ...HEADERS, "content-type": HTML });
    });
  }
}

/** A browser looks for relative addresses beside the page's last slash: without one at the end, that is above it. */
function below(path: string, html: string): string {
  const last = path.slice(path.lastIndexOf("/") + 1);
  return last === "" ? html : html.replaceAll(/\b(href|src)="(?!#)/g, `$1="${last}/`);
}
