/** Where things are, in the checkout and outside it. */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

export const root = join(__dirname, "..");
export const here = (...parts: string[]): string => join(__dirname, ...parts);

export const cache = process.env["CANDLEWICK_CACHE"] ?? join(homedir(), ".cache", "candlewick");
/** The peers from npm, in a node_modules of their own. */
export const peers = join(cache, "peers");
/** Models that `npm run bench -- prepare` makes. */
export const bench = (...parts: string[]): string => join(cache, "bench", ...parts);
/** Real models, from tools/fetch-models.sh. */
export const models = (...parts: string[]): string => join(cache, "models", ...parts);

/** A program of `benchmark/native`. */
export const nativeBinary = (name: string): string =>
  join(root, "target", "release", process.platform === "win32" ? `${name}.exe` : name);

/** The Python that has PyTorch: `CANDLEWICK_PYTHON`, else the cache's virtual environment. */
export const python = process.env["CANDLEWICK_PYTHON"] ?? join(cache, "venv", "bin", "python");

/** A model's files for each kind of contender. */
export const modelFiles = {
  gpt2: (contender: string, dtype: string): string => {
    if (contender === "ctranslate2") return bench(`gpt2-ctranslate2-${dtype}`);
    return contender === "node-llama-cpp" ? bench(`gpt2-${dtype}.gguf`) : bench("gpt2");
  },
  // The one that ships has the same weights in f16: for a clone that has fetched nothing.
  minilm: (contender: string, dtype = ""): string =>
    encoder(contender, dtype, "minilm", existsSync(models("minilm")) ? models("minilm") : join(root, "models", "minilm")),
  "bert-base": (contender: string, dtype = ""): string => encoder(contender, dtype, "bert-base", bench("bert-base")),
};

function encoder(contender: string, dtype: string, name: string, folder: string): string {
  if (contender === "openvino" && dtype === "int8") return bench(`${name}-int8`, "model.xml");
  if (contender === "onnxruntime-node" || contender === "openvino") return bench(`${name}-onnx`, "onnx", "model.onnx");
  if (contender === "transformers.js") return bench(`${name}-onnx`);
  return folder;
}

/** @throws An error that says what to do. */
export function mustExist(path: string): string {
  if (!existsSync(path)) throw new Error(`${path} is not there: npm run bench -- prepare`);
  return path;
}
