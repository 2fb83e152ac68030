// `npm run test:bundlers`: the packed package under webpack, Next.js, pnpm, Yarn 4 (node_modules and Plug'n'Play), and
// TypeScript 5 with the old resolution, each fetched through npm into a temporary folder. Minutes, and a network: not
// part of CI. docs/deploy.md records it.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build, orExplain } from "./build.mjs";
import { packAll } from "./pack.mjs";

await orExplain(build);
const folder = mkdtempSync(join(tmpdir(), "candlewick-bundlers-"));
const tarballs = packAll(join(folder, "tarballs"), { models: true });
const files = { main: tarballs.main.path, platform: tarballs.platform.path, model: tarballs["sentiment-zh"].path };
const program = `import { generate } from "candlewick";
generate("Once", { maxNewTokens: 4, temperature: 0 }).result.then(({ usage }) => console.log("tokens", usage.completionTokens));
`;
// Not this process's own: npm sets variables that other package managers read.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_ENV|CANDLEWICK_)/i.test(name)));
env.NEXT_TELEMETRY_DISABLED = "1";
env.YARN_ENABLE_TELEMETRY = "0";

function project(name, content) {
  const at = join(folder, name);
  mkdirSync(at, { recursive: true });
  for (const [file, text] of Object.entries(content)) {
    mkdirSync(join(at, file, ".."), { recursive: true });
    writeFileSync(join(at, file), typeof text === "string" ? text : JSON.stringify(text, null, 1));
  }
  return at;
}

const sh = (cwd, command, ...args) => execFileSync(command, args, { cwd, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
const npm = (cwd, ...packages) => sh(cwd, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", files.main, files.platform, ...packages);
const expect = (text, pattern) => {
  if (!pattern.test(text)) throw new Error(`expected ${pattern}, got:\n${text}`);
};
const dependencies = { candlewick: `file:${files.main}`, "candlewick-linux-x64-gnu": `file:${files.platform}`, "candlewick-model-sentiment-zh": `file:${files.model}` };
// As if it were published: Yarn asks the registry for an optional dependency, whatever is installed beside it.
const resolutions = { "candlewick-linux-x64-gnu": `file:${files.platform}` };
const uses = `const { pipeline } = require("candlewick");
pipeline("sentiment-analysis", { language: "zh" }).then(async (task) => { console.log("label", (await task("房间很干净")).label); await task.close(); });
`;

const cases = {
  webpack() {
    const at = project("webpack", {
      "package.json": { private: true },
      "server.mjs": program,
      "webpack.config.cjs": `module.exports = { mode: "production", target: "node", entry: "./server.mjs", output: { filename: "out.cjs" }, externals: { candlewick: "commonjs candlewick" } };`,
    });
    npm(at, "webpack@5", "webpack-cli@6");
    sh(at, "npx", "webpack");
    expect(sh(at, process.execPath, "dist/out.cjs"), /tokens 4/);
  },
  "Next.js, standalone"() {
    const at = project("next", {
      "package.json": { private: true },
      "next.config.mjs": `export default {
  output: "standalone",
  serverExternalPackages: ["candlewick"],
  outputFileTracingIncludes: { "/**": ["./node_modules/candlewick/models/**", "./node_modules/candlewick/native/**", "./node_modules/candlewick-*/**"] },
};`,
      "app/layout.jsx": `export default function Layout({ children }) { return <html><body>{children}</body></html>; }`,
      "app/page.jsx": `export default function Page() { return <p>hello</p>; }`,
      "app/api/route.js": `import { generate } from "candlewick";
export const dynamic = "force-dynamic";
export const GET = () => generate("Once", { maxNewTokens: 4, temperature: 0 }).toResponse();`,
    });
    npm(at, "next@16", "react@19", "react-dom@19", files.model);
    sh(at, "npx", "next", "build");
    // The standalone folder alone, somewhere else: what a container gets.
    const alone = join(folder, "next-alone");
    cpSync(join(at, ".next", "standalone"), alone, { recursive: true, dereference: false });
    const script = `const { spawn } = require("node:child_process");
const server = spawn(process.execPath, ["server.js"], { env: { ...process.env, PORT: "0", HOSTNAME: "127.0.0.1" } });
let seen = "";
server.stdout.on("data", async (data) => {
  seen += data;
  const port = /http:\\/\\/127\\.0\\.0\\.1:(\\d+)/.exec(seen)?.[1];
  if (!port || server.asked) return;
  server.asked = true;
  const response = await fetch("http://127.0.0.1:" + port + "/api");
  console.log("status", response.status, JSON.stringify(await response.text()));
  server.kill();
});
server.stderr.on("data", (data) => process.stderr.write(data));`;
    expect(sh(alone, process.execPath, "-e", script), /status 200 "."?/);
  },
  pnpm() {
    const at = project("pnpm", { "package.json": { private: true, dependencies }, "use.cjs": uses });
    sh(at, "npx", "--yes", "pnpm@10", "install", "--ignore-scripts");
    expect(sh(at, process.execPath, "use.cjs"), /label positive/);
  },
  "Yarn 4, node_modules"() {
    const at = project("yarn", { "package.json": { private: true, dependencies, resolutions }, "use.cjs": uses, ".yarnrc.yml": "nodeLinker: node-modules\nenableScripts: false\n", "yarn.lock": "" });
    sh(at, "npx", "--yes", "-p", "@yarnpkg/cli-dist@4", "yarn", "install", "--no-immutable");
    expect(sh(at, process.execPath, "use.cjs"), /label positive/);
  },
  "Yarn 4, Plug'n'Play"() {
    const at = project("pnp", { "package.json": { private: true, dependencies, resolutions }, "use.cjs": uses, ".yarnrc.yml": "nodeLinker: pnp\nenableScripts: false\n", "yarn.lock": "" });
    sh(at, "npx", "--yes", "-p", "@yarnpkg/cli-dist@4", "yarn", "install", "--no-immutable");
    expect(sh(at, "npx", "--yes", "-p", "@yarnpkg/cli-dist@4", "yarn", "node", "use.cjs"), /label positive/);
  },
  "TypeScript 5: node10, and without @types/node"() {
    const at = project("types", { "package.json": { private: true }, "use.ts": `import { generate } from "candlewick";\nexport const text: Promise<string> = generate("a").text();\n` });
    npm(at, "typescript@5.9");
    const tsc = (...args) => sh(at, "npx", "tsc", "--noEmit", "--strict", "--target", "es2022", "--lib", "es2023,esnext.disposable,dom", ...args, "use.ts");
    // The types name node:http and node:stream, which a project without @types/node may pass over.
    for (const resolution of [["--module", "commonjs", "--moduleResolution", "node10"], ["--module", "node16"], ["--module", "esnext", "--moduleResolution", "bundler"]]) {
      tsc(...resolution, "--skipLibCheck");
    }
  },
};

let [passed, failed] = [0, 0];
const only = process.argv.slice(2);
for (const [name, test] of Object.entries(cases).filter(([name]) => only.length === 0 || only.some((part) => name.includes(part)))) {
  const started = performance.now();
  try {
    test();
    passed++;
    console.log(`ok      ${name} (${((performance.now() - started) / 1000).toFixed(0)} s)`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}\n${error.message}\n${error.stdout ?? ""}\n${error.stderr ?? ""}`);
  }
}
rmSync(folder, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
