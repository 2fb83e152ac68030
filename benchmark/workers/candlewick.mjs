// Candlewick, as its users get it: the built package, through its public API.
import { readFileSync } from "node:fs";
import { finetune, loadBERT, loadGPT2, VectorIndex } from "candlewick";
import { delaysDuring, sample, serve, sleep, timed } from "./protocol.mjs";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const greedy = (tokens) => ({ temperature: 0, ignoreEos: true, maxNewTokens: tokens });
const idOf = (token) => token.id;

let gpt2;
let bert;
/** The same GPT-2 in a smaller dtype, that guesses. */
let drafting;

/** The mean of a text's states. */
function mean({ lastHiddenState: { data, shape } }) {
  const [length, width] = shape;
  return Array.from({ length: width }, (_, i) => {
    let sum = 0;
    for (let at = i; at < data.length; at += width) sum += data[at];
    return sum / length;
  });
}

/** An index, its queries, and of each the ten that are closest. */
let search;

/** A xorshift's numbers, about normal where three are added. */
function* numbers(seed) {
  let x = seed;
  for (;;) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    yield x / 2 ** 32;
  }
}

/** Around a thousand centres, as the vectors of texts do. */
function clustered(dimensions) {
  const next = (source) => source.next().value;
  const own = numbers(7);
  const centres = Array.from({ length: 1000 }, () => Float32Array.from({ length: dimensions }, () => 2 * next(own) + 2 * next(own)));
  let x = 12345;
  const random = () => ((x ^= x << 13), (x ^= x >>> 17), (x ^= x << 5), x / 2 ** 32);
  return () => {
    const centre = centres[(random() + 0.5) * 999.99 | 0];
    const row = new Float32Array(dimensions);
    for (let i = 0; i < dimensions; i++) row[i] = centre[i] + 1.2 * (random() + random());
    return row;
  };
}

async function filled(indexes, count, dimensions, row = clustered(dimensions)) {
  for (let from = 0; from < count; from += 1000) {
    const rows = Array.from({ length: Math.min(1000, count - from) }, row);
    for (const index of indexes) await index.add(rows);
  }
}

/** Most memory that this process has had, in bytes. */
const peak = () => process.resourceUsage().maxRSS * 1024;

await serve({
  hello: () => ({ version }),

  async open({ kind, path, dtype, threads, draft, precision, count, dimensions }) {
    if (kind === "vectors") {
      const exact = new VectorIndex(dimensions, { threads });
      const index = precision === "f32" ? exact : new VectorIndex(dimensions, { threads, precision });
      const row = clustered(dimensions);
      const queries = Array.from({ length: 100 }, row);
      await filled(new Set([exact, index]), count, dimensions, row);
      const truth = (await exact.search(queries, { topK: 10 })).map((hits) => new Set(hits.map((hit) => hit.index)));
      if (index !== exact) await exact.close();
      search = { index, queries, truth };
      return;
    }
    if (kind === "bert") bert = await loadBERT(path, { dtype, threads });
    else gpt2 = await loadGPT2(path, { dtype, threads });
    if (draft) drafting = await loadGPT2(path, { dtype: draft, threads });
  },

  async close() {
    await gpt2?.close();
    await bert?.close();
    await drafting?.close();
    await search?.index.close();
    gpt2 = bert = drafting = search = undefined;
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

  /** Streams that decode while prompts arrive one after the other. */
  async mixed({ decoding, arriving, tokens }) {
    const begin = performance.now();
    const streams = decoding.map((ids) => timed(gpt2.generate(ids, greedy(tokens)), tokens, begin, idOf));
    for (const ids of arriving) await gpt2.generate(ids, greedy(1)).result;
    const times = (await Promise.all(streams)).map((stream) => stream.times);
    const gaps = times.flatMap((times) => times.slice(1).map((time, i) => time - times[i]));
    return { ms: performance.now() - begin, gap: Math.max(...gaps) };
  },

  /** One sequence with guessed tokens or without, of a text or of ids. */
  async guessed({ ids, text, temperature, speculation, tokens, seed }) {
    if (speculation === "draft") speculation = { draft: drafting };
    const options = { temperature, speculation, seed, ignoreEos: true, maxNewTokens: tokens };
    return timed(gpt2.generate(text ?? ids, options), tokens, performance.now(), idOf);
  },

  async encode({ ids, vectors }) {
    const inputs = ids.map((ids) => ({ ids }));
    const begin = performance.now();
    const outputs = await bert.forward(inputs, { pooled: false });
    const ms = performance.now() - begin;
    return { ms, sample: sample(outputs[0].lastHiddenState.data), ...(vectors && { vectors: outputs.map(mean) }) };
  },

  /** Texts to the hidden states of their tokens, tokenising included. */
  async texts({ texts, vectors }) {
    const begin = performance.now();
    const outputs = await bert.forward(texts, { pooled: false });
    const ms = performance.now() - begin;
    const tokens = outputs.reduce((sum, { lastHiddenState }) => sum + lastHiddenState.shape[0], 0);
    return { ms, tokens, sample: sample(outputs[0].lastHiddenState.data), ...(vectors && { vectors: outputs.map(mean) }) };
  },

  /** Vectors of texts, through the stream of the task: what one does with ten thousand. */
  async embed({ texts }) {
    const rss = process.memoryUsage.rss();
    let most = rss;
    const begin = performance.now();
    let first;
    for await (const { index, result } of bert.embed.stream(texts, { maxLength: 512 })) {
      first ??= result;
      if (index % 100 === 0) most = Math.max(most, process.memoryUsage.rss());
    }
    return { ms: performance.now() - begin, sample: sample(first), memory: most - rss };
  },

  /** The closest of many vectors. */
  async search({ vectors, dimensions, queries, threads }) {
    const index = new VectorIndex(dimensions, { threads });
    const random = () => Float32Array.from({ length: dimensions }, () => Math.random() - 0.5);
    for (let i = 0; i < vectors; i += 1000) await index.add(Array.from({ length: 1000 }, random));
    const times = [];
    for (let i = 0; i < queries; i++) {
      const query = random();
      const begin = performance.now();
      await index.search(query, { topK: 10 });
      times.push(performance.now() - begin);
    }
    return { times };
  },

  async searchVectors({ topK, single, many }) {
    const { index, queries, truth } = search;
    const times = [];
    for (const query of queries.slice(0, single)) {
      const begin = performance.now();
      await index.search(query, { topK });
      times.push(performance.now() - begin);
    }
    const begin = performance.now();
    await index.search(queries.slice(0, many), { topK });
    const perSecond = (1000 * many) / (performance.now() - begin);
    const found = await index.search(queries, { topK });
    const same = found.flatMap((hits, query) => hits.filter((hit) => truth[query].has(hit.index))).length;
    return { times, perSecond, recall: same / (topK * queries.length) };
  },

  async saveVectors({ path, count, dimensions }) {
    const index = new VectorIndex(dimensions);
    await filled([index], count, dimensions);
    await index.save(path);
  },

  /** In a fresh process: what the index takes beyond what the process had. */
  async loadVectors({ path, threads }) {
    const before = process.memoryUsage.rss();
    const begin = performance.now();
    const index = await VectorIndex.load(path, { threads });
    const ms = performance.now() - begin;
    return { ms, rss: peak() - before, size: index.size };
  },

  async lag({ phase, seconds, path, dtype, threads, prompts, ids, text, texts, tokens }) {
    let turn = 0;
    const prompt = () => prompts[turn++ % prompts.length];
    const work = {
      idle: () => sleep(seconds * 1000),
      prefill: () => gpt2.generate(prompt(), greedy(1)).result,
      decode: () => timed(gpt2.generate(prompt().slice(0, 32), greedy(tokens)), tokens, 0, idOf),
      encode: () => bert.forward(ids.map((ids) => ({ ids })), { pooled: false }),
      load: async () => (await loadGPT2(path, { dtype, threads })).close(),
      tokenise: () => gpt2.encode(text),
      embed: () => bert.embed(texts, { maxLength: 512 }),
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

  /** In a fresh process: the most memory that generations at once hold. */
  async hold({ path, dtype, threads, prompts, numBeams, tokens }) {
    const model = await loadGPT2(path, { dtype, threads });
    await model.generate(prompts[0].slice(0, 16), greedy(2)).result;
    const before = process.memoryUsage.rss();
    const begin = performance.now();
    let [kv, most] = [0, before];
    const look = () => {
      const { blocks, freeBlocks, blockBytes } = model.stats();
      kv = Math.max(kv, (blocks - freeBlocks) * blockBytes);
      most = Math.max(most, process.memoryUsage.rss());
    };
    const timer = setInterval(look, 5);
    await Promise.all(prompts.map((ids) => model.generate(ids, { ...greedy(tokens), numBeams }).result));
    clearInterval(timer);
    return { kv, rss: most - before, ms: performance.now() - begin };
  },

  /** In a fresh process, which is ended afterwards: steps of a model with new weights. */
  async train({ model, task, rows, output, batch, length, steps, threads, dtype }) {
    const ms = [];
    const run = finetune({ model, task, train: rows, output, fromScratch: true, batchSize: batch, maxLength: length, maxSteps: 1000, saveSteps: 1000, threads, precision: dtype });
    // Not a loop over the run, whose end would write a checkpoint first.
    while (ms.length < steps) {
      const { value: event } = await run.next();
      if (event.type === "step" && event.step > 1) ms.push(1000 * event.seconds);
    }
    return { ms, peak: peak() };
  },
});
