// Candlewick on the device that the kit asks for, as its users get it: the package through its public API, in a process
// of its own, which may fail without harm to the kit. run.ts is the other end.
import { readFileSync, writeFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { loadBERT, loadGPT2 } from "candlewick";
import { faults } from "./faults.mjs";
import { invariance } from "./invariance.mjs";
import { greedy, idsOf, reader } from "./lib.mjs";
import { serve } from "../workers/protocol.mjs";

let gpt2;
let bert;

/** Milliseconds between two looks of the monitor: what it records beyond them is the lag. */
const LOOK = 1;

/** What `work` gives, with `lag`: the 99th percentile and the longest, in milliseconds, of how late a timer came. */
async function lagging(work) {
  const monitor = monitorEventLoopDelay({ resolution: LOOK });
  monitor.enable();
  const answer = await work();
  monitor.disable();
  const late = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - LOOK);
  const lag = monitor.count > 0 ? { p99: late(monitor.percentile(99)), max: late(monitor.max) } : null;
  return { ...answer, lag };
}

let encoded;

/** The texts of `file`, and their ids, tokenised once. */
async function idsOfTexts(file) {
  if (encoded?.file !== file) {
    const texts = JSON.parse(readFileSync(file, "utf8"));
    encoded = { file, texts, inputs: (await bert.encode(texts, { maxLength: 512 })).map(({ ids }) => ({ ids })) };
    encoded.tokens = encoded.inputs.reduce((sum, { ids }) => sum + ids.length, 0);
  }
  return encoded;
}

await serve({
  async open({ kind, path, ...options }) {
    const begin = performance.now();
    const model = await (kind === "bert" ? loadBERT(path, options) : loadGPT2(path, options));
    if (kind === "bert") bert = model;
    else gpt2 = model;
    encoded = undefined;
    return { ms: performance.now() - begin, info: model.info, stats: model.stats() };
  },

  async close() {
    await gpt2?.close();
    await bert?.close();
    gpt2 = bert = encoded = undefined;
  },

  /** A prompt of ids to its first tokens. */
  async greedy({ ids, tokens }) {
    return (await gpt2.generate(ids, greedy(tokens)).result).tokens.map(({ id }) => id);
  },

  /**
   * `lengths`: of each stream's prompt. `milliseconds` to the first and to the last token of all, and what was
   * delivered while all streams were decoding: tokens, milliseconds, and the mean context that they were computed in.
   */
  async streams({ lengths, tokens, seed }) {
    const prompts = lengths.map((length, i) => idsOf(length, gpt2.info.vocabularySize, seed + i));
    return lagging(async () => {
      const begin = performance.now();
      const all = await Promise.all(prompts.map((ids) => reader(gpt2.generate(ids, greedy(tokens)), begin)));
      const from = Math.max(...all.map((times) => times[0]));
      const to = Math.min(...all.map((times) => times.at(-1)));
      let [count, context] = [0, 0];
      all.forEach((times, stream) =>
        times.forEach((time, i) => {
          if (time <= from || time > to) return;
          count++;
          context += lengths[stream] + i;
        }),
      );
      const whole = Math.max(...all.map((times) => times.at(-1)));
      return { first: from, whole, steady: { tokens: count, ms: Math.max(0, to - from), context: count && context / count } };
    });
  },

  /** When each token of one stream came, in milliseconds since the call. */
  async decode({ context, tokens, seed }) {
    const prompt = idsOf(context, gpt2.info.vocabularySize, seed);
    return lagging(async () => ({ times: await reader(gpt2.generate(prompt, greedy(tokens)), performance.now()) }));
  },

  /** Milliseconds to the first token of each of `count` prompts, all of them there. */
  async prefill({ count, length, seed }) {
    const prompts = Array.from({ length: count }, (_, i) => idsOf(length, gpt2.info.vocabularySize, seed + i));
    return lagging(async () => {
      const begin = performance.now();
      await Promise.all(prompts.map((ids) => gpt2.generate(ids, greedy(1)).next()));
      return { ms: performance.now() - begin };
    });
  },

  /** Milliseconds of `calls` calls with `count` texts each, one after the other or `inFlight` at once. */
  async encode({ count, length, seed, calls, inFlight }) {
    const batch = (call) =>
      Array.from({ length: count }, (_, i) => ({ ids: idsOf(length, bert.info.vocabularySize, seed + 1000 * call + i) }));
    const batches = Array.from({ length: calls }, (_, call) => batch(call));
    return lagging(async () => {
      const begin = performance.now();
      let next = 0;
      const one = async () => {
        while (next < calls) await bert.forward(batches[next++], { lastHiddenState: false });
      };
      await Promise.all(Array.from({ length: inFlight }, one));
      return { ms: performance.now() - begin };
    });
  },

  /** Vectors of the texts of a file: of text, or, as pooled states, of ids. */
  async texts({ file, fromIds }) {
    const { texts, inputs, tokens } = await idsOfTexts(file);
    return lagging(async () => {
      const begin = performance.now();
      await (fromIds ? bert.forward(inputs, { lastHiddenState: false }) : bert.embed(texts, { maxLength: 512 }));
      return { ms: performance.now() - begin, texts: texts.length, tokens };
    });
  },

  /** For parity.py: greedy and sampled continuations, all at once, with log-probabilities, as JSON into `file`. */
  async generations({ lengths, tokens, file }) {
    const cases = lengths.map((length, i) => ({ greedy: i % 2 === 0, prompt: [...idsOf(length, gpt2.info.vocabularySize, 77 + i)] }));
    const results = await Promise.all(
      cases.map(({ greedy: likeliest, prompt }, seed) =>
        gpt2.generate(prompt, { ...greedy(tokens), ...(!likeliest && { temperature: 1, seed }), logprobs: 20 }).result),
    );
    const written = cases.map((one, i) => ({
      ...one,
      tokens: results[i].tokens.map(({ id }) => id),
      logprobs: results[i].tokens.map(({ logprob }) => logprob),
      top: results[i].tokens.map(({ topLogprobs }) => topLogprobs.map(({ id, logprob }) => [id, logprob])),
    }));
    writeFileSync(file, JSON.stringify(written));
  },

  /** For parity.py: the ids of texts into `inputs`, and of each text its states and its pooled vector into `file`. */
  async states({ lengths, inputs, file }) {
    const texts = lengths.map((length, i) => ({ ids: idsOf(length, bert.info.vocabularySize, 77 + i) }));
    const outputs = await bert.forward(texts);
    writeFileSync(inputs, JSON.stringify(texts.map(({ ids }) => [...ids])));
    writeFileSync(file, floats(outputs.flatMap(({ lastHiddenState, pooled }) => [lastHiddenState.data, pooled])));
  },

  /** For parity.py: vectors of the first texts of a file. */
  async vectors({ texts, count, file }) {
    const some = JSON.parse(readFileSync(texts, "utf8")).slice(0, count);
    writeFileSync(file, floats(await bert.embed(some, { maxLength: 512 })));
  },

  invariance: (args) => invariance({ gpt2, bert, ...args }),

  faults,

  /** In a fresh process: to the first token. */
  async load({ path, ...options }) {
    const model = await loadGPT2(path, options);
    const loaded = performance.now();
    await model.generate(idsOf(16, model.info.vocabularySize, 1), greedy(1)).next();
    return { loaded, first: performance.now() };
  },
});

function floats(arrays) {
  return Buffer.concat(arrays.map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength)));
}
