/**
 * What sessions and batches save, on the model that ships: the wait for a reply's first token with and without the
 * engine's cache, translations together and one by one, and the event loop meanwhile.
 *
 *   node --import tsx benchmark/applications.ts
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { loadGPT2, pipeline, type Message } from "../index.js";
import { defaultModelPath } from "../src/package.js";

const ROUNDS = 15;
const threads = 2;
const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** Exchanges of some 400 tokens together, of the 512 that the model has. */
const history: Message[] = Array.from({ length: 24 }, (_, i) => ({
  role: i % 2 ? "assistant" : "user",
  content: i % 2 ? "I have not the pleasure of understanding you, sir." : `What do you say to that, number ${i}?`,
}));
const options = { temperature: 0, maxNewTokens: 16, ignoreEos: true };

async function firstToken(cached: boolean): Promise<{ wait: number; prompt: number; computed: number }> {
  await using model = await loadGPT2(defaultModelPath, { threads });
  const chat = await pipeline("dialogue", model, options);
  // Whatever is slow the first time is not what is measured.
  await chat("Good morning to you all, and to the rest of the house.");
  await using session = chat.session({ messages: history });
  if (cached) await session.say("And then?").result;
  const { usage, timings } = await session.say("And after that?").result;
  return { wait: timings.firstTokenMs, prompt: usage.promptTokens, computed: usage.promptTokens - usage.cachedTokens };
}

async function main(): Promise<void> {
  for (const cached of [false, true]) {
    const turns = [];
    for (let round = 0; round < ROUNDS; round++) turns.push(await firstToken(cached));
    const { prompt, computed } = turns[0]!;
    const wait = median(turns.map(({ wait }) => wait));
    console.log(`a turn ${cached ? "in a session" : "without a cache"}: ${computed} of ${prompt} tokens computed, the first token after ${wait.toFixed(1)} ms`);
  }

  await using translate = await pipeline("translation", defaultModelPath, { threads, maxNewTokens: 32, ignoreEos: true });
  const texts = Array.from({ length: 64 }, (_, i) => `Could not open file number ${i} for writing`);
  const lag = monitorEventLoopDelay({ resolution: 1 });
  const together: number[] = [];
  const alone: number[] = [];
  lag.enable();
  for (let round = 0; round < 3; round++) {
    let started = performance.now();
    await translate(texts);
    together.push((performance.now() - started) / texts.length);
    started = performance.now();
    for (const text of texts) await translate(text);
    alone.push((performance.now() - started) / texts.length);
  }
  lag.disable();
  console.log(`a translation, 4 beams, 32 tokens: ${median(alone).toFixed(1)} ms one by one, ${median(together).toFixed(1)} ms of ${texts.length} together`);
  console.log(`event loop's lag meanwhile: p99 ${(lag.percentile(99) / 1e6).toFixed(1)} ms, at most ${(lag.max / 1e6).toFixed(1)} ms`);
}

void main();
