/**
 * Measures contenders in turns: limits, A, B, limits, A, B, …, so that what the machine's neighbours do befalls all of
 * them. Each has loaded and warmed up before the first turn.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Child } from "./child.js";
import type { Contender, Contenders } from "./contenders.js";
import { median, spread } from "./stats.js";
import type { ContenderName, Dtype, Limits, Row, Unit } from "./types.js";

export interface Context {
  contenders: Contenders;
  threads: number;
  quick: boolean;
  dtypes: readonly Dtype[];
  /** Measurements whose case does not contain it are left out. */
  part: string;
  limits: Child;
  /** All that were measured. */
  seen: Limits[];
  isa: string | null;
  rows: Row[];
  /** What Candlewick computed in f32, by case. */
  exact: Map<string, readonly number[][]>;
  skip(what: string, reason: string): void;
  note(text: string): void;
  progress(text: string): void;
}

/** What a limit allows at most, in the row's unit. */
export type Best = (limits: Limits) => number;

export interface Measurement {
  case: string;
  dtype: Dtype;
  unit: Unit;
  /** Who is asked, in the order of the turns. */
  contenders: readonly ContenderName[];
  /** The arguments of `open`. */
  open(contender: ContenderName): object;
  /**
   * One turn's figures, in the unit. `turn` is 0 for the warm-up. A second value is compared with the other
   * contenders'.
   */
  turn(child: Child, contender: Contender, turn: number): Promise<Turn>;
  best?: Best;
  rounds: number;
}

export interface Turn {
  values: number[];
  /** What was computed: ids of tokens, numbers of a hidden state. */
  computed?: readonly number[];
  /** A vector of each text of the warm-up, to be compared with those of other dtypes. */
  vectors?: readonly number[][];
}

/** A moment in which what the last one leaves spinning goes to sleep. */
const PAUSE_MS = 150;

/**
 * After so long, measurements that share models do with the rounds they have, if these are three: slow or busy
 * machines.
 */
const BUDGET_SECONDS = 30;
const LEAST_ROUNDS = 3;

export async function measureLimits(context: Context): Promise<Limits> {
  const { isa, ...limits } = await context.limits.ask<Limits & { isa: string }>("limits");
  context.seen.push(limits);
  context.isa = isa;
  return limits;
}

/** Measurements that share models and so are measured in turns with each other, beside their contenders. */
export async function measure(context: Context, all: readonly Measurement[]): Promise<void> {
  const measurements = all.filter((measurement) => measurement.case.includes(context.part));
  const entries: { measurement: Measurement; contender: Contender; values: number[]; cosine: Row["cosine"] }[] = [];
  const opened = new Map<ContenderName, object>();
  for (const measurement of measurements) {
    const computed: { contender: ContenderName; values: readonly number[] }[] = [];
    for (const name of measurement.contenders.flatMap((name) => (name === "candlewick" ? [name, "before" as const] : [name]))) {
      if (!context.contenders.wanted(name)) continue;
      context.progress(`${measurement.case} ${measurement.dtype}: ${name} warms up`);
      const contender = await context.contenders.get(name);
      if (!contender) continue;
      try {
        const open = { ...measurement.open(name), threads: context.threads };
        if (JSON.stringify(opened.get(name)) !== JSON.stringify(open)) {
          if (opened.has(name)) throw new Error("two models in one measurement");
          await contender.child.ask("open", open);
          opened.set(name, open);
        }
        const warm = await measurement.turn(contender.child, contender, 0);
        if (warm.computed) computed.push({ contender: name, values: warm.computed });
        if (warm.vectors && name === "candlewick" && measurement.dtype === "f32") context.exact.set(measurement.case, warm.vectors);
        const exact = context.exact.get(measurement.case);
        const cosine = exact && warm.vectors && cosines(exact, warm.vectors);
        entries.push({ measurement, contender, values: [], cosine });
      } catch (error) {
        context.skip(`${measurement.case} ${measurement.dtype}, ${name}`, (error as Error).message);
      }
    }
    compare(context, measurement, computed);
  }

  const limits: Limits[] = [];
  const rounds = Math.max(0, ...measurements.map((measurement) => measurement.rounds));
  const begin = performance.now();
  for (let round = 1; round <= rounds && entries.length > 0; round++) {
    if (round > LEAST_ROUNDS && performance.now() - begin > BUDGET_SECONDS * 1000) break;
    limits.push(await measureLimits(context));
    for (const { measurement, contender, values } of entries) {
      if (round > measurement.rounds) continue;
      await sleep(PAUSE_MS);
      context.progress(`${measurement.case} ${measurement.dtype}: ${contender.name}, ${round} of ${measurement.rounds}`);
      try {
        values.push(...(await measurement.turn(contender.child, contender, round)).values);
      } catch (error) {
        context.skip(`${measurement.case} ${measurement.dtype}, ${contender.name}`, (error as Error).message);
      }
    }
  }
  for (const { measurement, contender, values, cosine } of entries) {
    if (values.length > 0) context.rows.push({ ...rowOf(measurement, contender, values, limits), ...(cosine && { cosine }) });
  }
  for (const name of opened.keys()) await (await context.contenders.get(name))?.child.ask("close").catch(() => {});
}

function rowOf(measurement: Measurement, contender: Contender, values: number[], limits: Limits[]): Row {
  const { dtype, unit, best } = measurement;
  const figures = spread(values);
  let share: number | null = null;
  if (best && limits.length > 0) {
    const possible = best({
      bandwidthGBs: median(limits.map((limit) => limit.bandwidthGBs)),
      fmaGflops: median(limits.map((limit) => limit.fmaGflops)),
      bf16Gflops: median(limits.map((limit) => limit.bf16Gflops)),
      int8Gops: median(limits.map((limit) => limit.int8Gops)),
    });
    share = unit === "ms" ? possible / figures.median : figures.median / possible;
  }
  const digits = (value: number) => Number(value.toPrecision(5));
  return {
    case: measurement.case,
    contender: contender.name,
    version: contender.version,
    dtype,
    median: digits(figures.median),
    p10: digits(figures.p10),
    p90: digits(figures.p90),
    unit,
    shareOfLimit: share === null ? null : Number(share.toFixed(4)),
  };
}

function cosines(exact: readonly number[][], found: readonly number[][]): Row["cosine"] {
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  const all = found.map((vector, i) => dot(vector, exact[i]!) / Math.sqrt(dot(vector, vector) * dot(exact[i]!, exact[i]!)));
  const digits = (value: number) => Number(value.toFixed(6));
  return { min: digits(Math.min(...all)), mean: digits(all.reduce((sum, x) => sum + x, 0) / all.length) };
}

/** Same weights and same ids must give the same output; what is quantised differs, so that f32 alone is compared. */
function compare(context: Context, { case: name, dtype }: Measurement, all: { contender: ContenderName; values: readonly number[] }[]): void {
  const [first, ...others] = all;
  if (!first || dtype !== "f32") return;
  for (const other of others) {
    const differs = other.values.some((value, i) => Math.abs(value - first.values[i]!) > 2e-3);
    if (differs) context.note(`${name} ${dtype}: ${other.contender} computes something else than ${first.contender}`);
  }
}
