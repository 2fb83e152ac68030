/** Small GPT-2 models that tests make for themselves, in Hugging Face's layout. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const fixtures = join(__dirname, "..", "fixtures");

/** A folder that is gone when the test process ends. */
export const temporary = mkdtempSync(join(tmpdir(), "candlewick-test-"));
process.on("exit", () => rmSync(temporary, { recursive: true, force: true }));

let folders = 0;
export function newFolder(name = "model"): string {
  const folder = join(temporary, `${name}-${++folders}`);
  mkdirSync(folder, { recursive: true });
  return folder;
}

export interface Tensor {
  dtype?: string;
  shape: number[];
  data: Float32Array;
}
export type Tensors = Record<string, Tensor>;

export interface Shape {
  n_positions: number;
  n_embd: number;
  n_layer: number;
  n_head: number;
  vocab_size: number;
}

export const small: Shape = { n_positions: 256, n_embd: 32, n_layer: 2, n_head: 4, vocab_size: 257 };

/** The id of the end of text; ids below are bytes. */
export const END = 256;

/** A model with seeded random weights whose tokens are bytes. It talks nonsense, and does not stop by itself. */
export function randomModel(shape: Partial<Shape> = {}, seed = 1): string {
  const full = { ...small, ...shape };
  const random = mulberry32(seed);
  const tensors = gpt2Tensors(full, (name, length) =>
    Float32Array.from({ length }, () => (random() - 0.5) * (name.startsWith("wpe") ? 0.4 : 0.8) + (/ln_.*weight/.test(name) ? 1 : 0)),
  );
  return writeModel(newFolder("random"), full, tensors, {});
}

/**
 * A model that recites: at position p it says the byte of `text` at p + 1, then the end of text. Attention and
 * feed-forward layers are zero, the state is a one-hot of the position, and the output layer is a table.
 */
export function recitingModel(text: string): string {
  const bytes = Buffer.from(text, "utf8");
  // Twice as long as needed: by default a generation takes up to half of the positions.
  const size = Math.ceil((bytes.length + 1) / 4) * 8;
  const shape: Shape = { n_positions: size, n_embd: size, n_layer: 1, n_head: 1, vocab_size: 257 };
  const tensors = gpt2Tensors(shape, (name, length) => new Float32Array(length).fill(/ln_.*weight/.test(name) ? 1 : 0));
  const head = new Float32Array(shape.vocab_size * size);
  for (let position = 0; position < size; position++) {
    tensors["wpe.weight"]!.data[position * size + position] = 1;
    // So much likelier than any other that no temperature changes it.
    head[(bytes[position + 1] ?? END) * size + position] = 50;
  }
  tensors["lm_head.weight"] = { shape: [shape.vocab_size, size], data: head };
  return writeModel(newFolder("reciting"), shape, tensors, { tie_word_embeddings: false, eos_token_id: END });
}

export function writeModel(folder: string, shape: Shape, tensors: Tensors, config: object): string {
  const { vocab_size } = shape;
  const whole = { model_type: "gpt2", activation_function: "gelu_new", layer_norm_epsilon: 1e-5, ...shape, ...config };
  writeFileSync(join(folder, "config.json"), JSON.stringify(whole));
  writeFileSync(join(folder, "model.safetensors"), safetensors(tensors));
  writeByteTokenizer(folder, vocab_size);
  return folder;
}

/** Every byte is a token, in the order of bytes; then the end of text. */
export function writeByteTokenizer(folder: string, size = 257): void {
  const vocabulary: Record<string, number> = {};
  byteCharacters().forEach((character, byte) => (vocabulary[character] = byte));
  vocabulary["<|endoftext|>"] = END;
  for (let extra = 257; extra < size; extra++) vocabulary[`<extra-${extra}>`] = extra;
  writeFileSync(join(folder, "vocab.json"), JSON.stringify(vocabulary));
  writeFileSync(join(folder, "merges.txt"), "#version: 0.2\n");
}

export function safetensors(tensors: Tensors): Buffer {
  const header: Record<string, object> = {};
  const parts: Buffer[] = [];
  let offset = 0;
  for (const [name, { dtype = "F32", shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    offset += data.byteLength;
  }
  return withHeader(header, Buffer.concat(parts));
}

/** A safetensors file with this header, whatever it says. */
export function withHeader(header: object, data: Buffer, length?: bigint): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(json.length));
  return Buffer.concat([size, json, data]);
}

export function gpt2Tensors(shape: Shape, values: (name: string, length: number) => Float32Array): Tensors {
  const { n_embd: d, n_positions, n_layer, vocab_size } = shape;
  const shapes: Record<string, number[]> = { "wte.weight": [vocab_size, d], "wpe.weight": [n_positions, d] };
  for (let layer = 0; layer < n_layer; layer++) {
    const block: Record<string, number[]> = {
      "ln_1.weight": [d],
      "ln_1.bias": [d],
      "attn.c_attn.weight": [d, 3 * d],
      "attn.c_attn.bias": [3 * d],
      "attn.c_proj.weight": [d, d],
      "attn.c_proj.bias": [d],
      "ln_2.weight": [d],
      "ln_2.bias": [d],
      "mlp.c_fc.weight": [d, 4 * d],
      "mlp.c_fc.bias": [4 * d],
      "mlp.c_proj.weight": [4 * d, d],
      "mlp.c_proj.bias": [d],
    };
    for (const [name, size] of Object.entries(block)) shapes[`h.${layer}.${name}`] = size;
  }
  Object.assign(shapes, { "ln_f.weight": [d], "ln_f.bias": [d] });
  return Object.fromEntries(
    Object.entries(shapes).map(([name, size]) => [name, { shape: size, data: values(name, size.reduce((a, b) => a * b)) }]),
  );
}

/** GPT-2's printable stand-ins for the 256 bytes. */
function byteCharacters(): string[] {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
