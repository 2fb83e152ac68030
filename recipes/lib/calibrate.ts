/**
 * Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017): one number by which logits are
 * divided.
 */
import { readFile } from "node:fs/promises";
import { pipeline } from "../../index.js";

/** What makes the labels of a file the likeliest, given a classifier's logits; between 1/4 and 4. */
export async function temperature(model: string, file: string): Promise<number> {
  const rows = (await readFile(file, "utf8")).split("\n").filter(Boolean).map((line) => JSON.parse(line) as { text: string; label: string });
  await using classify = await pipeline("text-classification", model, { dtype: "f32" });
  const said = await classify(rows.map(({ text }) => text), { topK: "all", functionToApply: "none" });
  const loss = (scale: number): number => {
    let sum = 0;
    said.forEach((logits, i) => {
      const right = logits.find(({ label }) => label === rows[i]!.label)!;
      sum += Math.log(logits.reduce((total, { score }) => total + Math.exp((score - right.score) / scale), 0));
    });
    return sum;
  };
  // The loss has one minimum: a ternary search over the logarithm.
  let [low, high] = [Math.log(0.25), Math.log(4)];
  while (high - low > 1e-4) {
    const third = (high - low) / 3;
    if (loss(Math.exp(low + third)) < loss(Math.exp(high - third))) high -= third;
    else low += third;
  }
  return Math.exp((low + high) / 2);
}
