/** What the CUDA backend set out to reach, as questions to a report. What no GPU has measured is never reached. */
import { number, table } from "../table.js";
import type { Check, Figure, KitDtype, KitReport, Who } from "./types.js";

export interface Outcome {
  case: string;
  ours: string;
  theirs: string;
  ratio: string;
  goal: string;
  verdict: "reached" | "**missed**" | "not measured";
}

/** What a goal finds: absent is not measured. */
interface Answer {
  ours?: string;
  theirs?: string;
  ratio?: string;
  reached?: boolean;
}

interface Goal {
  case: string;
  goal: string;
  ask(found: Found): Answer;
}

class Found {
  constructor(readonly report: Pick<KitReport, "figures" | "checks">) {}

  figure(name: string, dtype: KitDtype, who: Who = "candlewick"): Figure | undefined {
    return this.report.figures.find((figure) => figure.case.startsWith(name) && figure.dtype === dtype && figure.who === who);
  }

  checks(name: string, dtype?: KitDtype): Check[] {
    return this.report.checks.filter((check) => check.what.startsWith(name) && (dtype === undefined || check.dtype === dtype) && check.passed !== null);
  }
}

const shown = (figure: Figure | undefined) => (figure ? `${number(figure.median)} ${figure.unit}` : undefined);
const percent = (share: number) => `${(100 * share).toFixed(0)}%`;

const share = (name: string, dtype: KitDtype, least: number, limit: string): Goal => ({
  case: `${name}, ${dtype}`,
  goal: `≥ ${percent(least)} of ${limit}`,
  ask(found) {
    const figure = found.figure(name, dtype);
    if (figure?.share === undefined) return { ours: shown(figure) };
    return { ours: shown(figure), ratio: percent(figure.share), reached: figure.share >= least };
  },
});

/** How many times a peer's speed ours is; of seconds and milliseconds, at most so many times the peer's. */
const times = (name: string, dtype: KitDtype, who: Who, target: number, most = false): Goal => ({
  case: `${name}, ${dtype}`,
  goal: `${most ? "≤" : "≥"} ${target}× ${who}`,
  ask(found) {
    const [ours, theirs] = [found.figure(name, dtype), found.figure(name, dtype, who)];
    const answer = { ours: shown(ours), theirs: shown(theirs) };
    if (!ours || !theirs) return answer;
    const ratio = ours.median / theirs.median;
    return { ...answer, ratio: `${ratio.toFixed(2)}×`, reached: most ? ratio <= target : ratio >= target };
  },
});

const atMost = (name: string, dtype: KitDtype, target: number, unit: string): Goal => ({
  case: `${name}, ${dtype}`,
  goal: `≤ ${target} ${unit}`,
  ask(found) {
    const figure = found.figure(name, dtype);
    return figure ? { ours: shown(figure), reached: figure.median <= target } : {};
  },
});

const checked = (title: string, name: string, goal: string, dtype?: KitDtype): Goal => ({
  case: dtype ? `${title}, ${dtype}` : title,
  goal,
  ask(found) {
    const checks = found.checks(name, dtype);
    if (checks.length === 0) return {};
    const passed = checks.filter((check) => check.passed).length;
    const [first] = checks;
    return { ours: checks.length === 1 ? first!.detail.split(", PyTorch's own")[0]!.split(", largest")[0]! : `${passed} of ${checks.length}`, reached: passed === checks.length };
  },
});

/** What the kit does not measure yet. */
const unmeasured = (name: string, goal: string): Goal => ({ case: name, goal, ask: () => ({}) });

const ONE = "decode, 1 stream, context 128";
const streams = (lanes: number) => `decode, ${lanes} streams, prompts 16 to 512, 256 new tokens`;
const BERT = "BERT-base 32 × 128, 4 calls in flight";
const LOAD = "load in a fresh process to the first token";
const dtypes = ["f32", "f16", "bf16"] as const;

export const goals: readonly Goal[] = [
  ...dtypes.map((dtype) => checked("GPT-2 124M, error of log-probabilities", "GPT-2's log-probabilities", dtype === "f32" ? "≤ 1e-5" : "≤ 1.1× PyTorch's own", dtype)),
  checked("GPT-2 124M, greedy tokens", "greedy tokens are PyTorch's", "all equal", "f32"),
  ...dtypes.map((dtype) => checked("BERT-base, error of states", "BERT's states", dtype === "f32" ? "≤ 1e-5" : "≤ 1.1× PyTorch's own", dtype)),
  checked("MiniLM, least cosine of vectors", "MiniLM's vectors", "≥ 0.9995", "f16"),
  checked("MiniLM, least cosine of vectors", "MiniLM's vectors", "≥ 0.999", "bf16"),
  ...dtypes.map((dtype) => checked("same bits in every batch, again, after cancellations", "same bits", "all", dtype)),
  checked("faults are refused, and the next request served", "fault", "all"),
  checked("fixtures' tests in Rust", "Rust tests", "all"),
  share(ONE, "bf16", 0.2, "bandwidth"),
  times(ONE, "bf16", "PyTorch graph", 1),
  times(ONE, "bf16", "PyTorch generate", 10),
  share(ONE, "f32", 0.35, "bandwidth"),
  ...[64, 512].flatMap((lanes) => [share(streams(lanes), "bf16", 0.4, "bandwidth"), times(streams(lanes), "bf16", "PyTorch graph", 1.5)]),
  share("prefill 16 × 512", "bf16", 0.35, "the bf16 peak"),
  times("prefill 16 × 512", "bf16", "PyTorch eager", 1.2),
  atMost("first token of a prompt of 512", "bf16", 3, "ms"),
  ...(["f16", "bf16"] as const).flatMap((dtype) => [
    share(BERT, dtype, 0.35, "the bf16 peak"),
    times(BERT, dtype, "PyTorch eager", 2),
    times(BERT, dtype, "PyTorch compiled", 0.9),
  ]),
  times(BERT, "f32", "PyTorch eager", 0.95),
  times("MiniLM, mixed texts", "bf16", "sentence-transformers", 3),
  {
    case: "MiniLM, mixed texts to the same from ids, bf16",
    goal: "≥ 60%",
    ask(found) {
      const [text, ids] = [found.figure("MiniLM, mixed texts", "bf16"), found.figure("MiniLM, the same from ids", "bf16")];
      if (!text || !ids) return { ours: shown(text) };
      return { ours: `${shown(text)} to ${number(ids.median)}`, ratio: percent(text.median / ids.median), reached: text.median >= 0.6 * ids.median };
    },
  },
  unmeasured("BERT-base beside text-embeddings-inference, f16", "≥ 1×"),
  unmeasured("decode beside llama.cpp, f16: 1 stream, 64 streams", "≥ 1.5×, ≥ 5×"),
  atMost(LOAD, "f16", 3, "s"),
  times(LOAD, "f16", "PyTorch eager", 0.6, true),
  atMost("GPU memory beyond weights and pool", "bf16", 700, "MiB"),
  checked("after close() only the context is left", "after close()", "≤ 700 MiB, twice the same"),
  {
    case: "event loop lag p99, the worst of all cases",
    goal: "≤ 5 ms",
    ask({ report }) {
      const lags = report.figures.filter((figure) => figure.case.startsWith("event loop lag")).toSorted((a, b) => b.median - a.median);
      return lags[0] ? { ours: `${number(lags[0].median)} ms`, reached: lags[0].median <= 5 } : {};
    },
  },
  unmeasured("training GPT-2 124M, 8 × 1,024", "f32 ≥ 0.7× PyTorch eager, bf16 ≥ 0.5× autocast"),
];

/** Every goal, in its order; of a run on a CPU, or of none, nothing is measured. */
export function outcomes(report: KitReport | undefined): Outcome[] {
  const found = new Found(report?.device === "cuda" ? report : { figures: [], checks: [] });
  return goals.map(({ case: name, goal, ask }) => {
    const { ours = "", theirs = "", ratio = "", reached } = ask(found);
    return { case: name, ours, theirs, ratio, goal, verdict: reached === undefined ? "not measured" : reached ? "reached" : "**missed**" };
  });
}

export function goalsTable(report: KitReport | undefined): string {
  const rows = outcomes(report).map((row) => [row.case, row.ours, row.theirs, row.ratio, row.goal, row.verdict]);
  return table(["case", "Candlewick", "PyTorch", "ratio", "goal", ""], rows, "lrrrll");
}
