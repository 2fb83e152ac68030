// node-llama-cpp behind the same HTTP layer: a model of `createHandler` that answers completions with it.
//   node llama.mjs FOLDER-OF-PEERS MODEL.gguf THREADS SEQUENCES
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createHandler, listen } from "candlewick-server";

const [peers, path, threads, sequences] = process.argv.slice(2);
const { getLlama } = await import(pathToFileURL(join(peers, "node_modules", "node-llama-cpp", "dist", "index.js")).href);
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath: path, useMmap: true });
const count = Number(sequences);
const context = await model.createContext({ contextSize: 512, batchSize: 512 * count, threads: Number(threads), sequences: count });
const free = Array.from({ length: count }, () => context.getSequence());
const waiting = [];

/** A sequence of the context's, once one is free. */
const take = () => new Promise((resolve) => (free.length > 0 ? resolve(free.pop()) : waiting.push(resolve)));
const give = (sequence) => (waiting.length > 0 ? waiting.shift()(sequence) : free.push(sequence));

const stats = () => ({ running: count - free.length, waiting: waiting.length, queuedTokens: 0, blocks: 1, freeBlocks: 1, prefixBlocks: 0, steps: { tokensPerSecond: 1_000, secondsSinceLast: 0 } });
const info = { positions: 1_024, adapters: [], modelType: "gpt2", parameters: 0, weightBytes: 0, dtype: "q8_0", device: "cpu", instructionSet: "" };

function generate(prompt, { maxNewTokens }) {
  let left = false;
  let made = 0;
  async function* tokens() {
    const sequence = await take();
    try {
      await sequence.clearHistory();
      for await (const id of sequence.evaluate(Array.from(prompt), { temperature: 0, yieldEogToken: true })) {
        if (left) return;
        yield { id, text: model.detokenize([id]), index: made++, sequence: 0 };
        if (made === maxNewTokens) return;
      }
    } finally {
      give(sequence);
    }
  }
  const iterator = tokens();
  return {
    accepted: Promise.resolve({ promptTokens: prompt.length }),
    next: () => iterator.next(),
    get result() {
      const usage = { promptTokens: prompt.length, completionTokens: made, totalTokens: prompt.length + made, cachedTokens: 0 };
      return Promise.resolve({ sequences: [{ finishReason: "length", text: "", tokens: [] }], usage, timings: { queuedMs: 0, firstTokenMs: 0 } });
    },
    cancel() {
      left = true;
    },
  };
}

const handler = createHandler({ models: { gpt2: { generate, info, stats } }, maxWaitMs: 3_600_000, page: false });
const { url } = await listen(handler, { port: 0 });
console.log(JSON.stringify({ url }));
