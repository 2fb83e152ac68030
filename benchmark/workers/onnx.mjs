// onnxruntime-node on the CPU.   node onnx.mjs FOLDER-OF-PEERS
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { delaysDuring, sample, serve, sleep } from "./protocol.mjs";

const require = createRequire(join(process.argv[2], "package.json"));
const ort = require("onnxruntime-node");
const { version } = JSON.parse(readFileSync(join(process.argv[2], "node_modules", "onnxruntime-node", "package.json"), "utf8"));

const create = (path, threads) =>
  ort.InferenceSession.create(path, { intraOpNumThreads: threads, interOpNumThreads: 1, graphOptimizationLevel: "all" });

let session;

/** A batch of texts of one length. */
function feeds(ids) {
  const shape = [ids.length, ids[0].length];
  const tensor = (valueOf) => new ort.Tensor("int64", BigInt64Array.from(ids.flat(), valueOf), shape);
  return { input_ids: tensor(BigInt), attention_mask: tensor(() => 1n), token_type_ids: tensor(() => 0n) };
}

await serve({
  hello: () => ({ version }),

  async open({ path, threads }) {
    session = await create(path, threads);
  },

  async close() {
    await session?.release();
    session = undefined;
  },

  async encode({ ids }) {
    const begin = performance.now();
    const { last_hidden_state } = await session.run(feeds(ids));
    return { ms: performance.now() - begin, sample: sample(last_hidden_state.data) };
  },

  async lag({ phase, seconds, path, threads, ids }) {
    const work = {
      idle: () => sleep(seconds * 1000),
      encode: () => session.run(feeds(ids)),
      load: async () => (await create(path, threads)).release(),
    }[phase];
    return { delays: await delaysDuring(seconds, work) };
  },
});
