/** Rows through a task: batches ahead of the reader, but only a few. */
import { abortError, CandlewickError, type ErrorCode } from "../errors.js";
import { invalid } from "../options.js";

/** What may be streamed: an array, a generator, a web or Node stream of rows, the lines of a file. */
export type Inputs<Input> = Iterable<Input> | AsyncIterable<Input>;

export interface StreamOptions<OnError extends "throw" | "row" = "throw" | "row"> {
  /**
   * What a bad row does: `"throw"` ends the stream there, with its error; `"row"` makes a row with an `error`, and goes
   * on. Default `"throw"`.
   */
  onError?: OnError;
  /** Called with the number of finished rows; the total is not known. */
  onProgress?: (progress: { readonly done: number; readonly total: number }) => void;
}

/** An input of a stream and its result. */
export interface Row<Input, Result> {
  /** Its place in the stream, from 0. */
  readonly index: number;
  readonly input: Input;
  readonly result: Result;
  readonly error?: undefined;
}

/** An input that failed. */
export interface FailedRow<Input> {
  readonly index: number;
  readonly input: Input;
  readonly result?: undefined;
  readonly error: CandlewickError;
}

/** Rows per batch. */
const BATCH = 128;
/** Batches at work: the engine is never without one while another is being yielded. */
const AHEAD = 2;

/** The faults of a row; any other error is the call's. */
const ROW_FAULTS: readonly ErrorCode[] = ["INPUT_INVALID", "CONTEXT_OVERFLOW", "PROMPT_EMPTY"];

type AnyRow<Input, Result> = Row<Input, Result> | FailedRow<Input>;
type Run<Input, Result> = (batch: readonly Input[], signal: AbortSignal) => Promise<Result[]>;

interface Streaming {
  readonly onError: "throw" | "row";
  readonly onProgress: StreamOptions["onProgress"];
  readonly signal: AbortSignal | undefined;
}

/** An input as it was given, or as it was read from a file. */
type Entry<Input> = { index: number; input: unknown; read?: Input; error?: CandlewickError };

export function streamRows<Input, Result>(
  name: string,
  inputs: Inputs<unknown>,
  streaming: Streaming,
  read: (input: unknown) => Input,
  run: Run<Input, Result>,
): AsyncGenerator<AnyRow<Input, Result>, undefined> {
  const source = iterate(name, inputs);
  if (streaming.onError !== "throw" && streaming.onError !== "row") {
    throw invalid(name, "onError", 'must be one of "throw", "row"', streaming.onError);
  }
  return rows(source, streaming, read, run);
}

async function* rows<Input, Result>(
  source: AsyncIterator<unknown> | Iterator<unknown>,
  { onError, onProgress, signal }: Streaming,
  read: (input: unknown) => Input,
  run: Run<Input, Result>,
): AsyncGenerator<AnyRow<Input, Result>, undefined> {
  const leaving = new AbortController();
  const abort = () => leaving.abort(signal!.reason);
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort, { once: true });

  const aborted = new Promise<never>((_, reject) => {
    leaving.signal.addEventListener("abort", () => reject(abortError(leaving.signal)), { once: true });
  });
  aborted.catch(() => {});

  const running: Promise<AnyRow<Input, Result>[]>[] = [];
  let batch: Entry<Input>[] = [];
  let next: Promise<void> | undefined;
  let index = 0;
  let over = false;
  let failure: { error: unknown } | undefined;

  const begin = () => {
    const started = runBatch(batch, leaving.signal, run);
    started.catch(() => {});
    running.push(started);
    batch = [];
  };
  /** Reads the next input from the source. */
  const take = (taken: IteratorResult<unknown>) => {
    next = undefined;
    if (taken.done) return void (over = true);
    batch.push(readEntry(taken.value, index++, read));
  };
  const fail = (error: unknown) => {
    next = undefined;
    failure = { error };
    over = true;
  };

  try {
    for (;;) {
      if (over && batch.length === 0 && running.length === 0) break;
      if (leaving.signal.aborted) throw abortError(leaving.signal);
      const full = batch.length >= BATCH || (over && batch.length > 0);
      if (full && running.length < AHEAD) {
        begin();
        continue;
      }
      if (!over && !full) {
        next ??= pull(source).then(take, fail);
        // A source that has nothing right now must not hold up what came before.
        const idle = running.length > 0 ? running[0]! : batch.length > 0 ? pause() : undefined;
        const first = await Promise.race([next, aborted, ...(idle ? [idle.then(isIdle, isIdle)] : [])]);
        if (!first) continue;
        if (running.length === 0) {
          begin();
          continue;
        }
      }
      for (const row of await running.shift()!) {
        if (row.error && onError === "throw") throw row.error.at(row.index, "Row");
        onProgress?.({ done: row.index + 1, total: 0 });
        yield row;
      }
    }
    if (failure) throw failure.error;
  } finally {
    signal?.removeEventListener("abort", abort);
    leaving.abort();
    await Promise.allSettled(running);
    // A pull that is still pending would make `return()` of a generator wait for it.
    if (!over) void Promise.resolve(source.return?.()).catch(() => {});
  }
}

async function runBatch<Input, Result>(
  batch: readonly Entry<Input>[],
  signal: AbortSignal,
  run: Run<Input, Result>,
): Promise<AnyRow<Input, Result>[]> {
  const good = batch.filter((entry) => !entry.error);
  const outcomes = good.length > 0 ? await outcomesOf(good.map((entry) => entry.read!), signal, run) : [];
  let at = 0;
  return batch.map(({ index, input, error }) => {
    const outcome = error ? { error } : outcomes[at++]!;
    return { index, input: input as Input, ...outcome } as AnyRow<Input, Result>;
  });
}

/** Each input's result, or the fault that it has; a batch with a fault in it runs again, row by row. */
async function outcomesOf<Input, Result>(
  inputs: readonly Input[],
  signal: AbortSignal,
  run: Run<Input, Result>,
): Promise<({ result: Result } | { error: CandlewickError })[]> {
  try {
    return (await run(inputs, signal)).map((result) => ({ result }));
  } catch (error) {
    if (!isRowFault(error)) throw error;
    if (inputs.length === 1) return [{ error }];
    const parts = await Promise.all(inputs.map((input) => outcomesOf([input], signal, run)));
    return parts.flat();
  }
}

const isRowFault = (error: unknown): error is CandlewickError => error instanceof CandlewickError && ROW_FAULTS.includes(error.code);

function readEntry<Input>(input: unknown, index: number, read: (input: unknown) => Input): Entry<Input> {
  try {
    return { index, input, read: read(input) };
  } catch (error) {
    if (!(error instanceof CandlewickError)) throw error;
    return { index, input, error };
  }
}

function iterate(name: string, inputs: unknown): AsyncIterator<unknown> | Iterator<unknown> {
  const source = (typeof inputs === "string" ? undefined : inputs) as Partial<AsyncIterable<unknown> & Iterable<unknown>> | null | undefined;
  const iterator = source?.[Symbol.asyncIterator]?.() ?? source?.[Symbol.iterator]?.();
  if (iterator) return iterator;
  throw invalid(name, "the stream's input", "must be an iterable or an async iterable", inputs);
}

async function pull(source: AsyncIterator<unknown> | Iterator<unknown>): Promise<IteratorResult<unknown>> {
  const taken = await source.next();
  // A synchronous iterable may have promises in it.
  return taken.done ? taken : { done: false, value: await taken.value };
}

const isIdle = (): boolean => true;
const pause = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
