// node-llama-cpp on the CPU, its prebuilt llama.cpp.   node llama.mjs FOLDER-OF-PEERS
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { serve, timed } from "./protocol.mjs";

const here = join(process.argv[2], "node_modules", "node-llama-cpp");
const { getLlama } = await import(pathToFileURL(join(here, "dist", "index.js")).href);
const { version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const greedy = { temperature: 0, yieldEogToken: true };

let model;
let context;
let sequences = [];
let threads;

async function withSequences(count, contextSize) {
  if (sequences.length === count && context.contextSize >= contextSize) return;
  await context?.dispose();
  context = await model.createContext({ contextSize, batchSize: 512 * count, threads, sequences: count });
  sequences = Array.from({ length: count }, () => context.getSequence());
}

await serve({
  hello: () => ({ version }),

  async open({ path, threads: count }) {
    threads = count;
    model = await llama.loadModel({ modelPath: path, useMmap: true });
  },

  async close() {
    await context?.dispose();
    await model?.dispose();
    context = model = undefined;
    sequences = [];
  },

  async generate({ ids, tokens }) {
    await withSequences(1, 1024);
    const [sequence] = sequences;
    await sequence.clearHistory();
    const begin = performance.now();
    return timed(sequence.evaluate(ids, greedy), tokens, begin, Number);
  },

  async streams({ prompts, tokens }) {
    await withSequences(prompts.length, 512);
    for (const sequence of sequences) await sequence.clearHistory();
    const begin = performance.now();
    const answers = await Promise.all(
      prompts.map((ids, i) => timed(sequences[i].evaluate(ids, greedy), tokens, begin, Number)),
    );
    return { times: answers.map((answer) => answer.times) };
  },

  async load({ path, threads: count, ids }) {
    const before = process.memoryUsage.rss();
    const begin = performance.now();
    threads = count;
    model = await llama.loadModel({ modelPath: path, useMmap: true });
    await withSequences(1, 1024);
    const loaded = performance.now() - begin;
    await timed(sequences[0].evaluate(ids, greedy), 1, begin, Number);
    return { ms: performance.now() - begin, loaded, before, peak: process.resourceUsage().maxRSS * 1024 };
  },
});
