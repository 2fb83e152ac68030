// `candlewick generate`, which `npm start` runs: text streams from the model that ships, or from the reader's own.
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { loadGPT2, type GPT2 } from "../gpt2.js";
import { defaultModelPath, packageRoot } from "../package.js";
import { loadOptions, number, withLoadOptions, type LoadArguments } from "./arguments.js";
import { bold, dim, signal, write } from "./terminal.js";

const prompts = ["It is a truth universally acknowledged", "我们很高兴能够与您合作！"];

interface Arguments extends LoadArguments {
  model?: string;
  maxNewTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  repetitionPenalty: number;
  seed: number;
}

export function addGenerate(program: Command): void {
  const command = program
    .command("generate")
    .summary("continue a text with a GPT-2")
    .description("Continues the prompt, or two prompts of its own, with a GPT-2 that runs on this machine.")
    .argument("[prompt...]", "what to continue")
    .option("-m, --model <path>", "a folder with a GPT-2, a .gguf file or a hub id; the model that ships if left out")
    .option("--max-new-tokens <n>", "how many tokens at most", number, 80)
    .option("--temperature <x>", "0 picks the likeliest token, higher is freer", number, 0.8)
    .option("--top-k <n>", "choose among the N likeliest tokens", number, 50)
    .option("--top-p <x>", "choose among the likeliest tokens that make up this probability", number, 0.95)
    .option("--repetition-penalty <x>", "above 1, words that were said become less likely", number, 1.1)
    .option("--seed <n>", "the same seed gives the same text", number, 7)
    .addHelpText("after", '\nFor instance: candlewick generate "Once upon a time" --max-new-tokens 200 --seed 3');
  withLoadOptions(command).action(generate);
}

async function generate(words: string[], options: Arguments): Promise<void> {
  const { model: source, maxNewTokens, temperature, topK, topP, repetitionPenalty, seed } = options;
  const started = performance.now();
  await using model = await loadGPT2(source ?? defaultModelPath, loadOptions(options));
  const seconds = ((performance.now() - started) / 1000).toFixed(2);
  const { parameters, dtype, device, threads } = model.info;
  const facts = [
    `GPT-2 from ${source ?? "models/default"}`,
    `${(parameters / 1e6).toFixed(1)} million parameters as ${dtype}`,
    `loaded in ${seconds} s`,
    `${device}, ${threads} ${threads === 1 ? "thread" : "threads"}`,
    `seed ${seed}`,
  ];
  await write(dim(`${facts.join("; ")}\n\n`));
  const generation = { maxNewTokens, temperature, topK, topP, repetitionPenalty, seed };
  for (const prompt of words.length > 0 ? [words.join(" ")] : prompts) await stream(model, prompt, generation);
  if (words.length === 0) await write(next());
}

async function stream(model: GPT2, prompt: string, generation: object): Promise<void> {
  await write(bold(prompt));
  const started = performance.now();
  let first = 0;
  let count = 0;
  for await (const token of model.generate(prompt, { ...generation, signal })) {
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
    ["npx candlewick demo", "what the other models do: translation, dialogue, sentiment, topics"],
    ["npx candlewick chat", "a conversation"],
    ["npx candlewick --help", "embed, classify and the other commands"],
    ["npx tsx examples/http-stream.ts", "the same over HTTP: server-sent events and chunked text"],
    ["npm test", "every test, Rust and TypeScript"],
    ["README.md", "the API, with an example to copy"],
  ] as const;
  const inCheckout = existsSync(join(packageRoot, "examples/http-stream.ts"));
  const shown = inCheckout ? things : things.filter(([what]) => what.startsWith("npx candlewick"));
  const width = Math.max(...shown.map(([what]) => what.length));
  return `Next:\n${shown.map(([what, why]) => `  ${what.padEnd(width)}  ${dim(why)}`).join("\n")}\n`;
}
