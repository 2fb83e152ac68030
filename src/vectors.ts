/** Vectors among each other: how similar two are, and which of many are the closest. */
import { CandlewickError } from "./errors.js";
import { native, type NativeVectorIndex, type PackedHits } from "./native.js";
import { checkOptions, checks, invalid, type OptionTable } from "./options.js";
import { abortable, call, callSync, mailbox } from "./runtime.js";

/** What vectors are compared by; for the distances, larger (less negative) is closer. */
export type SimilarityName = "cosine" | "dot" | "euclidean" | "manhattan";

type Vector = Float32Array | readonly number[];

/** A vector that was found. */
export interface Hit {
  /** Its place in the order of adding, from 0. */
  readonly index: number;
  readonly score: number;
}

export interface VectorIndexOptions {
  /** Default `"cosine"`. */
  similarity?: SimilarityName;
  /** Threads that search. Default 1. */
  threads?: number;
}

export interface SearchOptions {
  /** How many vectors. Default 10. */
  topK?: number;
  /** The least score of a hit. Default: none. */
  threshold?: number;
  signal?: AbortSignal;
}

const similarities = checks.oneOf("cosine", "dot", "euclidean", "manhattan");
const indexOptions: OptionTable<VectorIndexOptions> = { similarity: similarities, threads: checks.integer(1, 1024) };
const searchOptions: OptionTable<SearchOptions> = {
  topK: checks.integer(1, 0xffff_ffff),
  threshold: checks.number("", () => true),
  signal: checks.signal,
};

/** Numbers that are copied between two turns of the event loop: 1 MB. */
const COPY = 1 << 18;

/**
 * Vectors in memory of their own, searched on a thread of their own, exactly: each is compared with the query. A
 * hundred thousand of 384 dimensions take some ten milliseconds. The garbage collector frees it.
 *
 * ```ts
 * const index = new VectorIndex(384);
 * for await (const { result } of embed.stream(lines)) await index.add(result);
 * const [closest] = await index.search(await embed("a question"), { topK: 1 });
 * ```
 */
export class VectorIndex {
  readonly dimensions: number;
  readonly similarity: SimilarityName;
  readonly #native: NativeVectorIndex;
  #size = 0;

  /** @throws {CandlewickError} `OPTION_INVALID`. */
  constructor(dimensions: number, options: VectorIndexOptions = {}) {
    const problem = checks.integer(1, 1 << 20)(dimensions);
    if (problem) throw invalid("VectorIndex", "dimensions", problem, dimensions);
    const { similarity = "cosine", threads = 1 } = checkOptions("VectorIndex", options, indexOptions);
    this.dimensions = dimensions;
    this.similarity = similarity;
    this.#native = callSync(() => new native.VectorIndex(dimensions, similarity, threads));
  }

  /** Vectors that are in. */
  get size(): number {
    return this.#size;
  }

  /** Adds one vector or several; they are copied. */
  async add(vectors: Vector | readonly Vector[]): Promise<void> {
    for await (const [data, count] of this.#packed("add", vectors)) {
      this.#size += count;
      await call<void>((id) => this.#native.add(mailbox, id, data));
    }
  }

  /** The closest vectors, the closest first; of several queries, for each. */
  search(query: Vector, options?: SearchOptions): Promise<Hit[]>;
  search(queries: readonly Vector[], options?: SearchOptions): Promise<Hit[][]>;
  async search(queries: Vector | readonly Vector[], options: SearchOptions = {}): Promise<Hit[] | Hit[][]> {
    const { topK = 10, threshold, signal } = checkOptions("search", options, searchOptions);
    const found: Hit[][] = [];
    for await (const [data] of this.#packed("search", queries)) {
      const hits = await abortable<PackedHits>(signal, (id, cancel) =>
        this.#native.search(mailbox, id, data, topK, threshold, cancel),
      );
      found.push(...unpackHits(hits));
    }
    return isVector(queries) ? found[0]! : found;
  }

  /** The vectors behind each other, a megabyte at a time. */
  async *#packed(where: string, vectors: Vector | readonly Vector[]): AsyncGenerator<readonly [Float32Array, number]> {
    const rows: readonly Vector[] = isVector(vectors) ? [vectors] : Array.from(vectors);
    const wrong = rows.find((row) => !isVector(row) || row.length !== this.dimensions);
    if (wrong !== undefined) throw invalid(where, "a vector", `must have ${this.dimensions} numbers`, wrong);
    const most = Math.max(1, Math.floor(COPY / this.dimensions));
    for (let from = 0; from < rows.length; from += most) {
      const part = rows.slice(from, from + most);
      const data = new Float32Array(part.length * this.dimensions);
      for (const [index, row] of part.entries()) data.set(row, index * this.dimensions);
      yield [data, part.length] as const;
    }
  }
}

const isVector = (value: unknown): value is Vector =>
  value instanceof Float32Array || (Array.isArray(value) && typeof value[0] === "number");

function unpackHits({ lengths, indices, scores }: PackedHits): Hit[][] {
  let at = 0;
  return Array.from(lengths, (length) =>
    Array.from({ length }, () => ({ index: indices[at]!, score: scores[at++]! })),
  );
}

/** How similar two vectors are. Default `"cosine"`. */
export function similarity(a: Vector, b: Vector, name: SimilarityName = "cosine"): number {
  const problem = similarities(name);
  if (problem) throw invalid("similarity", "the name", problem, name);
  if (!isVector(a) || !isVector(b) || a.length !== b.length) {
    throw new CandlewickError("INPUT_INVALID", "similarity: expected two vectors of the same length");
  }
  return similarityOf(name)(a, b);
}

/** The function of that name, for vectors of the same length. */
export function similarityOf(name: SimilarityName): (a: Vector, b: Vector) => number {
  return {
    cosine: (a: Vector, b: Vector) => dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) || 1),
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
