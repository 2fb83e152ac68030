// `candlewick generate`, which `npm start` runs: text streams from the model that ships, or from the reader's own.
import { createWriteStream, existsSync } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { Option, type Command } from "commander";
import { CandlewickError } from "../errors.js";
import type { GPT2 } from "../gpt2.js";
import type { Dtype } from "../load.js";
import { packageRoot } from "../package.js";
import type { GenerateOptions } from "../types.js";
import { DTYPES, loadOptions, number, several, withLoadOptions, type LoadArguments } from "./arguments.js";
import { isPiped, openInput, textOf, withInputOptions, type InputArguments } from "./input.js";
import { library } from "./library.js";
import { bold, dim, note, signal, write } from "./terminal.js";

/** The prompts that are continued when none is given at a terminal. */
const OWN = ["It is a truth universally acknowledged", "我们很高兴能够与您合作！"];
/** Tokens for each, if neither the command nor the model's files say. */
const LENGTH = 80;
/** The seed for our own prompts: every user sees the same text. */
const OWN_SEED = 7;

interface Arguments extends LoadArguments, InputArguments {
  model: string;
  maxNewTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
  stopToken?: number[];
  badWord?: string[];
  suppressToken?: number[];
  draft?: string;
  draftDtype?: Dtype;
  /** False: the new text alone. */
  prompt: boolean;
  json?: boolean;
  output?: string;
  quiet?: boolean;
  demo?: boolean;
}

export function addGenerate(program: Command): void {
  const command = program
    .command("generate")
    .summary("continue a text with a GPT-2")
    .description(
      "Continues a text with a GPT-2 that runs on this machine. The prompt is what is given, a file (-f), or standard input; at a terminal without any, two of its own. " +
        "The text alone goes to standard output, everything else to standard error.",
    )
    .argument("[prompt...]", "what to continue")
    .option("-m, --model <path>", "a folder with a GPT-2, a .gguf file, a hub id, or the name of a model that ships", "default")
    .option("--max-new-tokens <n>", `how many tokens at most (default: as the model's files say, else ${LENGTH})`, number)
    .option("--temperature <x>", "0 picks the likeliest token, higher is freer (this and the next ones: default as the model's files say)", number)
    .option("--top-k <n>", "choose among the N likeliest tokens", number)
    .option("--top-p <x>", "choose among the likeliest tokens that make up this probability", number)
    .option("--min-p <x>", "leave out tokens less likely than this share of the likeliest", number)
    .option("--repetition-penalty <x>", "above 1, words that were said become less likely", number)
    .option("--stop <text>", "end before this text, or at the special token of this name; may be repeated", several(String))
    .option("--stop-token <id>", "end at this token; may be repeated", several(number))
    .option("--bad-word <text>", "never say this; may be repeated", several(String))
    .option("--suppress-token <id>", "never choose this token; may be repeated", several(number))
    .option("--seed <n>", "the same seed gives the same text (default: a random one, which is told)", number)
    .option("--draft <path>", "a smaller model of the same vocabulary, or the same model, that guesses tokens: the same text, sooner")
    .addOption(new Option("--draft-dtype <type>", "how the draft's weights are held").choices(DTYPES))
    .option("--no-prompt", "write the new text without the prompt")
    .option("--json", "write a JSON line for each prompt, when it is done")
    .option("-o, --output <path>", "write to a file")
    .option("-q, --quiet", "no figures")
    .option("--demo", "continue two prompts of its own, whatever standard input is")
    .addHelpText(
      "after",
      '\nFor instance: candlewick generate "Once upon a time" --max-new-tokens 200 --seed 3\n              echo "Once upon a time" | candlewick generate --stop . > story.txt\n              candlewick generate -f prompts.txt --from lines --json -o stories.jsonl',
    );
  withLoadOptions(withInputOptions(command)).action(generate);
}

async function generate(words: string[], options: Arguments): Promise<void> {
  const own = options.demo || (words.length === 0 && !options.file && !isPiped());
  const say = options.quiet ? () => {} : note;
  const started = performance.now();
  await using model = await library().loadGPT2(options.model, loadOptions(options));
  const { parameters, dtype, device, threads } = model.info;
  const facts = [
    `${options.model}: ${(parameters / 1e6).toFixed(1)} million parameters as ${dtype}`,
    `loaded in ${((performance.now() - started) / 1000).toFixed(2)} s`,
    `${device}, ${threads} ${threads === 1 ? "thread" : "threads"}`,
  ];
  say(dim(facts.join("; ")));
  await using draft = options.draft === undefined ? undefined : await library().loadGPT2(options.draft, loadOptions({ ...options, dtype: options.draftDtype, revision: undefined }));
  const generation = { ...generationOf(options, model, own), ...(draft && { speculation: { draft } }) };
  const out = sink(options.output);
  try {
    for await (const prompt of own ? OWN : prompts(words, options)) await continued(model, prompt, generation, options, out, say);
  } finally {
    await out.end();
  }
  if (own) say(next());
}

function generationOf(options: Arguments, model: GPT2, own: boolean): GenerateOptions {
  const { maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, stop, stopToken, badWord, suppressToken, seed = own ? OWN_SEED : undefined } = options;
  const learned = model.info.generationDefaults;
  const length = learned.maxNewTokens ?? learned.maxLength;
  return {
    maxNewTokens: maxNewTokens ?? (length === undefined ? LENGTH : undefined),
    temperature,
    topK,
    topP,
    minP,
    repetitionPenalty,
    badWords: badWord,
    suppressTokens: suppressToken,
    stop,
    stopTokenIds: stopToken,
    seed,
    signal,
  };
}

/** One prompt of the words; else what the files or standard input hold, whole unless they are rows. */
async function* prompts(words: readonly string[], options: Arguments): AsyncGenerator<string> {
  if (words.length > 0) yield words.join(" ");
  if (words.length > 0 && !options.file) return;
  const input = await openInput([], options, "whole");
  let any = false;
  for await (const row of input.rows()) {
    const text = textOf(row).replace(/\r?\n$/, "");
    if (text === "") continue;
    any = true;
    yield text;
  }
  if (!any) throw new CandlewickError("PROMPT_EMPTY", "There is nothing to continue: the input is empty");
}

async function continued(model: GPT2, prompt: string, generation: GenerateOptions, options: Arguments, out: Sink, say: (text: string) => void): Promise<void> {
  const stream = model.generate(prompt, generation);
  if (!options.json) {
    if (options.prompt) await out.write(out.terminal ? bold(prompt) : prompt);
    for await (const token of stream) await out.write(token.text);
    await out.write("\n");
  }
  const { text, finishReason, usage, timings, seed } = await stream.result;
  if (options.json) await out.write(`${JSON.stringify({ prompt, text, finishReason, seed, usage, timings })}\n`);
  const { completionTokens: tokens } = usage;
  const pace = tokens > 1 ? `${timings.decodeTokensPerSecond.toFixed(0)} tokens/s, ` : "";
  const stopped = finishReason === "stop" ? ", to its end" : "";
  say(dim(`${tokens} tokens${stopped}: ${pace}the first after ${timings.firstTokenMs.toFixed(0)} ms; seed ${seed}\n`));
}

interface Sink {
  readonly terminal: boolean;
  write(text: string): Promise<unknown> | undefined;
  end(): Promise<void>;
}

/** Standard output, or a file. */
function sink(path: string | undefined): Sink {
  if (path === undefined) return { terminal: process.stdout.isTTY, write, end: async () => {} };
  const file = createWriteStream(path);
  const written = finished(file).catch((error) => {
    throw new CandlewickError("IO", `${path}: ${error.message}`, { cause: error });
  });
  written.catch(() => {});
  return {
    terminal: false,
    write: (text) => (file.write(text) ? undefined : Promise.race([once(file, "drain"), written])),
    async end() {
      file.end();
      await written;
    },
  };
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
  return `Next:\n${shown.map(([what, why]) => `  ${what.padEnd(width)}  ${dim(why)}`).join("\n")}`;
}
