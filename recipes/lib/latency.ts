/** How long one request takes, on a model that is loaded: what a page that calls it would wait. */
import { loadBERT, loadGPT2, type GenerateOptions } from "../../index.js";
import { packageFolder } from "./ship.js";
import type { Trained } from "./train.js";

export type Latency = Record<string, { median: number; p90: number; unit: "ms" | "tokens/s" }>;

const WARM_UP = 5;
const REQUESTS = 60;

const summary = (values: number[], unit: "ms" | "tokens/s", slow: "high" | "low") => {
  const sorted = values.toSorted((a, b) => (slow === "high" ? a - b : b - a));
  const quantile = (share: number) => sorted[Math.floor(share * (sorted.length - 1))]!;
  return { median: quantile(0.5), p90: quantile(0.9), unit };
};

export async function latency({ ships, training, evaluation, request }: Trained, rows: readonly Record<string, unknown>[], signal: AbortSignal): Promise<Latency> {
  const some = Array.from({ length: WARM_UP + REQUESTS }, (_, i) => rows[Math.floor((i * rows.length) / (WARM_UP + REQUESTS))]!);
  const timed = async (request: (row: Record<string, unknown>) => Promise<unknown>): Promise<number[]> => {
    const times: number[] = [];
    for (const row of some) {
      const begin = performance.now();
      await request(row);
      times.push(performance.now() - begin);
    }
    return times.slice(WARM_UP);
  };
  const folder = packageFolder(ships);
  if (training.task === "sentiment-analysis" || training.task === "text-classification") {
    await using model = await loadBERT(folder, { signal });
    return { "one text": summary(await timed((row) => model.classify(row["text"] as string, { signal })), "ms", "high") };
  }
  await using model = await loadGPT2(folder, { signal });
  const { prompt, maxNewTokens = 64 } = request!;
  const numBeams = evaluation?.generation?.numBeams;
  const options: GenerateOptions = { maxNewTokens, signal };
  const [first, rates]: [number[], number[]] = [[], []];
  await timed(async (row) => {
    const begin = performance.now();
    const stream = model.generate(prompt(row), { ...options, ...(numBeams === undefined ? { seed: 1 } : { temperature: 0 }) });
    let tokens = 0;
    for await (const _ of stream) if (++tokens === 1) first.push(performance.now() - begin);
    if (tokens > 1) rates.push((1000 * (tokens - 1)) / (performance.now() - begin - first.at(-1)!));
  });
  const firstToken = summary(first.slice(WARM_UP), "ms", "high");
  if (numBeams === undefined) return { "first token": firstToken, "tokens after it": summary(rates.slice(WARM_UP), "tokens/s", "low") };
  const whole = await timed((row) => model.generate(prompt(row), { ...options, numBeams }).result);
  return { "first token, greedy": firstToken, [`whole, ${numBeams} beams`]: summary(whole, "ms", "high") };
}
