/** What a command reads: texts on the command line, files, or standard input, a row at a time. */
import { createReadStream, fstatSync } from "node:fs";
import { stat } from "node:fs/promises";
import { Option, type Command } from "commander";
import { CandlewickError } from "../errors.js";
import { RecordReader } from "./csv.js";
import { signal } from "./terminal.js";

/**
 * How files become rows: a text for each line, a JSON value for each line, a record of a table, or a file as one text.
 */
const READINGS = ["lines", "jsonl", "csv", "tsv", "whole"] as const;
export type Reading = (typeof READINGS)[number];

export interface InputArguments {
  file?: string[];
  from?: Reading;
  column?: string;
}

/**
 * A text, a JSON value or a table's record as an object; where it stands; and why it could not be read, if it could
 * not.
 */
export interface InputRow {
  readonly value: unknown;
  /** For messages: `reviews.txt:12`. */
  readonly where: string;
  readonly problem?: CandlewickError;
}

/** The options that {@link openInput} reads. */
export function withInputOptions(command: Command): Command {
  return command
    .option("-f, --file <path>", 'read a file, "-" for standard input; may be repeated', (path: string, before: string[] = []) => [...before, path])
    .addOption(
      new Option(
        "--from <what>",
        "what is in the files: a text per line, a JSON value per line, a table with a header, or one text (default: by the ending .jsonl, .csv, .tsv, else lines)",
      ).choices(READINGS),
    )
    .option("--column <name>", 'the column or key of a row that holds the text (default: "text", or the only column)');
}

/** The rows of a command, and how far they have been read. */
export interface Input {
  rows(): AsyncIterable<InputRow>;
  /** The total of what {@link Input.position} counts; 0: not known. */
  readonly total: number;
  position(): number;
}

/** Whether standard input is a pipe or a file; false for a terminal and for `/dev/null`. */
export function isPiped(): boolean {
  try {
    const input = fstatSync(0);
    return input.isFIFO() || input.isFile() || input.isSocket();
  } catch {
    return false;
  }
}

/**
 * Texts that were given come first, then the files; standard input if there are neither and it is no terminal. A row
 * that cannot be read is a row with a `problem`.
 *
 * @throws {CandlewickError} `IO`: a file that cannot be read. `INPUT_INVALID`: nothing to read.
 */
export async function openInput(texts: readonly string[], { file = [], from, column }: InputArguments, byDefault: Reading = "lines"): Promise<Input> {
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
      const reading = from ?? readingOf(path) ?? byDefault;
      const bytes = counted(bytesOf(path), (count) => (position += count));
      for await (const row of rowsOf(bytes, reading, path)) yield column === undefined ? row : withColumn(row, column);
    }
  }
  const known = sizes.filter((size) => size !== undefined);
  const given = texts.reduce((sum, text) => sum + text.length, 0);
  const total = known.length < sizes.length ? 0 : known.reduce((sum, size) => sum + size, given);
  return { rows, total, position: () => position };
}

/** A row's text: the line, or the object's `text`. Throws `INPUT_INVALID` for what has none. */
export function textOf({ value, where, problem }: InputRow): string {
  if (problem) throw problem;
  const text = typeof value === "object" && value !== null ? (value as { text?: unknown }).text : value;
  if (typeof text === "string") return text;
  const keys = typeof value === "object" && value !== null ? Object.keys(value) : [];
  const hint = keys.length > 0 ? ` (it has ${keys.slice(0, 8).join(", ")}: --column names one)` : "";
  throw new CandlewickError("INPUT_INVALID", `${where}: expected a text, or a row with a "text"${hint}`);
}

function readingOf(path: string): Reading | undefined {
  const ending = /\.(jsonl|ndjson|csv|tsv|tab)$/i.exec(path)?.[1]?.toLowerCase();
  return ending === undefined ? undefined : ending === "csv" ? "csv" : ending.startsWith("t") ? "tsv" : "jsonl";
}

function withColumn(row: InputRow, column: string): InputRow {
  const { value, where, problem } = row;
  if (problem || typeof value !== "object" || value === null) return row;
  if (Object.hasOwn(value, column)) return { ...row, value: { ...value, text: (value as Record<string, unknown>)[column] } };
  const message = `${where}: there is no column ${JSON.stringify(column)}, but ${Object.keys(value).join(", ")}`;
  return { ...row, problem: new CandlewickError("INPUT_INVALID", message) };
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    throw unreadable(path, error);
  }
}

async function* bytesOf(path: string): AsyncGenerator<Buffer> {
  try {
    const stream = path === "-" ? process.stdin : createReadStream(path, { signal });
    for await (const chunk of stream) {
      if (signal.aborted) throw new Error("Interrupted");
      yield chunk as Buffer;
    }
  } catch (error) {
    throw unreadable(path, error);
  }
}

async function* counted(bytes: AsyncIterable<Buffer>, count: (bytes: number) => void): AsyncGenerator<Buffer> {
  for await (const chunk of bytes) {
    yield chunk;
    count(chunk.length);
  }
}

async function* rowsOf(bytes: AsyncIterable<Buffer>, reading: Reading, path: string): AsyncGenerator<InputRow> {
  if (reading === "whole") {
    const chunks: Buffer[] = [];
    for await (const chunk of bytes) chunks.push(chunk);
    const { text, problem } = decode(Buffer.concat(chunks), path, 1);
    return yield { value: text, where: path, problem };
  }
  if (reading === "csv" || reading === "tsv") return yield* records(bytes, reading === "csv" ? "," : "\t", path);
  for await (const { text, where, problem } of linesOf(bytes, path)) {
    if (problem || reading === "lines") yield { value: text, where, problem };
    else if (text.trim() !== "") yield parsed(text, where);
  }
}

/** A table's records as objects, by the names of its first one. */
async function* records(bytes: AsyncIterable<Buffer>, separator: "," | "\t", path: string): AsyncGenerator<InputRow> {
  let header: string[] | undefined;
  let reader = new RecordReader(separator);
  let begin = "";
  const bad = (where: string, what: string): InputRow => ({ value: undefined, where, problem: new CandlewickError("INPUT_INVALID", `${where}: ${what}`) });
  for await (const { text, where, problem } of linesOf(bytes, path)) {
    if (!reader.begun) begin = where;
    if (problem) {
      reader = new RecordReader(separator);
      yield { value: undefined, where: begin, problem };
      continue;
    }
    if (!reader.begun && text === "") continue;
    let fields: string[] | undefined;
    try {
      fields = reader.push(text);
    } catch (error) {
      yield bad(begin, (error as Error).message);
      continue;
    }
    if (!fields) continue;
    if (!header) {
      header = fields;
      continue;
    }
    if (fields.length !== header.length) {
      yield bad(begin, `${fields.length} fields under ${header.length} columns`);
      continue;
    }
    const value: Record<string, string> = Object.fromEntries(header.map((name, i) => [name, fields[i]!]));
    // The only column is the text, whatever it is called.
    yield { value: header.length === 1 ? { ...value, text: fields[0]! } : value, where: begin };
  }
  if (reader.begun) yield bad(begin, "a quotation mark that opens here never closes");
}

interface Line {
  readonly text: string;
  readonly where: string;
  readonly problem: CandlewickError | undefined;
}

/** Lines, split at line feeds before they are decoded: bytes that are no UTF-8 are then known by line and column. */
async function* linesOf(bytes: AsyncIterable<Buffer>, path: string): AsyncGenerator<Line> {
  let number = 0;
  let rest: Buffer[] = [];
  const line = (parts: Buffer[]): Line => {
    const whole = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    number++;
    const { text, problem } = decode(whole, path, number);
    return { text: text.endsWith("\r") ? text.slice(0, -1) : text, where: `${path}:${number}`, problem };
  };
  for await (const chunk of bytes) {
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      yield line([...rest, chunk.subarray(from, at)]);
      rest = [];
      from = at + 1;
    }
    if (from < chunk.length) rest.push(chunk.subarray(from));
  }
  if (rest.length > 0) yield line(rest);
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** `first`: the number of the first line, whose byte order mark is no text. */
function decode(bytes: Buffer, path: string, first: number): { text: string; problem: CandlewickError | undefined } {
  try {
    const text = utf8.decode(bytes);
    return { text: first === 1 ? text.replace(/^\uFEFF/, "") : text, problem: undefined };
  } catch {
    const before = bytes.subarray(0, validLength(bytes)).toString("utf8");
    const lines = before.split("\n");
    const message = `${path}:${first + lines.length - 1}:${[...lines.at(-1)!].length + 1}: no UTF-8 (convert the file, for example with iconv -t utf-8)`;
    return { text: "", problem: new CandlewickError("INPUT_INVALID", message) };
  }
}

/** How many bytes at the beginning are UTF-8 of whole characters. */
function validLength(bytes: Buffer): number {
  const marks = bytes.toString("utf8");
  for (let at = marks.indexOf("\uFFFD"); at >= 0; at = marks.indexOf("\uFFFD", at + 1)) {
    const length = Buffer.byteLength(marks.slice(0, at));
    // A replacement character that stands in the text itself has three bytes of its own.
    if (!bytes.subarray(length, length + 3).equals(Buffer.from("\uFFFD"))) return length;
  }
  return bytes.length;
}

function parsed(line: string, where: string): InputRow {
  try {
    return { value: JSON.parse(line), where };
  } catch (error) {
    return { value: undefined, where, problem: new CandlewickError("INPUT_INVALID", `${where}: no JSON: ${(error as Error).message}`) };
  }
}

function unreadable(path: string, error: unknown): CandlewickError {
  if (error instanceof CandlewickError) return error;
  if (signal.aborted) return new CandlewickError("ABORTED", "Interrupted", { cause: error });
  return new CandlewickError("IO", `${path}: ${(error as Error).message}`, { cause: error });
}
