/** A worker thread that generates: `workerData` has the models and, if it is to go on and on, `endless`. */
import { parentPort, workerData } from "node:worker_threads";
import { loadBERT, loadGPT2 } from "../../index.js";

const { model, encoder, endless } = workerData as { model: string; encoder: string; endless?: boolean };

async function main() {
  const lm = await loadGPT2(model, { threads: 1 });
  if (endless) {
    // Several at once, so that some answer is always on its way.
    const bert = await loadBERT(encoder, { threads: 1 });
    const ids = Array.from({ length: 40 }, (_, id) => id);
    const encode = async () => {
      for (;;) await bert.forward(Array.from({ length: 50 }, () => ({ ids })));
    };
    void encode();
    const streams = Array.from({ length: 4 }, () => lm.generate("abc", { maxNewTokens: 4000, ignoreEos: true }));
    await Promise.all(
      streams.map(async (stream) => {
        for await (const token of stream) parentPort!.postMessage(token.index);
      }),
    );
    return;
  }
  const { text } = await lm.generate("abc", { temperature: 0, maxNewTokens: 50, ignoreEos: true }).result;
  parentPort!.postMessage(text);
  // The model stays open: the worker ends all the same.
}
void main();
