// `candlewick demo`: what the models that ship can do, each with its latency on this machine.
import { InvalidArgumentError, type Command } from "commander";
import { CandlewickError } from "../errors.js";
import { findModel, MODEL_PREFIX } from "../package.js";
import { shippedName, type Language, type ShippedTask } from "../default-models.js";
import type { TokenStream } from "../stream.js";
import { several } from "./arguments.js";
import { library } from "./library.js";
import { bold, dim, signal, write } from "./terminal.js";

/** One part of the demo: a model, and its inputs. */
interface Part {
  readonly name: string;
  readonly title: string;
  readonly task: ShippedTask;
  readonly language?: Language;
  /** With the model loaded, whatever takes long. */
  run(): Promise<void>;
}

const parts: readonly Part[] = [
  {
    name: "generation",
    title: "Text generation, English and Chinese",
    task: "text-generation",
    async run() {
      await using task = await opened(() => library().pipeline("text-generation", { signal }));
      for (const prompt of ["It is a truth universally acknowledged", "床前明月光"]) {
        await streamed(prompt, task.stream(prompt, { maxNewTokens: 48, seed: 7, signal }));
      }
    },
  },
  {
    name: "translation",
    title: "Translation, English to Chinese",
    task: "translation",
    async run() {
      await using task = await opened(() => library().pipeline("translation", { signal }));
      for (const text of ["File not found", "Could not open the file for writing", "Save changes before closing?"]) {
        await answered(text, async () => (await task(text, { signal })).translationText);
      }
    },
  },
  {
    name: "dialogue",
    title: "Dialogue, English and Chinese",
    task: "dialogue",
    async run() {
      await using task = await opened(() => library().pipeline("dialogue", { signal }));
      await using session = task.session({ seed: 7 });
      for (const text of ["Hello, who are you?", "What is a computer?"]) await streamed(`${text} → `, session.say(text, { signal }));
      session.reset();
      await streamed("我们很高兴能够与您合作！ → ", session.say("我们很高兴能够与您合作！", { signal }));
    },
  },
  feeling("en", "English", ["A warm, funny film with a great cast.", "Dull, predictable and far too long."]),
  feeling("zh", "Chinese", ["房间很干净，服务也很周到，下次还会再来。", "质量太差了，用了两天就坏了。"]),
  {
    name: "topics",
    title: "Text classification by topic",
    task: "text-classification",
    async run() {
      await using task = await opened(() => library().pipeline("text-classification", { signal }));
      for (const text of ["Any sufficiently advanced bug is indistinguishable from a feature.", "Love is a friendship set to music."]) {
        await answered(text, async () => scored(await task(text, { signal })));
      }
    },
  },
];

function feeling(language: Language, name: string, texts: readonly string[]): Part {
  return {
    name: "sentiment",
    title: `Sentiment, ${name}`,
    task: "sentiment-analysis",
    language,
    async run() {
      await using task = await opened(() => library().pipeline("sentiment-analysis", { language, signal }));
      for (const text of texts) await answered(text, async () => scored(await task(text, { signal })));
    },
  };
}

const NAMES = [...new Set(parts.map(({ name }) => name))];

export function addDemo(program: Command): void {
  const one = (name: string) => {
    if (NAMES.includes(name)) return name;
    throw new InvalidArgumentError(`It must be one of ${NAMES.join(", ")}.`);
  };
  program
    .command("demo")
    .summary("what the models that ship can do")
    .description("Generates, translates, talks and classifies, with the packages of weights that are installed, and says how long each took.")
    .option("--only <name>", `one part: ${NAMES.join(", ")}; may be repeated`, several(one))
    .action(demo);
}

async function demo({ only = NAMES }: { only?: readonly string[] }): Promise<void> {
  const missing = new Set<string>();
  for (const part of parts.filter(({ name }) => only.includes(name))) {
    await write(`${bold(part.title)}\n`);
    const name = shippedName(part.task, part.language);
    if (findModel(name) === undefined) {
      missing.add(`${MODEL_PREFIX}${name}`);
      await write(`  ${MODEL_PREFIX}${name} is not installed.\n\n`);
      continue;
    }
    try {
      await part.run();
    } catch (error) {
      if (!(error instanceof CandlewickError) || error.code === "ABORTED") throw error;
      console.error(`  ${error.code}: ${error.message}`);
      process.exitCode = 1;
    }
    await write("\n");
  }
  if (missing.size > 0) await write(`For all of it: npm install ${[...missing].join(" ")}\n`);
}

async function opened<T extends { readonly model: { readonly info: { readonly parameters: number } } }>(open: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const task = await open();
  await write(dim(`  ${(task.model.info.parameters / 1e6).toFixed(1)} million parameters, loaded in ${milliseconds(started)}\n`));
  return task;
}

/** Prints a text, its result, and the time that it took. */
async function answered(text: string, answer: () => Promise<string>): Promise<void> {
  const started = performance.now();
  const result = await answer();
  await write(`  ${text} ${dim("→")} ${bold(result)} ${dim(milliseconds(started))}\n`);
}

/** The same, streamed. */
async function streamed(prompt: string, stream: TokenStream): Promise<void> {
  await write(`  ${bold(prompt)}`);
  for await (const token of stream) await write(token.text.replaceAll("\n", "\n  "));
  const { timings, usage } = await stream.result;
  await write(dim(`\n  ${usage.completionTokens} tokens: the first after ${timings.firstTokenMs.toFixed(0)} ms, ${timings.decodeTokensPerSecond.toFixed(0)} tokens/s\n`));
}

const scored = ({ label, score }: { label: string; score: number }): string => `${label} ${score.toFixed(2)}`;
const milliseconds = (since: number): string => `${(performance.now() - since).toFixed(0)} ms`;
