import { parseArgs } from "node:util";

/** One row per option: what reads the command line and what `--help` prints are the same table. */
const table = {
  model: { value: "PATH", help: "a folder with a GPT-2, a .gguf file or a hub id; the model that ships if left out" },
  "max-new-tokens": { value: "N", help: "how many tokens at most (default 80)" },
  temperature: { value: "X", help: "0 picks the likeliest token, higher is freer (default 0.8)" },
  "top-k": { value: "N", help: "choose among the N likeliest tokens (default 50)" },
  "top-p": { value: "X", help: "choose among the likeliest tokens that make up this probability (default 0.95)" },
  "repetition-penalty": { value: "X", help: "above 1, words that were said become less likely (default 1.1)" },
  seed: { value: "N", help: "the same seed gives the same text (default 7)" },
  threads: { value: "N", help: "how many threads compute (default: one for each core)" },
  help: { value: "", help: "print this" },
} as const;

type Name = keyof typeof table;

export interface Command {
  help: boolean;
  prompt: string | undefined;
  model: string | undefined;
  threads: number | undefined;
  generation: {
    maxNewTokens: number;
    temperature: number;
    topK: number;
    topP: number;
    repetitionPenalty: number;
    seed: number;
  };
}

/** The command line cannot be read; the message says why, for the person who typed it. */
export class UsageError extends Error {}

export function usage(): string {
  const rows = Object.entries(table).map(([name, { value, help }]) => [`--${name} ${value}`.trimEnd(), help] as const);
  const width = Math.max(...rows.map(([left]) => left.length));
  return [
    'npm start [-- ["prompt"] [options]]',
    "",
    "Continues the prompt, or two prompts of its own, with a GPT-2 that runs on this machine.",
    "",
    ...rows.map(([left, help]) => `  ${left.padEnd(width)}  ${help}`),
    "",
    'For instance: npm start -- "Once upon a time" --max-new-tokens 200 --seed 3',
  ].join("\n");
}

export function readCommand(args: string[]): Command {
  const { values, positionals } = parse(args);
  /** A number, whole or not: its range is the library's business, which knows it. */
  const number = (name: Name, otherwise?: number) => {
    const text = values[name];
    if (text === undefined) return otherwise;
    const value = Number(text);
    if (text.trim() === "" || Number.isNaN(value)) throw new UsageError(`--${name} takes a number, not "${text}"`);
    return value;
  };
  return {
    help: "help" in values,
    prompt: positionals.length > 0 ? positionals.join(" ") : undefined,
    model: values.model,
    threads: number("threads"),
    generation: {
      maxNewTokens: number("max-new-tokens", 80)!,
      temperature: number("temperature", 0.8)!,
      topK: number("top-k", 50)!,
      topP: number("top-p", 0.95)!,
      repetitionPenalty: number("repetition-penalty", 1.1)!,
      seed: number("seed", 7)!,
    },
  };
}

function parse(args: string[]): { values: Partial<Record<Name, string>>; positionals: string[] } {
  const options = Object.fromEntries(
    Object.entries(table).map(([name, { value }]) => [
      name,
      { type: value ? "string" : "boolean", ...(name === "help" && { short: "h" }) } as const,
    ]),
  );
  try {
    return parseArgs({ args, options, allowPositionals: true }) as ReturnType<typeof parse>;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}
