/** How similar two vectors are. */
import { CandlewickError } from "../errors.js";
import { checks, invalid } from "../options.js";
import { checkVector, type Vector } from "./vector.js";

/** What vectors are compared by; for the distances, larger (less negative) is closer. */
export type SimilarityName = "cosine" | "dot" | "euclidean" | "manhattan";

/** @internal */
export const similarities = checks.oneOf("cosine", "dot", "euclidean", "manhattan");

/**
 * How similar two vectors are. Default `"cosine"`, which of a vector of zeros is 0.
 *
 * @throws {CandlewickError} `INPUT_INVALID` for vectors that are not finite or not of one length.
 */
export function similarity(a: Vector, b: Vector, name: SimilarityName = "cosine"): number {
  const problem = similarities(name);
  if (problem) throw invalid("similarity", "the name", problem, name);
  for (const [index, vector] of [a, b].entries()) {
    const wrong = checkVector(vector) ?? notFinite(vector);
    if (wrong !== undefined) throw new CandlewickError("INPUT_INVALID", `similarity: it ${wrong}`).at(index, "Vector");
  }
  if (a.length !== b.length || a.length === 0) {
    throw new CandlewickError("INPUT_INVALID", `similarity: expected two vectors of the same length, got ${a.length} and ${b.length} numbers`);
  }
  const score = similarityOf(name)(a, b);
  if (!Number.isFinite(score)) throw new CandlewickError("INPUT_INVALID", "similarity: the vectors' numbers are too large");
  return score;
}

function notFinite(vector: Vector): string | undefined {
  for (let at = 0; at < vector.length; at++) if (!Number.isFinite(vector[at])) return `has ${vector[at]} as number ${at}`;
  return undefined;
}

/** The function of that name, for vectors of the same length. */
export function similarityOf(name: SimilarityName): (a: Vector, b: Vector) => number {
  return {
    cosine: (a: Vector, b: Vector) => dot(a, b) / (Math.sqrt(dot(a, a)) * Math.sqrt(dot(b, b)) || 1),
    dot,
    euclidean: (a: Vector, b: Vector) => -Math.sqrt(sum(a, b, (x, y) => (x - y) ** 2)),
    manhattan: (a: Vector, b: Vector) => -sum(a, b, (x, y) => Math.abs(x - y)),
  }[name];
}

const dot = (a: Vector, b: Vector): number => sum(a, b, (x, y) => x * y);

function sum(a: Vector, b: Vector, of: (x: number, y: number) => number): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += of(a[i]!, b[i]!);
  return total;
}
