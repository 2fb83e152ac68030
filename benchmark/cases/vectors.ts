/** Search among a million vectors, beside faiss: exactly, in bytes, in bits; an index from a file. */
import { rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Context, measure, type Measurement } from "../measure.js";
import type { ContenderName, Dtype } from "../types.js";

const DIMENSIONS = 384;
/** Queries at once. */
const MANY = 64;
const TOP = 10;
/** Bytes of the file that is loaded. */
const FILE = 1e9;

interface Searched {
  times: number[];
  perSecond: number;
  recall: number;
}

export async function vectors(context: Context): Promise<void> {
  const count = context.quick ? 20_000 : 1_000_000;
  for (const dtype of ["f32", "int8", "binary"] as const) await measure(context, search(dtype, count, context.quick ? 1 : 5));
  await load(context, context.quick ? 1e7 : FILE);
}

/** One query, several at once, and the share of the ten closest that are found, of one index. */
function search(dtype: Dtype & ("f32" | "int8" | "binary"), count: number, rounds: number): Measurement[] {
  const bytes = { f32: 4 * DIMENSIONS, int8: DIMENSIONS, binary: DIMENSIONS / 8 }[dtype];
  const kept: Partial<Record<ContenderName, Searched>> = {};
  const what = `${count} x ${DIMENSIONS}`;
  const common = { dtype, contenders: ["candlewick", "faiss"] as const, open: () => ({ kind: "vectors", precision: dtype, count, dimensions: DIMENSIONS }), rounds };
  return [
    {
      ...common,
      case: `vectors one query among ${what}`,
      unit: "ms",
      async turn(child, { name }) {
        const searched = await child.ask<Searched>("searchVectors", { topK: TOP, single: 10, many: MANY });
        kept[name] = searched;
        return { values: searched.times };
      },
      // What is kept of each vector is read once.
      best: ({ bandwidthGBs }) => (count * bytes) / (bandwidthGBs * 1e6),
    },
    { ...common, case: `vectors ${MANY} queries among ${what}`, unit: "queries/s", turn: async (_, { name }) => ({ values: [kept[name]!.perSecond] }) },
    { ...common, case: `vectors recall@${TOP} among ${what}`, unit: "%", turn: async (_, { name }) => ({ values: [100 * kept[name]!.recall] }), best: () => 100 },
  ];
}

/** A file that is in the page cache, into a fresh process. */
async function load(context: Context, bytes: number): Promise<void> {
  const path = join(tmpdir(), `candlewick-bench-${process.pid}.index`);
  const name = (size: number) => `vectors load of ${(size / 1e9).toPrecision(2)} GB`;
  if (!name(bytes).includes(context.part) || !context.contenders.wanted("candlewick")) return;
  const contender = await context.contenders.fresh("candlewick");
  if (!contender) return;
  try {
    context.progress(`${name(bytes)}: candlewick writes it`);
    await contender.child.ask("saveVectors", { path, count: Math.round(bytes / (5 * DIMENSIONS + 16)), dimensions: DIMENSIONS });
    contender.child.kill();
    const { size } = statSync(path);
    const [times, memory]: [number[], number[]] = [[], []];
    for (let round = 0; round < (context.quick ? 1 : 5); round++) {
      const fresh = await context.contenders.fresh("candlewick");
      if (!fresh) return;
      const { ms, rss } = await fresh.child.ask<{ ms: number; rss: number }>("loadVectors", { path, threads: context.threads });
      fresh.child.kill();
      times.push(ms);
      memory.push(rss / 1e6);
    }
    const row = (what: string, values: number[], unit: "ms" | "MB", share: number | null) => {
      const sorted = values.toSorted((a, b) => a - b);
      const [p10, median, p90] = [sorted[0]!, sorted[sorted.length >> 1]!, sorted.at(-1)!];
      context.rows.push({ case: what, contender: "candlewick", version: contender.version, dtype: "f32", median, p10, p90, unit, shareOfLimit: share && Number((share / median).toFixed(4)) });
    };
    row(name(bytes), times, "ms", null);
    row(`${name(bytes)}: memory`, memory, "MB", size / 1e6);
  } finally {
    rmSync(path, { force: true });
  }
}
