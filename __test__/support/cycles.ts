/** Prints this process's memory before and after 1,000 cycles, as JSON, and then ends by itself with an idle model. */
import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type GPT2, loadGPT2 } from "../../index.js";

const model = process.argv[2]!;
const endless = { maxNewTokens: 200, ignoreEos: true, seed: 1 };

async function cycle(shared: GPT2, index: number) {
  const finished = shared.generate("abc", { ...endless, maxNewTokens: 8, logprobs: 3 });
  const cancelled = shared.generate("abc", endless);
  const abandoned = shared.generate("abc", endless);
  const aborted = shared.generate("abc", { ...endless, signal: AbortSignal.timeout(1) });
  await cancelled.next();
  cancelled.cancel();
  await abandoned.next();
  await Promise.all([finished.result, cancelled.result, aborted.result.catch(() => {}), shared.encode("some text")]);
  // A model of its own, closed in the middle of a stream, or left to the garbage collector.
  const own = await loadGPT2(model, { threads: 1 });
  const stream = own.generate("abc", endless);
  await stream.next();
  if (index % 10 !== 0) await own.close();
}

const { gc } = globalThis as unknown as { gc(): void };

/** What was left to the collector goes every few cycles, so that the peak is the same in all of them. */
async function cycles(shared: GPT2, count: number) {
  for (let index = 1; index <= count; index++) {
    await cycle(shared, index);
    if (index % 10 === 0) gc();
  }
}

async function settled(): Promise<number> {
  for (let round = 0; round < 5; round++) {
    gc();
    await sleep(50);
  }
  return process.memoryUsage.rss();
}

const threads = () => {
  try {
    return readdirSync("/proc/self/task").length;
  } catch {
    return 0;
  }
};

async function main() {
  const shared = await loadGPT2(model, { threads: 1 });
  // Until the allocators have what they will keep.
  await cycles(shared, 500);
  const before = await settled();
  const threadsBefore = threads();
  await cycles(shared, 1000);
  const after = await settled();
  console.log(JSON.stringify({ before, after, threads: [threadsBefore, threads()] }));
}
void main();
