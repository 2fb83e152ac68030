/** What a command reads: texts on the command line, files, or standard input, a row at a time. */
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createInterface } from "node:readline";
import { Option, type Command } from "commander";
import { CandlewickError } from "../errors.js";
import { signal } from "./terminal.js";

/** How files become rows: a text for each line, a JSON value for each line, or a file as one text. */
export type Reading = "lines" | "jsonl" | "whole";

export interface InputArguments {
  file?: string[];
  from?: Reading;
}

/** A text or a JSON value, and where it stands. */
export interface InputRow {
  readonly value: unknown;
  /** For messages: `reviews.txt:12`. */
  readonly where: string;
}

/** The options that {@link openInput} reads. */
export function withInputOptions(command: Command): Command {
  return command
    .option("-f, --file <path>", 'read a file, "-" for standard input; may be repeated', (path: string, before: string[] = []) => [...before, path])
    .addOption(
      new Option("--from <what>", "what is in the files: a text per line, a JSON value per line, or one text (default: jsonl for *.jsonl, else lines)").choices([
        "lines",
        "jsonl",
        "whole",
      ]),
    );
}

/** The rows of a command, and how far they have been read. */
export interface Input {
  rows(): AsyncIterable<InputRow>;
  /** Of what {@link Input.position} counts; 0: nobody knows. */
  readonly total: number;
  position(): number;
}

/**
 * Texts that were given come first, then the files; standard input if there are neither and it is no terminal.
 *
 * @throws {CandlewickError} `IO`: a file that cannot be read. `INPUT_INVALID`: nothing to read, or a line that is no JSON.
 */
export async function openInput(texts: readonly string[], { file = [], from }: InputArguments): Promise<Input> {
  const files = texts.length === 0 && file.length === 0 ? ["-"] : file;
  if (files.includes("-") && process.stdin.isTTY) {
    throw new CandlewickError("INPUT_INVALID", "Nothing to read: give texts, --file, or text on standard input (--help says more)");
  }
  const sizes = await Promise.all(files.map((path) => (path === "-" ? undefined : sizeOf(path))));
  let position = 0;
  async function* rows(): AsyncGenerator<InputRow> {
    for (const [index, text] of texts.entries()) {
      position += text.length;
      yield { value: text, where: `argument ${index + 1}` };
    }
    for (const path of files) {
      const reading = from ?? (/\.(jsonl|ndjson)$/i.test(path) ? "jsonl" : "lines");
      for await (const [line, number] of read(path, reading)) {
        position += Buffer.byteLength(line) + 1;
        const where = number === 0 ? path : `${path}:${number}`;
        if (reading !== "jsonl") yield { value: line, where };
        else if (line.trim() !== "") yield { value: parse(line, where), where };
      }
    }
  }
  const known = sizes.filter((size) => size !== undefined);
  const given = texts.reduce((sum, text) => sum + text.length, 0);
  const total = known.length < sizes.length ? 0 : known.reduce((sum, size) => sum + size, given);
  return { rows, total, position: () => position };
}

/** A row's text: the line, or the JSON value's `text`. Throws `INPUT_INVALID` for what has none. */
export function textOf({ value, where }: InputRow): string {
  const text = typeof value === "object" && value !== null ? (value as { text?: unknown }).text : value;
  if (typeof text === "string") return text;
  throw new CandlewickError("INPUT_INVALID", `${where}: expected a text, or an object with a "text"`);
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    throw unreadable(path, error);
  }
}

/** Lines with their numbers, or the whole file with the number 0. */
async function* read(path: string, reading: Reading): AsyncGenerator<readonly [text: string, line: number]> {
  try {
    if (reading === "whole" && path !== "-") return yield [await readFile(path, { encoding: "utf8", signal }), 0] as const;
    const stream = path === "-" ? process.stdin : createReadStream(path);
    stream.setEncoding("utf8");
    if (reading === "whole") {
      let text = "";
      for await (const chunk of stream) text += chunk;
      return yield [text, 0] as const;
    }
    let number = 0;
    for await (const line of createInterface({ input: stream, crlfDelay: Infinity, signal })) {
      // A byte order mark is no text.
      yield [number === 0 ? line.replace(/^\uFEFF/, "") : line, ++number] as const;
    }
  } catch (error) {
    if (error instanceof CandlewickError) throw error;
    throw unreadable(path, error);
  }
}

function parse(line: string, where: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new CandlewickError("INPUT_INVALID", `${where}: no JSON: ${(error as Error).message}`);
  }
}

function unreadable(path: string, error: unknown): CandlewickError {
  if (signal.aborted) return new CandlewickError("ABORTED", "Interrupted", { cause: error });
  return new CandlewickError("IO", `${path}: ${(error as Error).message}`, { cause: error });
}
