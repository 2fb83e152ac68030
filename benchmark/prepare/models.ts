/**
 * The benchmark's own models: GPT-2 124M and BERT-base with seeded random weights, in Hugging Face's layout under
 * transformers' names. Random weights run as fast as trained ones. They are made from nothing, without Python, so that
 * a clone can measure; what is there already is kept.
 */
import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { bench, models } from "../paths.js";

type Tensors = [name: string, shape: number[]][];

/** Small integers from a seed, as `Math.imul` makes them the same everywhere (Numerical Recipes' generator). */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0);
}

/**
 * Weights are uniform, with the standard deviation 0.02 that both models are initialised with; norms are 1, biases 0.
 */
function values(name: string, length: number, random: () => number): Float32Array {
  if (/(ln_\w+|LayerNorm)\.weight$/.test(name)) return new Float32Array(length).fill(1);
  const tensor = new Float32Array(length);
  if (name.endsWith(".bias")) return tensor;
  const scale = (2 * 0.02 * Math.sqrt(3)) / 2 ** 32;
  for (let i = 0; i < length; i++) tensor[i] = (random() - 2 ** 31) * scale;
  return tensor;
}

/** Writes one tensor after the other: the whole would be half a gigabyte in memory. */
function writeSafetensors(path: string, tensors: Tensors, dtype: "F32" | "F16"): void {
  const bytesOf = dtype === "F32" ? 4 : 2;
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const [name, shape] of tensors) {
    const end = offset + bytesOf * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype, shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(path, "w");
  try {
    writeSync(file, length);
    writeSync(file, json);
    const random = generator(1);
    for (const [name, shape] of tensors) {
      const tensor = values(name, shape.reduce((a, b) => a * b, 1), random);
      writeSync(file, new Uint8Array((dtype === "F32" ? tensor : toHalf(tensor)).buffer));
    }
  } finally {
    closeSync(file);
  }
}

/** To IEEE half precision, towards zero; the weights are far from its limits. */
function toHalf(tensor: Float32Array): Uint16Array {
  const bits = new Uint32Array(tensor.buffer);
  return Uint16Array.from(bits, (x) => {
    const exponent = ((x >>> 23) & 255) - 112;
    const sign = (x >>> 16) & 0x8000;
    if (exponent >= 1) return sign | (exponent << 10) | ((x >>> 13) & 0x3ff);
    // Subnormal: the hidden bit comes into the mantissa.
    return sign | (exponent < -10 ? 0 : (((x & 0x7f_ffff) | 0x80_0000) >>> (14 - exponent)));
  });
}

const GPT2 = { model_type: "gpt2", architectures: ["GPT2LMHeadModel"], n_layer: 12, n_embd: 768, n_head: 12, n_positions: 1024, vocab_size: 50257 };

function gpt2Tensors(): Tensors {
  const { n_embd: d, n_positions, vocab_size } = GPT2;
  const blocks = Array.from({ length: GPT2.n_layer }, (_, i): Tensors => {
    const at = (name: string) => `transformer.h.${i}.${name}`;
    const linear = (name: string, rows: number, columns: number): Tensors => [[at(`${name}.weight`), [rows, columns]], [at(`${name}.bias`), [columns]]];
    const norm = (name: string): Tensors => [[at(`${name}.weight`), [d]], [at(`${name}.bias`), [d]]];
    return [
      ...norm("ln_1"), ...linear("attn.c_attn", d, 3 * d), ...linear("attn.c_proj", d, d),
      ...norm("ln_2"), ...linear("mlp.c_fc", d, 4 * d), ...linear("mlp.c_proj", 4 * d, d),
    ];
  });
  const ends: Tensors = [["transformer.ln_f.weight", [d]], ["transformer.ln_f.bias", [d]]];
  return [["transformer.wte.weight", [vocab_size, d]], ["transformer.wpe.weight", [n_positions, d]], ...blocks.flat(), ...ends];
}

const BERT = {
  model_type: "bert", architectures: ["BertModel"], hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, intermediate_size: 3072,
  max_position_embeddings: 512, type_vocab_size: 2, vocab_size: 30522, hidden_act: "gelu", layer_norm_eps: 1e-12, pad_token_id: 0,
  hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1, initializer_range: 0.02,
};

function bertTensors(): Tensors {
  const { hidden_size: d, intermediate_size: inner } = BERT;
  const linear = (name: string, out: number, into: number): Tensors => [[`${name}.weight`, [out, into]], [`${name}.bias`, [out]]];
  const norm = (name: string): Tensors => [[`${name}.LayerNorm.weight`, [d]], [`${name}.LayerNorm.bias`, [d]]];
  const layers = Array.from({ length: BERT.num_hidden_layers }, (_, i): Tensors => {
    const at = (name: string) => `encoder.layer.${i}.${name}`;
    return [
      ...["query", "key", "value"].flatMap((name) => linear(at(`attention.self.${name}`), d, d)),
      ...linear(at("attention.output.dense"), d, d), ...norm(at("attention.output")),
      ...linear(at("intermediate.dense"), inner, d), ...linear(at("output.dense"), d, inner), ...norm(at("output")),
    ];
  });
  const embeddings = [["word", BERT.vocab_size], ["position", BERT.max_position_embeddings], ["token_type", 2]] as const;
  return [
    ...embeddings.map(([name, rows]): Tensors[number] => [`embeddings.${name}_embeddings.weight`, [rows, d]]),
    ...norm("embeddings"), ...layers.flat(), ...linear("pooler.dense", d, d),
  ];
}

/**
 * `tokenizer`: files to lie beside the weights, once they are there: GPT-2's own come with `npm run bench -- prepare`.
 */
function make(folder: string, config: object, tensors: () => Tensors, dtype: "F32" | "F16", tokenizer: string, files: readonly string[]): void {
  if (!existsSync(folder)) {
    console.error(`making ${basename(folder)}`);
    const partial = join(dirname(folder), `.partial-${basename(folder)}`);
    rmSync(partial, { recursive: true, force: true });
    mkdirSync(partial, { recursive: true });
    writeFileSync(join(partial, "config.json"), JSON.stringify(config, null, 1));
    writeSafetensors(join(partial, "model.safetensors"), tensors(), dtype);
    renameSync(partial, folder);
  }
  for (const file of files) {
    const from = join(tokenizer, file);
    if (existsSync(from) && !existsSync(join(folder, file))) copyFileSync(from, join(folder, file));
  }
}

/** Makes what is not there in `folder`, by default the cache: 1.2 GB, in a few seconds. */
export function makeModels(folder = bench()): void {
  const gpt2 = [models("gpt2-tokenizer"), ["vocab.json", "merges.txt"]] as const;
  make(join(folder, "gpt2"), GPT2, gpt2Tensors, "F32", ...gpt2);
  make(join(folder, "gpt2-f16"), GPT2, gpt2Tensors, "F16", ...gpt2);
  make(join(folder, "bert-base"), BERT, bertTensors, "F32", models("minilm"), ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]);
}
