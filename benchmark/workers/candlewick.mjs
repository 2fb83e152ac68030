// Candlewick, as its users get it: the built package, through its public API.
import { readFileSync } from "node:fs";
import { loadBERT, loadGPT2 } from "candlewick";
import { delaysDuring, sample, serve, sleep, timed } from "./protocol.mjs";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const greedy = (tokens) => ({ temperature: 0, ignoreEos: true, maxNewTokens: tokens });
const idOf = (token) => token.id;

let gpt2;
let bert;

/** Most memory that this process has had, in bytes. */
const peak = () => process.resourceUsage().maxRSS * 1024;

await serve({
  hello: () => ({ version }),

  async open({ kind, path, dtype, threads }) {
    if (kind === "bert") bert = await loadBERT(path, { dtype, threads });
    else gpt2 = await loadGPT2(path, { dtype, threads });
  },

  async close() {
    await gpt2?.close();
    await bert?.close();
    gpt2 = bert = undefined;
  },

  async generate({ ids, tokens }) {
    const begin = performance.now();
    const stream = gpt2.generate(ids, greedy(tokens));
    const answer = await timed(stream, tokens, begin, idOf);
    const { usage } = await stream.result;
    return { ...answer, cached: usage.cachedTokens };
  },

  async streams({ prompts, tokens }) {
    const begin = performance.now();
    const answers = await Promise.all(prompts.map((ids) => timed(gpt2.generate(ids, greedy(tokens)), tokens, begin, idOf)));
    return { times: answers.map((answer) => answer.times) };
  },

  async encode({ ids }) {
    const inputs = ids.map((ids) => ({ ids }));
    const begin = performance.now();
    const outputs = await bert.forward(inputs, { pooled: false });
    return { ms: performance.now() - begin, sample: sample(outputs[0].lastHiddenState.data) };
  },

  /** Texts to the hidden states of their tokens, tokenising included. */
  async texts({ texts }) {
    const begin = performance.now();
    const outputs = await bert.forward(texts, { pooled: false });
    const ms = performance.now() - begin;
    const tokens = outputs.reduce((sum, { lastHiddenState }) => sum + lastHiddenState.shape[0], 0);
    return { ms, tokens, sample: sample(outputs[0].lastHiddenState.data) };
  },

  async lag({ phase, seconds, path, dtype, threads, prompts, ids, text, tokens }) {
    let turn = 0;
    const prompt = () => prompts[turn++ % prompts.length];
    const work = {
      idle: () => sleep(seconds * 1000),
      prefill: () => gpt2.generate(prompt(), greedy(1)).result,
      decode: () => timed(gpt2.generate(prompt().slice(0, 32), greedy(tokens)), tokens, 0, idOf),
      encode: () => bert.forward(ids.map((ids) => ({ ids })), { pooled: false }),
      load: async () => (await loadGPT2(path, { dtype, threads })).close(),
      tokenise: () => gpt2.encode(text),
    }[phase];
    return { delays: await delaysDuring(seconds, work) };
  },

  /** In a fresh process: from the call that loads to the first token, and the memory that it took. */
  async load({ path, dtype, threads, ids }) {
    const before = process.memoryUsage.rss();
    const begin = performance.now();
    const model = await loadGPT2(path, { dtype, threads });
    const loaded = performance.now() - begin;
    await model.generate(ids, greedy(1)).next();
    const ms = performance.now() - begin;
    return { ms, loaded, before, peak: peak(), weights: model.info.weightBytes };
  },
});
