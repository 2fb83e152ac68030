// transformers.js: its tokenizer and padding, over the onnxruntime-node that it brings.
//   node transformers.mjs FOLDER-OF-PEERS
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { delaysDuring, sample, serve } from "./protocol.mjs";

const here = join(process.argv[2], "node_modules", "@huggingface", "transformers");
const { module, exports, version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const entry = exports?.node?.import?.default ?? exports?.node?.import ?? module;
const { env, pipeline } = await import(pathToFileURL(join(here, entry)).href);
env.allowRemoteModels = false;

let extractor;

await serve({
  hello: () => ({ version }),

  async open({ path, threads }) {
    env.localModelPath = dirname(path);
    extractor = await pipeline("feature-extraction", basename(path), {
      dtype: "fp32",
      device: "cpu",
      session_options: { intraOpNumThreads: threads, interOpNumThreads: 1 },
    });
  },

  async close() {
    await extractor?.dispose();
    extractor = undefined;
  },

  /** In batches of `batch`, in their order, each padded to its longest text. */
  async texts({ texts, batch }) {
    const begin = performance.now();
    let first;
    let tokens = 0;
    for (let i = 0; i < texts.length; i += batch) {
      const states = await extractor(texts.slice(i, i + batch), { pooling: "none" });
      tokens += states.dims[0] * states.dims[1];
      first ??= states.data;
    }
    return { ms: performance.now() - begin, tokens, sample: sample(first) };
  },

  /** Vectors of texts: the mean of their tokens', of length 1. */
  async embed({ texts, batch }) {
    const begin = performance.now();
    let first;
    for (let i = 0; i < texts.length; i += batch) {
      const rows = await extractor(texts.slice(i, i + batch), { pooling: "mean", normalize: true });
      first ??= rows.data.slice(0, rows.dims[1]);
    }
    return { ms: performance.now() - begin, sample: sample(first) };
  },

  /** As `lag` of candlewick.mjs. */
  async lag({ texts, batch, seconds }) {
    const work = () => extractor(texts.slice(0, batch), { pooling: "mean", normalize: true });
    return { delays: await delaysDuring(seconds, work) };
  },
});
