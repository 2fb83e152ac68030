/** Memory for keys and values: 64 sequences at once within their budget, and beams that share what is common. */
import { type Context } from "../measure.js";
import { modelFiles, mustExist } from "../paths.js";
import { shapeOf } from "../shape.js";
import { randomIds } from "../stats.js";
import type { Row } from "../types.js";

/** Bytes. */
interface Held {
  /** Of keys and values, at most. */
  kv: number;
  /** Of the process beyond what it had with the model loaded. */
  rss: number;
  ms: number;
}

export async function memory(context: Context): Promise<void> {
  if (!context.dtypes.includes("f32")) return;
  const path = mustExist(modelFiles.gpt2("candlewick", "f32"));
  const shape = shapeOf(path);
  const sequences = context.quick ? 4 : 64;
  const positions = context.quick ? 128 : Math.min(1024, shape.positions);
  const cases = [
    { what: `${sequences} sequences of ${positions} positions`, sequences, numBeams: 1, prompt: positions - 32, tokens: 32 },
    { what: "a sequence of 576 positions", sequences: 1, numBeams: 1, prompt: 512, tokens: 64 },
    { what: "four beams of 576 positions, 64 of them apart", sequences: 1, numBeams: 4, prompt: 512, tokens: 64 },
  ];
  for (const { what, sequences, numBeams, prompt, tokens } of cases) {
    context.progress(`memory, ${what}`);
    const contender = await context.contenders.fresh("candlewick");
    if (!contender) continue;
    const prompts = Array.from({ length: sequences }, (_, i) => randomIds(Math.min(prompt, shape.positions - tokens), shape.vocabulary, i));
    const held = await contender.child.ask<Held>("hold", { path, dtype: "f32", threads: context.threads, prompts, numBeams, tokens });
    contender.child.kill();
    for (const [label, bytes] of [["keys and values", held.kv], ["process beyond the loaded model", held.rss]] as const) {
      const median = Number((bytes / 2 ** 20).toFixed(1));
      const row: Row = {
        case: `memory, ${what}, ${label}`,
        contender: "candlewick",
        version: contender.version,
        dtype: "f32",
        median,
        p10: median,
        p90: median,
        unit: "MB",
        shareOfLimit: null,
      };
      context.rows.push(row);
    }
  }
}
