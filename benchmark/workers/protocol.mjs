// The other end of benchmark/child.ts: a request is a line of JSON `{op, args}`, its answer a line `{result}` or
// `{error}`. One request at a time. Other lines on standard output, a library's own, are passed over by the reader.
import { createInterface } from "node:readline";

/** Answers requests with what `operations[op](args)` resolves to; ends with standard input. */
export async function serve(operations) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { op, args } = JSON.parse(line);
    let answer;
    try {
      if (!operations[op]) throw new Error(`no ${op} here`);
      answer = { result: (await operations[op](args)) ?? null };
    } catch (error) {
      answer = { error: String(error?.message ?? error).split("\n")[0] };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  process.exit(0);
}

/**
 * Reads an async iterable of tokens to the end, or to `count` of them; when each came, in milliseconds since `begin`.
 * Leaving the loop is not in the times.
 */
export async function timed(tokens, count, begin, idOf) {
  const times = [];
  const ids = [];
  for await (const token of tokens) {
    times.push(performance.now() - begin);
    ids.push(idOf(token));
    if (times.length === count) break;
  }
  return { times, ids };
}

/** Delays of a timer of 5 ms, in milliseconds over the 5, while `work` runs again and again for `seconds`. */
export async function delaysDuring(seconds, work) {
  const delays = [];
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    delays.push(Math.max(0, now - last - 5));
    last = now;
  }, 5);
  const end = performance.now() + seconds * 1000;
  do await work();
  while (performance.now() < end);
  // The last delay ends with the timer's next turn.
  await new Promise((resolve) => setTimeout(resolve, 20));
  clearInterval(timer);
  return delays;
}

/** A few numbers of a (tokens, width) output, for comparing contenders: the first text's first row. */
export const sample = (data) => Array.from(data.subarray(0, 8));

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
