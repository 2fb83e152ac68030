/** A fresh process loads GPT-2 in f16 from the page cache and makes one token: how long, and in how much memory. */
import { statSync } from "node:fs";
import { type Context } from "../measure.js";
import { bench, mustExist } from "../paths.js";
import { randomIds, spread } from "../stats.js";
import type { ContenderName, Row, Unit } from "../types.js";

interface Loaded {
  ms: number;
  loaded: number;
  /** Bytes of the process before and at its highest. */
  before: number;
  peak: number;
  weights?: number;
}

const pathOf = (name: ContenderName) => (name === "candlewick" ? bench("gpt2-f16") : bench("gpt2-f16.gguf"));

export async function load(context: Context): Promise<void> {
  if (!context.dtypes.includes("f16")) return;
  const rounds = context.quick ? 1 : 5;
  const ids = randomIds(16, 50257, 1);
  const results = new Map<ContenderName, { version: string; values: Loaded[] }>();
  // Round 0 warms the page cache.
  for (let round = 0; round <= rounds; round++) {
    for (const name of ["candlewick", "node-llama-cpp"] as const) {
      context.progress(`load f16: ${name}, ${round} of ${rounds}`);
      try {
        const path = mustExist(pathOf(name));
        const contender = await context.contenders.fresh(name);
        if (!contender) continue;
        const value = await contender.child.ask<Loaded>("load", { path, dtype: "f16", threads: context.threads, ids });
        contender.child.kill();
        const result = results.get(name) ?? { version: contender.version, values: [] };
        if (round > 0) result.values.push(value);
        results.set(name, result);
      } catch (error) {
        if (round === 0) context.skip(`load f16, ${name}`, (error as Error).message);
      }
    }
  }
  for (const [contender, { version, values }] of results) {
    const push = (label: string, unit: Unit, of: (loaded: Loaded) => number) => {
      const figures = spread(values.map(of));
      const round = (value: number) => Number(value.toFixed(1));
      const row: Row = {
        case: label,
        contender,
        version,
        dtype: "f16",
        median: round(figures.median),
        p10: round(figures.p10),
        p90: round(figures.p90),
        unit,
        shareOfLimit: null,
      };
      context.rows.push(row);
    };
    if (values.length === 0) continue;
    push("load to first token", "ms", ({ ms }) => ms);
    push("load, peak memory of the process", "MB", ({ peak }) => peak / 1e6);
    push("load, peak memory beyond an empty process", "MB", ({ peak, before }) => (peak - before) / 1e6);
    push("load, weights", "MB", ({ weights }) => (weights ?? statSync(pathOf(contender)).size) / 1e6);
  }
}
