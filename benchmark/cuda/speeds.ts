/** The benchmark: Candlewick through its API and PyTorch on the same device, in turns. */
import { spawnSync } from "node:child_process";
import type { Child } from "../child.js";
import { median } from "../stats.js";
import type { Kit } from "./kit.js";
import { loading, modelsOf, type Models, type Opened } from "./steps.js";
import type { Figure, KitDtype, Who } from "./types.js";

const BYTES: Record<KitDtype, number> = { f32: 4, f16: 2, bf16: 2 };
const MIB = 2 ** 20;
/** Tokens at the beginning of a stream that do not count. */
const SETTLING = 8;

interface Lagging {
  lag: { p99: number; max: number } | null;
}
interface Streams extends Lagging {
  first: number;
  whole: number;
  steady: { tokens: number; ms: number; context: number };
}

/** What PyTorch is asked to prepare, and what the seconds of a run mean. */
interface Peer {
  who: Who;
  prepare: object;
  value(seconds: number): number;
  /** Runs in a turn, default 5; 10 at most for what has a cache. */
  repeats?: number;
  /** Runs before the first turn, default 3. */
  warm?: number;
}

interface Case {
  name: string;
  dtype: KitDtype;
  unit: Figure["unit"];
  turns: number;
  /** Values of a turn; the first turn's do not count. */
  ours(turn: number): Promise<number[]>;
  peers?: Peer[];
  /** Share of the limit, of the median value. */
  share?(value: number): number | undefined;
  note?(): string | undefined;
}

/** PyTorch with one model at a time, loaded again after what has broken its process. */
class PyTorch {
  #opened = "";
  #child: Child | undefined;

  constructor(readonly kit: Kit) {}

  async ask<T>(model: { kind: "gpt2" | "bert"; folder: string; dtype: KitDtype } | undefined, op: string, args: object, seconds = 60): Promise<T> {
    const child = await this.kit.peer();
    if (!child) throw new Error("no PyTorch");
    const name = JSON.stringify(model);
    if (model && (child !== this.#child || name !== this.#opened)) {
      await this.kit.ask(child, "open", model);
      [this.#child, this.#opened] = [child, name];
    }
    try {
      return await this.kit.ask<T>(child, op, args, seconds);
    } catch (error) {
      // After a fault of the device every call of the process fails.
      if (/cuda|cublas|cudnn/i.test((error as Error).message) && !/out of memory/i.test((error as Error).message)) this.kit.endPeer();
      throw error;
    }
  }

  async close(): Promise<void> {
    const child = await this.kit.peer();
    if (child) await this.kit.ask(child, "close");
    this.#opened = "";
  }
}

type PeerModel = Parameters<PyTorch["ask"]>[0];

async function inTurns(kit: Kit, pytorch: PyTorch, model: PeerModel, one: Case): Promise<void> {
  await kit.part(`${one.name} ${one.dtype}`, async () => {
    const ready: { key: string; peer: Peer; values: number[] }[] = [];
    for (const peer of kit.report.pytorch ? (one.peers ?? []) : []) {
      const key = `${one.name} ${peer.who}`;
      const prepared = await kit.attempt(`${one.name} ${one.dtype}, ${peer.who}`, async () => {
        await pytorch.ask(model, "prepare", { key, ...peer.prepare, warm: peer.warm ?? 3 });
        return true;
      });
      if (prepared) ready.push({ key, peer, values: [] });
    }
    const values: number[] = [];
    for (let turn = 0; turn <= one.turns; turn++) {
      const found = await one.ours(turn);
      if (turn > 0) values.push(...found);
      for (const entry of turn > 0 ? ready : []) {
        const { key, peer } = entry;
        const times = await kit.attempt(`${one.name} ${one.dtype}, ${peer.who}`, () => pytorch.ask<number[]>(model, "times", { key, repeats: peer.repeats ?? 5 }));
        if (times) entry.values.push(...times.map(peer.value));
        else ready.splice(ready.indexOf(entry), 1);
      }
    }
    const share = one.share?.(median(values));
    const note = one.note?.();
    kit.figure(one.name, one.dtype, "candlewick", one.unit, values, { ...(share !== undefined && { share }), ...(note !== undefined && { note }) });
    for (const { key, peer, values: theirs } of ready) {
      kit.figure(one.name, one.dtype, peer.who, one.unit, theirs);
      await kit.attempt(`${key}: its memory`, () => pytorch.ask(undefined, "drop", { key }));
    }
  });
}

/** How late a timer came during a case: the median of its turns' 99th percentiles. */
class Lag {
  readonly #all: number[] = [];

  seen<T extends Lagging>(answer: T): T {
    if (answer.lag) this.#all.push(answer.lag.p99);
    return answer;
  }

  figure(kit: Kit, name: string, dtype: KitDtype): void {
    // The first turn is a warm-up.
    kit.figure(`event loop lag p99: ${name}`, dtype, "candlewick", "ms", this.#all.slice(1));
  }
}

export async function benchmark(kit: Kit): Promise<void> {
  const models = modelsOf(kit);
  const pytorch = new PyTorch(kit);
  const limits = await kit.attempt("limits of the device", () => pytorch.ask<Kit["report"]["limits"]>(undefined, "limits", {}));
  kit.report.limits = limits ?? null;
  if (limits) console.log(`  copies ${(limits.copyBytes / 1e12).toFixed(2)} TB/s, bf16 ${(limits.bf16Flops / 1e12).toFixed(0)} TFLOP/s`);
  if (!kit.gpu) {
    await generation(kit, pytorch, models, "f32");
    await encoding(kit, pytorch, models, "f32");
    await texts(kit, pytorch, "f32");
    await load(kit, "f32");
    return;
  }
  await generation(kit, pytorch, models, "bf16");
  await encoding(kit, pytorch, models, "bf16");
  await texts(kit, pytorch, "bf16");
  await load(kit, "f16");
  await memory(kit, pytorch, models);
  await encoding(kit, pytorch, models, "f16");
  await generation(kit, pytorch, models, "f32");
  await encoding(kit, pytorch, models, "f32");
  await generation(kit, pytorch, models, "f16");
}

/** A worker with a model loaded, for `work`; what goes wrong in it ends this part alone. */
async function withModel(kit: Kit, kind: "gpt2" | "bert", path: string, dtype: KitDtype, work: (worker: Child, opened: Opened) => Promise<void>): Promise<void> {
  await kit.part(`${kind} in ${dtype}`, async () => {
    const worker = kit.worker();
    try {
      await work(worker, await kit.ask<Opened>(worker, "open", { kind, path, ...loading(kit, dtype, kind) }));
    } finally {
      kit.end(worker);
    }
  });
}

/** Share of the bf16 peak that the layers' products take at `rate` tokens a second. */
function ofPeak(kit: Kit, info: Opened["info"], dtype: KitDtype, rate: number): number | undefined {
  const { limits } = kit.report;
  return limits && dtype !== "f32" ? (rate * 24 * info.layers * info.hiddenSize ** 2) / limits.bf16Flops : undefined;
}

async function generation(kit: Kit, pytorch: PyTorch, models: Models, dtype: KitDtype): Promise<void> {
  await withModel(kit, "gpt2", models.gpt2, dtype, async (worker, { info }) => {
    const model = models.made ? ({ kind: "gpt2", folder: models.gpt2, dtype } as const) : undefined;
    const run = (one: Omit<Case, "dtype">) => inTurns(kit, pytorch, model, { ...one, dtype, ...(!model && { peers: [] }) });
    const limits = kit.report.limits;
    const cacheBytes = 2 * info.layers * info.hiddenSize * BYTES[dtype];
    const ofBandwidth = (rate: number, lanes: number, context: number) =>
      limits ? ((info.weightBytes + lanes * context * cacheBytes) * rate) / lanes / limits.copyBytes : undefined;
    let seed = 0;
    const next = () => (seed += 1000);

    const decode = kit.gpu ? { context: 128, tokens: 128 } : { context: 32, tokens: 24 };
    let lag = new Lag();
    let name = `decode, 1 stream, context ${decode.context}`;
    await run({
      name,
      unit: "tok/s",
      turns: 5,
      async ours() {
        const { times } = lag.seen(await kit.ask<Lagging & { times: number[] }>(worker, "decode", { ...decode, seed: next() }));
        // The first tokens come while a graph is captured.
        return [(1000 * (times.length - 1 - SETTLING)) / (times.at(-1)! - times[SETTLING]!)];
      },
      share: (rate) => ofBandwidth(rate, 1, decode.context + decode.tokens / 2),
      peers: [
        ...(kit.gpu ? [{ who: "PyTorch graph" as const, prepare: { what: "decode", count: 1, context: decode.context, graph: true }, value: (s: number) => 1 / s, repeats: 10 }] : []),
        { who: "PyTorch generate", prepare: { what: "generate", context: decode.context, tokens: 32 }, value: (s) => 32 / s, repeats: 1, warm: 1 },
      ],
    });
    lag.figure(kit, name, dtype);

    for (const lanes of kit.gpu ? (dtype === "bf16" ? [64, 512] : [64]) : [4]) {
      // Prompts of 16 to 512 tokens, in no order.
      const [shortest, longest, tokens] = kit.gpu ? [16, 512, 256] : [8, 64, 32];
      const lengths = Array.from({ length: lanes }, (_, i) => shortest + Math.round((((i * 37) % lanes) * (longest - shortest)) / (lanes - 1)));
      const whole: number[] = [];
      const contexts: number[] = [];
      let steady = true;
      lag = new Lag();
      name = `decode, ${lanes} streams, prompts ${shortest} to ${longest}, ${tokens} new tokens`;
      // A static cache of 512 positions is less than these streams need: in PyTorch's favour.
      const context = kit.gpu ? 384 : 64;
      await run({
        name,
        unit: "tok/s",
        turns: kit.gpu && lanes < 512 ? 4 : 2,
        async ours(turn) {
          const answer = lag.seen(await kit.ask<Streams>(worker, "streams", { lengths, tokens, seed: next() }, 90));
          if (turn > 0) whole.push((1000 * lanes * tokens) / answer.whole);
          // Where prompts take so long that hardly any tokens come while all decode, the whole run has to do.
          if (answer.steady.tokens < 8 * lanes) {
            steady = false;
            return [(1000 * lanes * tokens) / answer.whole];
          }
          contexts.push(answer.steady.context);
          return [(1000 * answer.steady.tokens) / answer.steady.ms];
        },
        share: (rate) => (contexts.length > 0 ? ofBandwidth(rate, lanes, median(contexts)) : undefined),
        note: () => (steady ? undefined : "prompts included"),
        peers: kit.gpu ? [{ who: "PyTorch graph", prepare: { what: "decode", count: lanes, context, graph: true }, value: (s) => lanes / s, repeats: 10 }] : [],
      });
      kit.figure(`${name}, prompts included`, dtype, "candlewick", "tok/s", whole);
      lag.figure(kit, name, dtype);
    }

    const [count, length] = kit.gpu ? [16, 512] : [2, 64];
    lag = new Lag();
    name = `prefill ${count} × ${length}`;
    await run({
      name,
      unit: "tok/s",
      turns: 6,
      ours: async () => [(1000 * count * length) / lag.seen(await kit.ask<Lagging & { ms: number }>(worker, "prefill", { count, length, seed: next() })).ms],
      share: (rate) => ofPeak(kit, info, dtype, rate),
      peers: [{ who: "PyTorch eager", prepare: { what: "prefill", count, length }, value: (s) => (count * length) / s }],
    });
    lag.figure(kit, name, dtype);

    await run({
      name: `first token of a prompt of ${length}`,
      unit: "ms",
      turns: 12,
      ours: async () => [(await kit.ask<{ ms: number }>(worker, "prefill", { count: 1, length, seed: next() })).ms],
      peers: [{ who: "PyTorch eager", prepare: { what: "prefill", count: 1, length }, value: (s) => 1000 * s, repeats: 3 }],
    });
  });
}

async function encoding(kit: Kit, pytorch: PyTorch, models: Models, dtype: KitDtype): Promise<void> {
  await withModel(kit, "bert", models.bert, dtype, async (worker, { info }) => {
    const model = models.made ? ({ kind: "bert", folder: models.bert, dtype } as const) : undefined;
    const cases: [count: number, length: number, inFlight: number, calls: number][] = kit.gpu
      ? [[32, 128, 4, 16], [32, 128, 1, 4], [1, 128, 1, 16], [1, 16, 1, 16], [128, 128, 1, 2]]
      : [[4, 16, 2, 4]];
    let seed = 0;
    for (const [count, length, inFlight, calls] of cases) {
      const lag = new Lag();
      const name = `BERT-base ${count} × ${length}${inFlight > 1 ? `, ${inFlight} calls in flight` : ""}`;
      const tokens = count * length * calls;
      const batches = inFlight > 1 ? 8 : 1;
      await inTurns(kit, pytorch, model, {
        name,
        dtype,
        unit: "tok/s",
        turns: 4,
        ours: async () => [(1000 * tokens) / lag.seen(await kit.ask<Lagging & { ms: number }>(worker, "encode", { count, length, calls, inFlight, seed: (seed += 100_000) })).ms],
        share: (rate) => ofPeak(kit, info, dtype, rate),
        // As many batches as are in flight here are enqueued there before any is waited for.
        peers: model ? [{ who: "PyTorch eager", prepare: { what: "encode", count, length, calls: batches }, value: (s) => (batches * count * length) / s, repeats: 4 }] : [],
      });
      if (count * length >= 4096 || !kit.gpu) lag.figure(kit, name, dtype);
    }
  });
}

/** Vectors of mixed texts, tokenising included, beside sentence-transformers; and the same from ids. */
async function texts(kit: Kit, pytorch: PyTorch, dtype: KitDtype): Promise<void> {
  const file = kit.at("texts.json");
  if (!modelsOf(kit).made) return kit.skip("mixed texts", "PyTorch has made no model and no texts");
  await kit.attempt("PyTorch before the texts", () => pytorch.close());
  await withModel(kit, "bert", kit.at("minilm"), dtype, async (worker) => {
    const lag = new Lag();
    const ask = (fromIds: boolean) => kit.ask<Lagging & { ms: number; texts: number; tokens: number }>(worker, "texts", { file, fromIds }, 60);
    const { texts: count, tokens } = await ask(false);
    const prepare = { what: "texts", folder: kit.at("minilm"), dtype, texts: file };
    const name = "MiniLM, mixed texts";
    await inTurns(kit, pytorch, undefined, {
      name,
      dtype,
      unit: "texts/s",
      turns: 3,
      ours: async () => [(1000 * count) / lag.seen(await ask(false)).ms],
      note: () => `${count} texts, ${tokens} tokens`,
      peers: [{ who: "sentence-transformers", prepare, value: (s) => count / s, repeats: 1, warm: 1 }],
    });
    lag.figure(kit, name, dtype);
    await inTurns(kit, pytorch, undefined, { name: "MiniLM, the same from ids", dtype, unit: "texts/s", turns: 3, ours: async () => [(1000 * count) / (await ask(true)).ms] });
  });
}

/** Seconds from the start of a process to its first token. */
async function load(kit: Kit, dtype: KitDtype): Promise<void> {
  const models = modelsOf(kit);
  const path = dtype === "f16" ? models.gpt2F16 : models.gpt2;
  await kit.part(`load in ${dtype}`, async () => {
    const seconds: number[] = [];
    for (let turn = 0; turn <= 3; turn++) {
      const worker = kit.worker();
      // The cache that a user gets who asks for none.
      const { first } = await kit.ask<{ first: number }>(worker, "load", { path, dtype, device: kit.report.device });
      if (turn > 0) seconds.push(first / 1000);
      kit.end(worker);
    }
    kit.figure("load in a fresh process to the first token", dtype, "candlewick", "s", seconds);
    if (!models.made || !kit.report.pytorch) return;
    await kit.attempt(`load in ${dtype}, PyTorch`, async () => {
      const theirs: number[] = [];
      for (let turn = 0; turn < (kit.gpu ? 2 : 1); turn++) {
        const [python, args] = kit.pythonProgram("load", path, dtype);
        const begin = performance.now();
        const { status, stderr } = spawnSync(python, args, { encoding: "utf8", timeout: 1000 * Math.min(45, kit.left()) });
        if (status !== 0) throw new Error(stderr?.trim().split("\n").at(-1) || "no answer in 45 s");
        theirs.push((performance.now() - begin) / 1000);
      }
      kit.figure("load in a fresh process to the first token", dtype, "PyTorch eager", "s", [Math.min(...theirs)]);
    });
  });
}

/** What a model takes of the GPU, and what of it is there again after `close()`. */
async function memory(kit: Kit, pytorch: PyTorch, models: Models): Promise<void> {
  if (!kit.report.pytorch) return kit.skip("memory of the GPU", "PyTorch, which measures it, is not there");
  await kit.part("memory of the GPU", async () => {
    await pytorch.close();
    const free = () => pytorch.ask<number>(undefined, "memory", {});
    const empty = await free();
    const worker = kit.worker();
    const open = { kind: "gpt2", path: models.gpt2, dtype: "bf16", device: "cuda", kvCacheBytes: 4 * 2 ** 30 };
    const { info, stats } = await kit.ask<Opened>(worker, "open", open);
    const lengths = Array.from({ length: 64 }, (_, i) => 16 + 7 * i);
    await kit.ask(worker, "streams", { lengths, tokens: 64, seed: 1 });
    const used = (empty - (await free())) / MIB;
    await kit.ask(worker, "close");
    const left = (empty - (await free())) / MIB;
    await kit.ask(worker, "open", open);
    await kit.ask(worker, "streams", { lengths, tokens: 64, seed: 2 });
    await kit.ask(worker, "close");
    const again = (empty - (await free())) / MIB;
    kit.end(worker);
    const own = (info.weightBytes + stats.blocks * stats.blockBytes) / MIB;
    kit.figure("GPU memory of a model with a pool of 4 GiB", "bf16", "candlewick", "MiB", [used]);
    kit.figure("GPU memory beyond weights and pool", "bf16", "candlewick", "MiB", [used - own]);
    kit.figure("GPU memory after close()", "bf16", "candlewick", "MiB", [left]);
    // The context is what is left after the first model; a second one must leave nothing more.
    kit.check("after close() nothing but the context is left on the GPU", left < 700 && again < left + 16, `${left.toFixed(0)} MiB, after a second model ${again.toFixed(0)} MiB`);
  });
}

/** BERT compiled by torch: the compiler takes most of a minute. */
export async function compiled(kit: Kit, dtype: KitDtype): Promise<void> {
  const models = modelsOf(kit);
  if (!kit.gpu || !models.made || !kit.report.pytorch) return kit.skip("torch.compile", "it needs a GPU and PyTorch");
  await kit.attempt(`BERT-base 32 × 128 ${dtype}, PyTorch compiled`, async () => {
    const pytorch = new PyTorch(kit);
    const model = { kind: "bert", folder: models.bert, dtype } as const;
    await pytorch.ask(model, "prepare", { key: "compiled", what: "encode", count: 32, length: 128, calls: 8, compiled: true }, 120);
    const times = await pytorch.ask<number[]>(model, "times", { key: "compiled", repeats: 10 });
    kit.figure("BERT-base 32 × 128, 4 calls in flight", dtype, "PyTorch compiled", "tok/s", times.map((s) => (8 * 4096) / s));
  });
}
