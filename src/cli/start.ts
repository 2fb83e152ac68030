// What `npm start` runs: text streams from the model that ships, or from the reader's own.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CandlewickError, loadGPT2, type GPT2 } from "../../index.js";
import { defaultModelPath, packageRoot } from "../package.js";
import { readCommand, usage, UsageError, type Command } from "./options.js";

const prompts = ["It is a truth universally acknowledged", "我们很高兴能够与您合作！"];

const colours = process.stdout.isTTY && process.stdout.hasColors() && !process.env["NO_COLOR"];
const style = (code: number) => (text: string) => (colours ? `\x1b[${code}m${text}\x1b[0m` : text);
const [bold, dim] = [style(1), style(2)];

/** Writes, and waits while the terminal or the pipe is full. */
function write(text: string): Promise<void> | undefined {
  if (process.stdout.write(text)) return undefined;
  return new Promise((resolve) => process.stdout.once("drain", resolve));
}

async function stream(model: GPT2, prompt: string, command: Command, signal: AbortSignal): Promise<void> {
  await write(bold(prompt));
  const started = performance.now();
  let first = 0;
  let count = 0;
  for await (const token of model.generate(prompt, { ...command.generation, signal })) {
    if (count++ === 0) first = performance.now();
    await write(token.text);
  }
  const last = performance.now();
  // The first token waits for the prompt; the pace is that of those after it.
  const pace = count > 1 ? `${((count - 1) / ((last - first) / 1000)).toFixed(0)} tokens/s, ` : "";
  await write(dim(`\n${count} tokens: ${pace}the first after ${(first - started).toFixed(0)} ms\n\n`));
}

function next(): string {
  const things = [
    ['npm start -- "your prompt"', "continue yours (--help lists the options)"],
    ["npx tsx examples/http-stream.ts", "the same over HTTP: server-sent events and chunked text"],
    ["npm test", "every test, Rust and TypeScript"],
    ["README.md", "the API, with an example to copy"],
  ] as const;
  const shown = things.filter(([what]) => !what.includes("examples/") || existsSync(join(packageRoot, "examples/http-stream.ts")));
  const width = Math.max(...shown.map(([what]) => what.length));
  return `Next:\n${shown.map(([what, why]) => `  ${what.padEnd(width)}  ${dim(why)}`).join("\n")}\n`;
}

async function start(signal: AbortSignal): Promise<void> {
  const command = readCommand(process.argv.slice(2));
  if (command.help) return void (await write(`${usage()}\n`));

  const started = performance.now();
  const threads = command.threads === undefined ? {} : { threads: command.threads };
  await using model = await loadGPT2(command.model ?? defaultModelPath, { ...threads, signal });
  const seconds = ((performance.now() - started) / 1000).toFixed(2);
  const { parameters, dtype, device, threads: used } = model.info;
  const facts = [
    `GPT-2 from ${command.model ?? "models/default"}`,
    `${(parameters / 1e6).toFixed(1)} million parameters as ${dtype}`,
    `loaded in ${seconds} s`,
    `${device}, ${used} ${used === 1 ? "thread" : "threads"}`,
    `seed ${command.generation.seed}`,
  ];
  await write(dim(`${facts.join("; ")}\n\n`));

  for (const prompt of command.prompt === undefined ? prompts : [command.prompt]) {
    await stream(model, prompt, command, signal);
  }
  if (command.prompt === undefined) await write(next());
}

/** What went wrong, for a person; and the exit code: 2 for a command that cannot be read, 130 after Ctrl-C, else 1. */
function explain(error: unknown): number {
  if (error instanceof UsageError) {
    console.error(`${error.message}\nnpm start -- --help lists the options.`);
    return 2;
  }
  if (error instanceof CandlewickError && error.code === "ABORTED") {
    console.error("\nStopped.");
    return 130;
  }
  if (error instanceof CandlewickError) {
    console.error(`\n${error.code}: ${error.message}\ndocs/errors.md says what to do about ${error.code}.`);
    return 1;
  }
  console.error(error);
  return 1;
}

const abort = new AbortController();
process.once("SIGINT", () => abort.abort());
process.once("SIGTERM", () => abort.abort());
// Whoever reads has gone (`npm start | head`): nothing to say, and nobody to say it to.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

start(abort.signal).catch((error) => {
  process.exitCode = explain(error);
});
