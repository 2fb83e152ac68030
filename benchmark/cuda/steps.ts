/** The kit's steps but for the benchmark. The most valuable come first: time may run out. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { makeModels } from "../prepare/models.js";
import { type Kit, root } from "./kit.js";
import type { KitDtype } from "./types.js";

const fixture = (name: string) => join(root, "__test__", "fixtures", name);

/** What keys and values get on a GPU: 512 whole sequences of GPT-2 124M in half precision. */
export const CACHE_BYTES = 20 * 2 ** 30;

/** Folders of the models that steps run. */
export interface Models {
  gpt2: string;
  gpt2F16: string;
  bert: string;
  /** PyTorch has made them, and can be asked the same. */
  made: boolean;
}

/** Without PyTorch a GPU gets models of the same sizes, made here, and a CPU two tiny ones. */
export function modelsOf(kit: Kit): Models {
  const made = existsSync(kit.at("texts.json"));
  if (!made && !existsSync(kit.at("bert-base"))) {
    const gpt2 = fixture("gpt2-base");
    return { gpt2, gpt2F16: gpt2, bert: fixture("bert-base"), made };
  }
  return { gpt2: kit.at("gpt2"), gpt2F16: kit.at("gpt2-f16"), bert: kit.at(made ? "bert" : "bert-base"), made };
}

/** How a model is loaded in this run. */
export const loading = (kit: Kit, dtype: KitDtype, kind: "gpt2" | "bert") => ({
  dtype,
  device: kit.report.device,
  ...(kind === "gpt2" && kit.gpu && { kvCacheBytes: CACHE_BYTES }),
});

export interface Opened {
  ms: number;
  info: { device: string; dtype: string; instructionSet: string; weightBytes: number; layers: number; hiddenSize: number; positions: number };
  stats: { blocks: number; blockBytes: number };
}

/** The device, a token on it, and the models of all other steps. */
export async function smoke(kit: Kit): Promise<void> {
  const make = async () => {
    const peer = await kit.peer();
    if (peer) await kit.ask(peer, "make", { folder: kit.work, small: !kit.gpu }, 90);
  };
  const tokens = async (device: string) => {
    const worker = kit.worker();
    const { info } = await kit.ask<Opened>(worker, "open", { kind: "gpt2", path: fixture("gpt2-base"), device, dtype: "f32" });
    const found = await kit.ask<number[]>(worker, "greedy", { ids: [1, 2, 3, 4], tokens: 8 });
    kit.end(worker);
    return { info, found };
  };
  const first = async () => {
    const { info, found } = await tokens(kit.report.device);
    kit.check(`a model loads on ${kit.report.device} and makes tokens`, info.device === kit.report.device && found.length === 8, `instruction set ${info.instructionSet}`);
    if (kit.gpu) kit.check("the tokens are the CPU's", JSON.stringify((await tokens("cpu")).found) === JSON.stringify(found), "", "f32");
  };
  // Both to their ends: a process answers one request at a time.
  await Promise.all([kit.part("a model on the device", first), kit.attempt("models made by PyTorch", make)]);
  if (!kit.gpu || modelsOf(kit).made) return;
  // What PyTorch has left unfinished.
  for (const name of ["gpt2", "gpt2-f16"]) rmSync(kit.at(name), { recursive: true, force: true });
  makeModels(kit.work);
}

/** Errors of f32 beyond this are no rounding; others are held against PyTorch's own. */
const F32_ERROR = 1e-5;
const TIMES_PYTORCH = 1.1;

interface Errors {
  ours: number;
  torch: number;
  largest: number;
}

/** Logits and states beside PyTorch's f32: no farther than 1.1 times what PyTorch's own are in that dtype. */
export async function parity(kit: Kit): Promise<void> {
  const models = modelsOf(kit);
  if (!models.made) return kit.skip("parity", "PyTorch has made no models");
  const lengths = kit.gpu ? [300, 5, 64, 129, 700, 33, 1, 256] : [33, 5, 17];
  const tokens = kit.gpu ? 32 : 8;
  for (const dtype of kit.gpu ? (["bf16", "f32", "f16"] as const) : (["f32", "bf16"] as const)) {
    await kit.part(`parity in ${dtype}`, async () => {
      const worker = kit.worker();
      const files = { gpt2: kit.at(`gpt2-${dtype}.json`), bert: kit.at(`bert-${dtype}.f32`), minilm: kit.at(`minilm-${dtype}.f32`) };
      const inputs = kit.at("bert-inputs.json");
      const count = kit.gpu ? 256 : 16;
      await kit.ask(worker, "open", { kind: "gpt2", path: models.gpt2, ...loading(kit, dtype, "gpt2") });
      await kit.ask(worker, "generations", { lengths, tokens, file: files.gpt2 });
      await kit.ask(worker, "close");
      await kit.ask(worker, "open", { kind: "bert", path: models.bert, ...loading(kit, dtype, "bert") });
      await kit.ask(worker, "states", { lengths: kit.gpu ? [128, 5, 77, 300, 512, 1] : [17, 5], inputs, file: files.bert });
      await kit.ask(worker, "close");
      await kit.ask(worker, "open", { kind: "bert", path: kit.at("minilm"), ...loading(kit, dtype, "bert") });
      await kit.ask(worker, "vectors", { texts: kit.at("texts.json"), count, file: files.minilm });
      kit.end(worker);

      const peer = await kit.peer();
      if (!peer) throw new Error("PyTorch has ended");
      const gpt2 = await kit.ask<Errors & { greedy: number; ties: number; wrong: number[] }>(peer, "gpt2", { folder: models.gpt2, dtype, file: files.gpt2 });
      withinError(kit, "GPT-2's log-probabilities", dtype, gpt2);
      if (dtype === "f32") {
        const { greedy, ties, wrong } = gpt2;
        kit.check("greedy tokens are PyTorch's", wrong.length === 0 && greedy > 0, `${greedy} equal, ${ties} ties within 1e-4, ${wrong.length} others`, dtype);
      }
      withinError(kit, "BERT's states", dtype, await kit.ask(peer, "bert", { folder: models.bert, dtype, inputs, file: files.bert }));
      const least = { f32: 0.999999, f16: 0.9995, bf16: 0.999 }[dtype];
      const cosines = await kit.ask<{ least: number; mean: number }>(peer, "sentences", { folder: kit.at("minilm"), texts: kit.at("texts.json"), count, file: files.minilm });
      kit.check(`MiniLM's vectors, cosine to f32 ≥ ${least}`, cosines.least >= least, `${cosines.least.toFixed(6)} of ${count} texts`, dtype);
    });
  }
  const peer = await kit.peer();
  if (peer) await kit.ask(peer, "forget");
}

function withinError(kit: Kit, what: string, dtype: KitDtype, { ours, torch, largest }: Errors): void {
  const limit = dtype === "f32" ? F32_ERROR : TIMES_PYTORCH * torch;
  const detail = `${ours.toExponential(1)}, PyTorch's own ${torch.toExponential(1)}, largest difference ${largest.toExponential(1)}`;
  kit.check(`${what}, error to f32`, ours <= limit, detail, dtype);
}

/** The same bits alone, in batches, again, and after cancellations. */
export async function invariance(kit: Kit): Promise<void> {
  const models = modelsOf(kit);
  const sizes = kit.gpu ? [2, 7, 16, 33, 64, 128, 256, 512] : [2, 5];
  const request = kit.gpu ? { repeats: 20, tokens: 24 } : { repeats: 3, tokens: 6 };
  for (const dtype of kit.gpu ? (["bf16", "f32", "f16"] as const) : (["f32"] as const)) {
    await kit.part(`invariance in ${dtype}`, async () => {
      const worker = kit.worker();
      for (const kind of ["gpt2", "bert"] as const) {
        await kit.ask(worker, "open", { kind, path: models[kind], ...loading(kit, dtype, kind) });
        const found = await kit.ask<{ what: string; same: boolean; detail: string }[]>(worker, "invariance", { sizes, ...request });
        for (const { what, same, detail } of found) kit.check(`same bits: ${what}`, same, detail, dtype);
        await kit.ask(worker, "close");
      }
      kit.end(worker);
    });
  }
}

export async function faults(kit: Kit): Promise<void> {
  const models = modelsOf(kit);
  const worker = kit.worker();
  const args = { gpu: kit.gpu, models, small: fixture("gpt2-base"), gpuBytes: kit.report.gpu?.bytes || 2 ** 40 };
  const found = await kit.ask<{ what: string; passed: boolean | null; detail: string }[]>(worker, "faults", args, 120);
  for (const { what, passed, detail } of found) kit.check(`fault: ${what}`, passed, detail);
  kit.end(worker);
}

/** The fixtures' tests in Rust, on the GPU. */
export async function rustTests(kit: Kit): Promise<void> {
  if (!kit.gpu) return kit.skip("the Rust tests on a GPU", "there is no GPU");
  const tests = join(root, "target", "cuda", "tests");
  const names = existsSync(tests) ? readdirSync(tests).toSorted() : [];
  if (names.length === 0) kit.skip("the fixtures' Rust tests", "they are not in this kit");
  for (const name of names) {
    const { status, text } = program(kit, join(tests, name), ["--test-threads", "4"], 45);
    const [, line] = /^(test result: .*?;.*?);/m.exec(text) ?? [];
    kit.check(`Rust tests: ${name}`, status === 0 && !text.includes("skipped on CUDA"), line ?? `exit code ${status}`);
  }
}

/** The same device without Node: the Rust example. */
export async function example(kit: Kit): Promise<void> {
  if (!kit.gpu) return kit.skip("the Rust example", "there is no GPU");
  const models = modelsOf(kit);
  const example = join(root, "target", "cuda", "release", "examples", "cuda");
  if (!existsSync(example) || !models.made) return kit.skip("the Rust example", "it is not in this kit, or has no models");
  for (const dtype of ["bf16", "f32", "f16"] as const) {
    kit.left();
    const { status, text } = program(kit, example, [models.gpt2, models.bert, dtype, kit.at(`example-${dtype}`)]);
    if (status !== 0) kit.skip(`the Rust example in ${dtype}`, `exit code ${status}`);
    for (const [, model, bits] of text.matchAll(/^(gpt2|bert) equal bits (.*)$/gm)) kit.check(`same bits: the example's ${model}`, !bits!.includes("false"), bits, dtype);
    for (const [, what, speed] of text.matchAll(/^((?:gpt2|bert).*? \d+ x \d+): (?:[\d.]+ ms, )?(\d+) tok\/s/gm)) {
      kit.figure(`example: ${what!.replace(" x ", " × ")}`, dtype, "example", "tok/s", [Number(speed)]);
    }
  }
}

/** Runs a program to its end, or to the step's; what it prints goes to the log too. */
function program(kit: Kit, path: string, args: string[], seconds = 60): { status: number | null; text: string } {
  const env = { ...kit.env, CANDLEWICK_FIXTURES: join(root, "__test__", "fixtures") };
  const { status, stdout, stderr } = spawnSync(path, args, { env, encoding: "utf8", timeout: 1000 * Math.min(seconds, kit.left()), maxBuffer: 1 << 26 });
  kit.log(`$ ${path} ${args.join(" ")}\n${stdout}\n${stderr}\n`);
  return { status, text: `${stdout}\n${stderr}` };
}
