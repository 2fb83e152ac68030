/** What a vector may be, and many of them as memory that the addon reads. */
import { types } from "node:util";
import { CandlewickError } from "../errors.js";
import { show } from "../options.js";

/** Numbers are kept as f32, a `Float64Array`'s too. */
export type Vector = Float32Array | Float64Array | readonly number[];

/** Numbers that are copied between two turns of the event loop: 1 MB. */
export const COPY = 1 << 18;

/** Whether it is one vector, right or wrong, and no list of them. */
export const isVector = (value: unknown): value is Vector =>
  ArrayBuffer.isView(value) || (Array.isArray(value) && typeof value[0] === "number");

/** What is wrong with a vector, without a look at the numbers of one that has its own memory. */
export function checkVector(vector: unknown, dimensions?: number): string | undefined {
  const floats = types.isFloat32Array(vector) || types.isFloat64Array(vector);
  if (!floats && !Array.isArray(vector)) {
    const what = ArrayBuffer.isView(vector) ? `${vector.constructor.name}, whose numbers are no vector's` : show(vector);
    return `must be a Float32Array, a Float64Array or an array of numbers, got ${what}`;
  }
  if (dimensions !== undefined && vector.length !== dimensions) return `must have ${dimensions} numbers, got ${vector.length}`;
  if (floats) return undefined;
  for (let at = 0; at < vector.length; at++) {
    if (typeof vector[at] !== "number") return `must be numbers alone, got ${show(vector[at])} as number ${at}`;
  }
  return undefined;
}

/** Vectors `from` to `to` behind each other. `several`: a wrong one is named by its place. */
export function pack(where: string, what: string, vectors: readonly unknown[], dimensions: number, from: number, to: number, several: boolean): Float32Array {
  const data = new Float32Array((to - from) * dimensions);
  for (let index = from; index < to; index++) {
    const vector = vectors[index];
    const problem = checkVector(vector, dimensions);
    if (problem !== undefined) {
      throw new CandlewickError("INPUT_INVALID", `${where}: it ${problem}`).at(several ? index : undefined, what);
    }
    data.set(vector as Float32Array, (index - from) * dimensions);
  }
  return data;
}

/** One vector as a list of one, or a list. @throws {CandlewickError} `INPUT_INVALID`. */
export function listOf(where: string, vectors: unknown): readonly unknown[] {
  if (isVector(vectors)) return [vectors];
  if (Array.isArray(vectors)) return vectors;
  throw new CandlewickError("INPUT_INVALID", `${where}: expected a vector or an array of vectors, got ${show(vectors)}`);
}
