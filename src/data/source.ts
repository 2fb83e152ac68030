/** Data sets as users give them, as files that the addon reads. */
import { mkdtemp, open, rm, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { abortError, CandlewickError } from "../errors.js";
import { invalid } from "../options.js";

/** A row: its columns by name. */
export type DataRow = Readonly<Record<string, unknown>>;

/**
 * A file (JSON lines, CSV, TSV, plain text), several that are one data set, or rows. Rows that are iterated are written
 * to a temporary file first, at their own pace, so that there may be more of them than memory holds.
 */
export type DataSource = string | readonly string[] | Iterable<DataRow> | AsyncIterable<DataRow>;

export interface OpenData extends AsyncDisposable {
  /** Absolute. */
  readonly paths: string[];
}

/** Bytes between two writes. */
const CHUNK = 1 << 16;

/**
 * @throws {CandlewickError} `OPTION_INVALID`: no source of rows, or a format of what is no file. `DATA_INVALID`:
 *   something in it that is no row, or an error of the iteration itself, which is the `cause`. `DATA_EMPTY`: nothing.
 *   `IO`: the temporary folder cannot be written. `ABORTED`.
 */
export async function openData(
  where: string,
  data: DataSource,
  { format, signal }: { format?: unknown; signal?: AbortSignal } = {},
): Promise<OpenData> {
  if (typeof data === "string" && data !== "") return files([data]);
  if (Array.isArray(data)) {
    if (data.length === 0) throw new CandlewickError("DATA_EMPTY", `${where}: no rows`);
    if (data.every((path) => typeof path === "string" && path !== "")) return files(data as string[]);
  }
  if (format !== undefined) throw invalid(where, "format", "is that of files, and has no effect on rows", format);
  return spool(where, data as Iterable<DataRow>, "jsonl", toLine, signal);
}

const files = (paths: readonly string[]): OpenData => ({
  paths: paths.map((path) => resolve(path)),
  async [Symbol.asyncDispose]() {},
});

function toLine(value: unknown, index: number): string {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new CandlewickError("DATA_INVALID", `row ${index + 1}: a row must be an object, {text: …}`);
  }
  try {
    return JSON.stringify(value);
  } catch (cause) {
    throw new CandlewickError("DATA_INVALID", `row ${index + 1}: ${(cause as Error).message}`, { cause });
  }
}

/** A temporary file with a line for each value; it is gone when what is returned is disposed of. */
export async function spool<T>(
  where: string,
  values: Iterable<T> | AsyncIterable<T>,
  ending: string,
  line: (value: unknown, index: number) => string,
  signal?: AbortSignal,
): Promise<OpenData> {
  const iterable = values as Partial<Iterable<T> & AsyncIterable<T>> | null | undefined;
  if (typeof values === "string" || !(iterable?.[Symbol.asyncIterator] ?? iterable?.[Symbol.iterator])) {
    throw invalid(where, "data", "must be a path, paths, or an iterable", values);
  }
  const folder = await written(where, mkdtemp(join(tmpdir(), "candlewick-data-")));
  const path = join(folder, `data.${ending}`);
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const file = await written(where, open(path, "w"));
    try {
      const count = await pour(where, values, file, line, signal);
      if (count === 0) throw new CandlewickError("DATA_EMPTY", `${where}: no rows`);
    } finally {
      await file.close();
    }
  } catch (error) {
    await remove();
    if (error instanceof CandlewickError) throw error;
    throw new CandlewickError("DATA_INVALID", `${where}: the iteration of rows threw: ${(error as Error)?.message}`, { cause: error });
  }
  return { paths: [path], [Symbol.asyncDispose]: remove };
}

async function pour<T>(
  where: string,
  values: Iterable<T> | AsyncIterable<T>,
  file: FileHandle,
  line: (value: unknown, index: number) => string,
  signal?: AbortSignal,
): Promise<number> {
  let lines: string[] = [];
  let size = 0;
  let count = 0;
  // An await for each chunk is also what lets timers run between the rows of a long array.
  const flush = async () => {
    await written(where, file.write(lines.join("")));
    [lines, size] = [[], 0];
  };
  for await (const value of values) {
    if (signal?.aborted) throw abortError(signal);
    const text = `${line(value, count++)}\n`;
    lines.push(text);
    if ((size += text.length) >= CHUNK) await flush();
  }
  await flush();
  return count;
}

async function written<T>(where: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    throw new CandlewickError("IO", `${where}: rows cannot be kept: ${(cause as Error).message}`, { cause });
  }
}
