/**
 * The code blocks of a document, and a project to run them in: what a reader who follows the document would have, with
 * the built package under its own name. Later blocks find the files that earlier ones wrote.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { program } from "./cli.js";
import { newFolder } from "./models.js";

const root = join(__dirname, "..", "..");
const tsx = pathToFileURL(require.resolve("tsx")).href;

export interface Example {
  readonly language: string;
  readonly code: string;
  readonly line: number;
  /** All that it writes to standard output: the `text` block that follows it. */
  readonly output?: string;
}

export function examplesOf(document: string): Example[] {
  const text = readFileSync(join(root, document), "utf8");
  const blocks = [...text.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].map(({ 1: language, 2: code, index }) => ({
    language: language!,
    code: code!,
    line: text.slice(0, index).split("\n").length,
    end: index + code!.length,
  }));
  return blocks.flatMap((block, i) => {
    if (block.language === "text") return [];
    const next = blocks[i + 1];
    return [{ ...block, output: next?.language === "text" ? next.code.trimEnd() : undefined }];
  });
}

/**
 * What a line `console.log(…); // this` says that it prints; `…` stands for anything, and so does what was written
 * before it.
 */
export function announced(code: string): RegExp[] {
  const comments = [...code.matchAll(/^ *console\.log\(.*\); \/\/ (.+)$/gm)].map((match) => match[1]!);
  return comments.map((text) => new RegExp(`${text.split("…").map(escape).join(".*")}$`));
}

const escape = (text: string) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** Models and data under the names that the documents give them. */
export function newReadersProject(): string {
  const project = newFolder("reader");
  const link = (target: string, ...path: string[]) => {
    mkdirSync(dirname(join(project, ...path)), { recursive: true });
    symlinkSync(target, join(project, ...path));
  };
  link(root, "node_modules", "candlewick");
  for (const name of ["hono", "@types"]) link(join(root, "node_modules", name), "node_modules", name);
  for (const [name, model] of Object.entries({ "my-gpt2": "default", "my-bert": "minilm", "tuned-gpt2": "default" })) {
    cpSync(join(root, "models", model), join(project, name), { recursive: true });
  }

  const reviews = ["I loved every minute of it", "A waste of time", "Wonderful acting", "Dull and far too long"];
  const rows = reviews.map((text, i) => JSON.stringify({ text, label: i % 2 === 0 ? "positive" : "negative" }));
  for (const name of ["train", "validation", "test"]) writeFileSync(join(project, `${name}.jsonl`), `${rows.join("\n")}\n`);
  writeFileSync(join(project, "reviews.txt"), `${reviews.join("\n")}\n`);
  writeFileSync(join(project, "prose.txt"), "It is a truth universally acknowledged.\n".repeat(200));
  const recipe = { model: "./my-bert", task: "text-classification", train: "train.jsonl", output: "./tuned-by-recipe", maxSteps: 2 };
  writeFileSync(join(project, "recipe.json"), JSON.stringify(recipe));

  // What `npx` finds in a project that has installed the package.
  const npx = join(project, "bin", "npx");
  mkdirSync(dirname(npx));
  writeFileSync(npx, `#!/bin/sh\n[ "$1" = candlewick ] || exit 127\nshift\nexec "${process.execPath}" "${program}" "$@"\n`);
  chmodSync(npx, 0o755);
  return project;
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs an example as a program of its own, on `node`. One that exports a server is asked for one page, which it prints.
 */
export async function runExample({ language, code, line }: Example, project: string, node = process.execPath): Promise<Outcome> {
  if (language === "sh") return run("sh", ["-e", "-c", code], project);
  const file = join(project, `line-${line}.mts`);
  writeFileSync(file, code);
  if (!/^export default /m.test(code)) return run(node, ["--import", tsx, file], project);
  const ask = `const { default: app } = await import(${JSON.stringify(pathToFileURL(file).href)});
    const response = await app.fetch(new Request("http://localhost/?prompt=Once"));
    console.log(response.status, await response.text());`;
  const client = join(project, `line-${line}-client.mts`);
  writeFileSync(client, ask);
  return run(node, ["--import", tsx, client], project);
}

async function run(command: string, args: string[], cwd: string): Promise<Outcome> {
  const env = { ...process.env, PATH: `${join(cwd, "bin")}:${process.env["PATH"]}`, NODE_ENV: "production" };
  const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (output.stderr += text));
  const [code] = (await once(child, "close")) as [number];
  return { code, ...output };
}
