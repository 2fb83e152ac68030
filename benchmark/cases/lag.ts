/** How long the JavaScript thread is held: the delay of a timer of 5 ms while something else runs. */
import type { Context } from "../measure.js";
import { modelFiles, mustExist } from "../paths.js";
import { quantile, randomIds, spread } from "../stats.js";
import type { ContenderName, Dtype, Row } from "../types.js";

const MEGABYTE = 1 << 20;

export async function lag(context: Context): Promise<void> {
  const rows = new LagRows(context, context.quick ? 1 : 5, context.quick ? 0.2 : 1.5);
  const prompts = Array.from({ length: 64 }, (_, i) => randomIds(512, 50257, i + 1));
  const generation = { prompts, tokens: 128, text: prose(), path: modelFiles.gpt2("candlewick", "f32"), dtype: "f32" };
  const phases = ["idle", "prefill", "decode", "tokenise", "load"];
  await rows.of("candlewick", "gpt2", modelFiles.gpt2("candlewick", "f32"), phases, generation);

  const ids = Array.from({ length: 32 }, (_, i) => randomIds(128, 30522, i + 1));
  await rows.of("candlewick", "bert", modelFiles["bert-base"]("candlewick"), ["encode"], { ids });
  const onnx = modelFiles["bert-base"]("onnxruntime-node");
  await rows.of("onnxruntime-node", "bert", onnx, ["idle", "encode", "load"], { ids, path: onnx });
}

/** A megabyte of English and Chinese. */
function prose(): string {
  const line = "The quick brown fox jumps over the lazy dog, 敏捷的棕色狐狸跳过懒狗; and so it goes on. ";
  return line.repeat(Math.ceil(MEGABYTE / Buffer.byteLength(line)));
}

/** Rows of one kind of delay: p99 and the longest. */
export class LagRows {
  constructor(
    readonly context: Context,
    readonly rounds: number,
    /** Of each round. */
    readonly seconds: number,
  ) {}

  async of(name: ContenderName, kind: string, path: string, phases: string[], args: object): Promise<void> {
    const { context, rounds, seconds } = this;
    const { threads } = context;
    const contender = await context.contenders.get(name);
    if (!contender) return;
    try {
      await contender.child.ask("open", { kind, path: mustExist(path), dtype: "f32", threads });
      for (const phase of phases) {
        const request = { ...args, phase, threads };
        context.progress(`lag during ${phase}: ${name}`);
        await contender.child.ask("lag", { ...request, seconds: 0.05 });
        const all: number[][] = [];
        for (let round = 0; round < rounds; round++) {
          all.push((await contender.child.ask<{ delays: number[] }>("lag", { ...request, seconds })).delays);
        }
        this.#push(`lag during ${phase}, p99`, name, contender.version, all, 0.99);
        this.#push(`lag during ${phase}, max`, name, contender.version, all, 1);
      }
    } catch (error) {
      context.skip(`lag, ${name}`, (error as Error).message);
    }
    await contender.child.ask("close").catch(() => {});
  }

  /** The quantile of each round's delays, and the median of that. */
  #push(label: string, contender: ContenderName, version: string, rounds: number[][], q: number): void {
    const digits = (value: number) => Number(value.toFixed(3));
    const figures = spread(rounds.map((delays) => quantile(delays, q)));
    const row: Row = {
      case: label,
      contender,
      version,
      dtype: "f32" satisfies Dtype,
      median: digits(figures.median),
      p10: digits(figures.p10),
      p90: digits(figures.p90),
      unit: "ms",
      shareOfLimit: null,
    };
    this.context.rows.push(row);
  }
}
