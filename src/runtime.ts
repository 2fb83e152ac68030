import { abortError, CandlewickError, fromNative } from "./errors.js";
import { native, type Settled } from "./native.js";

export type Cancel = InstanceType<typeof native.Cancel>;

type OnProgress = (loaded: number, total: number) => void;
/** Called with a call's notes beside its progress; must not throw. */
type OnNote = (note: number) => void;

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  /** Must not throw: {@link abortable} guarantees it. */
  onProgress: OnProgress | undefined;
  onNote: OnNote | undefined;
}

const pending = new Map<number, Pending>();
let lastId = 0;

/** This environment's (the main thread's or a worker's) channel from the engine; see `crates/node/src/mailbox.rs`. */
export const mailbox = new native.Mailbox(settle);

/**
 * Calls the engine: `start` passes the id on to a native method, whose answer settles the promise. Node stays alive
 * while a call is pending. What `start` throws rejects the promise.
 */
export function call<T>(start: (id: number) => void, onProgress?: OnProgress, onNote?: OnNote): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const id = nextId();
    try {
      start(id);
    } catch (error) {
      return reject(fromNative(error));
    }
    pending.set(id, { resolve: resolve as (value: unknown) => void, reject, onProgress, onNote });
    if (pending.size === 1) mailbox.hold();
  });
}

/**
 * A call that `signal` can end: the engine stops at its next chance, then the promise is rejected with `ABORTED`. So
 * when it is settled, nothing computes any more. What `onProgress` throws ends it in the same way, and is what it is
 * rejected with.
 */
export async function abortable<T>(
  signal: AbortSignal | undefined,
  start: (id: number, cancel: Cancel) => void,
  onProgress?: OnProgress,
  onNote?: OnNote,
): Promise<T> {
  if (signal?.aborted) throw abortError(signal);
  const cancel = new native.Cancel();
  const stop = () => cancel.cancel();
  let thrown: { error: unknown } | undefined;
  const report: OnProgress = (loaded, total) => {
    if (thrown) return;
    try {
      onProgress?.(loaded, total);
    } catch (error) {
      thrown = { error };
      stop();
    }
  };
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const value = await call<T>((id) => start(id, cancel), onProgress && report, onNote);
    // The last report may have thrown when there was nothing left to stop.
    if (thrown) throw thrown.error;
    return value;
  } catch (error) {
    stop();
    if (thrown) throw thrown.error;
    throw signal?.aborted ? abortError(signal) : error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

/** Runs a synchronous native call; what it throws is a `CandlewickError`. */
export function callSync<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw fromNative(error);
  }
}

function settle(): void {
  let answers: Settled[];
  try {
    answers = mailbox.take();
  } catch (error) {
    return fail(error);
  }
  for (const { id, progress, code, message, retryAfterMs, index, value } of answers) {
    const waiter = pending.get(id);
    if (!waiter) continue;
    if (progress) {
      if (progress.length === 1) waiter.onNote?.(progress[0]!);
      else waiter.onProgress?.(progress[0]!, progress[1]!);
      continue;
    }
    pending.delete(id);
    if (code === undefined) waiter.resolve(value);
    else waiter.reject(fromNative({ code, message, retryAfterMs, index }));
  }
  if (pending.size === 0) mailbox.release();
}

/** Answers were lost, and their calls are not known: every pending call is rejected, so that none hangs. */
function fail(cause: unknown): void {
  const error = new CandlewickError("INTERNAL", "The native addon's answers could not be read", { cause });
  const waiters = [...pending.values()];
  pending.clear();
  mailbox.release();
  for (const waiter of waiters) waiter.reject(error);
}

function nextId(): number {
  do lastId = (lastId + 1) >>> 0;
  while (pending.has(lastId));
  return lastId;
}
