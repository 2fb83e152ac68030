// fastembed: its tokenizer and padding, over an onnxruntime-node of its own.   node fastembed.mjs FOLDER-OF-PEERS
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { serve } from "./protocol.mjs";

const here = join(process.argv[2], "node_modules", "fastembed");
const { version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const { EmbeddingModel, FlagEmbedding } = await import(pathToFileURL(join(here, "lib", "esm", "index.js")).href);

let model;

await serve({
  hello: () => ({ version }),

  /** `path`: the folder with the tokenizer; `onnx`: the model. It has no option for threads. */
  async open({ path, onnx }) {
    model = await FlagEmbedding.init({
      model: EmbeddingModel.CUSTOM,
      modelAbsoluteDirPath: path,
      modelName: relative(path, onnx),
      showDownloadProgress: false,
    });
  },

  async close() {
    model = undefined;
  },

  /**
   * Vectors of texts, each batch padded as it pads. They are of the first token, whatever the model, and so not
   * compared.
   */
  async embed({ texts, batch }) {
    const begin = performance.now();
    for await (const _rows of model.embed(texts, batch));
    return { ms: performance.now() - begin };
  },
});
