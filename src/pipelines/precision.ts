/**
 * Vectors in a quarter or a thirty-second of their memory, as sentence-transformers' `quantize_embeddings` makes them.
 */
import { CandlewickError } from "../errors.js";
import { mapInTurns } from "../slices.js";

export type Precision = "float32" | "int8" | "uint8" | "binary" | "ubinary";
export type Vector = Float32Array | Int8Array | Uint8Array;

/** Each dimension's least and greatest value. */
export interface Ranges {
  readonly minimum: ArrayLike<number>;
  readonly maximum: ArrayLike<number>;
}

export async function quantise(rows: readonly Float32Array[], precision: Exclude<Precision, "float32">, ranges?: Ranges): Promise<Vector[]> {
  const bits = precision === "binary" || precision === "ubinary";
  const convert = bits ? pack(precision === "binary") : scale(precision === "int8", ranges ?? (await rangesOf(rows)), rows[0]!.length);
  return mapInTurns(rows, convert);
}

/** A bit for each dimension, the first one highest; signed bytes are 128 lower, as in Python. */
function pack(signed: boolean): (row: Float32Array) => Vector {
  return (row) => {
    const bytes = new Uint8Array(Math.ceil(row.length / 8));
    for (let i = 0; i < row.length; i++) if (row[i]! > 0) bytes[i >> 3]! |= 128 >> (i & 7);
    return signed ? Int8Array.from(bytes, (byte) => byte - 128) : bytes;
  };
}

function scale(signed: boolean, { minimum, maximum }: Ranges, width: number): (row: Float32Array) => Vector {
  if (minimum.length !== width || maximum.length !== width) {
    throw new CandlewickError("OPTION_INVALID", `embed: ranges of ${minimum.length} dimensions for vectors of ${width}`);
  }
  const { fround } = Math;
  const steps = Float32Array.from({ length: width }, (_, i) => fround(fround(maximum[i]! - minimum[i]!) / 255) || 1);
  return (row) => {
    const vector = signed ? new Int8Array(width) : new Uint8Array(width);
    for (let i = 0; i < width; i++) {
      const level = Math.floor(fround(fround(row[i]! - fround(minimum[i]!)) / steps[i]!));
      vector[i] = Math.min(Math.max(level, 0), 255) - (signed ? 128 : 0);
    }
    return vector;
  };
}

async function rangesOf(rows: readonly Float32Array[]): Promise<Ranges> {
  if (rows.length < 2) {
    throw new CandlewickError("OPTION_INVALID", "embed: a precision of int8 or uint8 needs ranges, or several texts to take them from");
  }
  const minimum = rows[0]!.slice();
  const maximum = rows[0]!.slice();
  await mapInTurns(rows, (row) => {
    for (let i = 0; i < row.length; i++) {
      if (row[i]! < minimum[i]!) minimum[i] = row[i]!;
      if (row[i]! > maximum[i]!) maximum[i] = row[i]!;
    }
  });
  return { minimum, maximum };
}
