/** Vectors among which the closest are found. */
import { abortError, CandlewickError, withPlaces } from "../errors.js";
import { native, type NativeVectorIndex, type PackedHits } from "../native.js";
import { checkOptions, checks, invalid, type OptionTable, show } from "../options.js";
import { abortable, call, callSync, mailbox } from "../runtime.js";
import { encodeFilter, type VectorFilter } from "./filter.js";
import { checkId, encode, encodeMetadata, type Metadata, type VectorId } from "./metadata.js";
import { similarities, type SimilarityName } from "./similarity.js";
import { COPY, isVector, listOf, pack, type Vector } from "./vector.js";

/** A vector that was found. */
export interface Hit {
  /** Its own id, or its place in the order of adding. */
  readonly id: VectorId;
  /** Its place in the order of adding, from 0. */
  readonly index: number;
  readonly score: number;
  /** What was given with it, if anything was. */
  readonly metadata?: Metadata;
}

/** What a number of a vector is kept as. */
export type VectorPrecision = "f32" | "int8" | "binary";

export interface VectorIndexOptions {
  /** Default `"cosine"`. */
  similarity?: SimilarityName;
  /**
   * `"f32"`: 4 bytes a number, and one for a faster search, which is exact. `"int8"`: one byte, with a scale for each
   * vector. `"binary"`: a bit, and what `rescore` keeps. Default `"f32"`.
   */
  precision?: VectorPrecision;
  /**
   * For `"binary"`: what scores are computed from. `"f32"` and `"int8"` keep these beside the bits; `"binary"` compares
   * the query itself with the bits, for cosine alone. Default `"int8"`.
   */
  rescore?: VectorPrecision;
  /** Threads that search. Default 1. */
  threads?: number;
}

export interface AddOptions {
  /** Of each vector an id that no other has. Default: vectors are numbered. An index has either or. */
  ids?: VectorId | readonly VectorId[];
  /** Of each vector what is known of it; `undefined` for nothing. */
  metadata?: Metadata | readonly (Metadata | undefined)[];
  /** Ends it between two parts of many vectors; none of them is then added. */
  signal?: AbortSignal;
}

export interface SearchOptions {
  /** How many vectors. Default 10. */
  topK?: number;
  /** The least score of a hit. Default: none. */
  threshold?: number;
  /** Which vectors count. Default: all. */
  filter?: VectorFilter;
  /** For `"binary"`: how many vectors are scored for each that is wanted. Default 32. */
  oversample?: number;
  signal?: AbortSignal;
}

export interface SaveOptions {
  signal?: AbortSignal;
}

export interface LoadIndexOptions {
  /** Threads that read, and then search. Default 1. */
  threads?: number;
  signal?: AbortSignal;
}

const threads = checks.integer(1, 1024);
const precisions = checks.oneOf("f32", "int8", "binary");
const indexOptions: OptionTable<VectorIndexOptions> = { similarity: similarities, precision: precisions, rescore: precisions, threads };
const anything = () => undefined;
const addOptions: OptionTable<AddOptions> = { ids: anything, metadata: anything, signal: checks.signal };
const searchOptions: OptionTable<SearchOptions> = {
  topK: checks.integer(1, 0xffff_ffff),
  threshold: checks.number("", () => true),
  filter: anything,
  oversample: checks.integer(1, 1000),
  signal: checks.signal,
};
const saveOptions: OptionTable<SaveOptions> = { signal: checks.signal };
const loadOptions: OptionTable<LoadIndexOptions> = { threads, signal: checks.signal };

/** Characters of JSON, and hits, that one native call takes or gives: what is made or read in a millisecond. */
const SAID = 1 << 16;
const HITS = 1 << 12;
/** Ids of one native call. */
const IDS = 1 << 12;

let batches = 0;

/**
 * Vectors in memory of their own, searched on a thread of their own. Each call sees what was there when it came to its
 * turn, and a call that adds is done whole or not at all. The garbage collector frees it, or `close()`.
 *
 * ```ts
 * const index = new VectorIndex(384);
 * await index.add(await embed(texts), { ids: keys, metadata: texts.map((text) => ({ text, lang: "en" })) });
 * const [closest] = await index.search(await embed("a question"), { topK: 1, filter: { lang: "en" } });
 * await index.save("answers.index");
 * ```
 */
export class VectorIndex implements AsyncDisposable {
  readonly dimensions: number;
  readonly similarity: SimilarityName;
  readonly precision: VectorPrecision;
  readonly #native: NativeVectorIndex;
  #size = 0;
  /** The last addition: the next begins when it has ended, so that vectors are numbered in the calls' order. */
  #adding: Promise<unknown> = Promise.resolve();
  #closed: Promise<void> | undefined;

  /** @throws {CandlewickError} `OPTION_INVALID`. */
  constructor(dimensions: number, options?: VectorIndexOptions);
  /** @internal */
  constructor(loaded: NativeVectorIndex);
  constructor(dimensions: number | NativeVectorIndex, options: VectorIndexOptions = {}) {
    if (dimensions instanceof native.VectorIndex) {
      this.#native = dimensions;
      this.#size = dimensions.loaded;
    } else {
      const problem = checks.integer(1, 1 << 20)(dimensions);
      if (problem) throw invalid("VectorIndex", "dimensions", problem, dimensions);
      const { similarity = "cosine", precision = "f32", rescore, threads = 1 } = checkOptions("VectorIndex", options, indexOptions);
      if (rescore !== undefined && precision !== "binary") throw invalid("VectorIndex", "rescore", "has no effect without a precision of binary", rescore);
      const scored = rescore ?? (precision === "binary" ? "int8" : precision);
      this.#native = callSync(() => new native.VectorIndex(dimensions, similarity, precision, scored, threads));
    }
    this.dimensions = this.#native.dimensions;
    this.similarity = this.#native.similarity;
    this.precision = this.#native.precision;
  }

  /**
   * Reads what {@link save} wrote.
   *
   * @throws {CandlewickError} `INDEX_INVALID` for a file that is another, cut or changed, `IO`, `ABORTED`.
   */
  static async load(path: string, options: LoadIndexOptions = {}): Promise<VectorIndex> {
    const { threads = 1, signal } = checkOptions("load", options, loadOptions);
    checkPath("load", path);
    return new VectorIndex(
      await abortable<NativeVectorIndex>(signal, (id, cancel) => native.VectorIndex.load(mailbox, id, path, threads, cancel)),
    );
  }

  /** Vectors that are in. */
  get size(): number {
    return this.#size;
  }

  /**
   * Adds one vector or several, all or none; they are copied.
   *
   * @throws {CandlewickError} `INPUT_INVALID` for a vector that is not finite or not as long, an id that is in
   *   already or given twice, metadata that is not flat; its `index` says which.
   */
  add(vectors: Vector | readonly Vector[], options: AddOptions = {}): Promise<void> {
    return this.#inTurn(() => this.#add("add", vectors, options, false));
  }

  /**
   * As {@link add}, but a vector whose id is in takes the place of that one, its metadata too. `ids` are needed.
   *
   * @throws {CandlewickError} `INPUT_INVALID` as {@link add}, and for an id that is not in an index that numbers its
   *   own; `OPTION_INVALID` without `ids`.
   */
  update(vectors: Vector | readonly Vector[], options: AddOptions): Promise<void> {
    return this.#inTurn(() => this.#add("update", vectors, options, true));
  }

  /**
   * Deletes the vectors of these ids, or those that a filter holds for. An id that is not in is none of them.
   *
   * @returns How many were deleted.
   * @throws {CandlewickError} `INPUT_INVALID` for what is no id, with its `index`; of a filter `OPTION_INVALID` or
   *   `OPTION_UNKNOWN`.
   */
  async delete(which: VectorId | readonly VectorId[] | { filter: VectorFilter }): Promise<number> {
    this.#checkOpen();
    let deleted = 0;
    const count = (found: number) => {
      deleted += found;
      this.#size -= found;
    };
    if (typeof which === "object" && which !== null && !Array.isArray(which)) {
      const { filter } = checkOptions("delete", which as { filter: VectorFilter }, { filter: anything });
      const encoded = encodeFilter("delete", filter);
      count(await call<number>((id) => this.#native.deleteWhere(mailbox, id, encoded)));
      return deleted;
    }
    const ids: readonly unknown[] = Array.isArray(which) ? which.slice() : [which];
    for (let from = 0; from < ids.length; from += IDS) {
      const encoded = `[${Array.from(ids.slice(from, from + IDS), (id, at) => encodeId("delete", id, ids.length > 1 ? from + at : undefined)).join()}]`;
      count(await call<number>((id) => this.#native.delete(mailbox, id, encoded)));
    }
    return deleted;
  }

  /**
   * The closest vectors, the closest first, of equal ones the one that was added first; of several queries, for each.
   *
   * @throws {CandlewickError} `INPUT_INVALID` for a query that is not finite or not as long, `OPTION_INVALID`,
   *   `ABORTED`.
   */
  search(query: Vector, options?: SearchOptions): Promise<Hit[]>;
  search(queries: readonly Vector[], options?: SearchOptions): Promise<Hit[][]>;
  async search(queries: Vector | readonly Vector[], options: SearchOptions = {}): Promise<Hit[] | Hit[][]> {
    const { topK = 10, threshold, filter, oversample, signal } = checkOptions("search", options, searchOptions);
    this.#checkOpen();
    if (oversample !== undefined && this.precision !== "binary") {
      throw invalid("search", "oversample", "has no effect without a precision of binary", oversample);
    }
    const asked = { topK, threshold, oversample: oversample ?? 32, filter: filter === undefined ? undefined : encodeFilter("search", filter) };
    const rows = listOf("search", queries);
    const several = !isVector(queries);
    const most = Math.max(1, Math.min(Math.floor(COPY / this.dimensions), Math.floor(HITS / topK)));
    const found: Hit[][] = [];
    for (let from = 0; from < rows.length; from += most) {
      const data = pack("search", "Query", rows, this.dimensions, from, Math.min(rows.length, from + most), several);
      const hits = abortable<PackedHits>(signal, (id, cancel) => this.#native.search(mailbox, id, data, asked, cancel));
      for await (const some of unpackHits(await withPlaces(hits, (index) => (several ? from + index : undefined)))) found.push(some);
    }
    return several ? found : found[0]!;
  }

  /**
   * Writes all of it to one file: aside, to the disk, then to its place, where it is whole or as it was. Searches go on
   * meanwhile; what is added or deleted meanwhile is not in it.
   *
   * @throws {CandlewickError} `IO`, `ABORTED`.
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    const { signal } = checkOptions("save", options, saveOptions);
    checkPath("save", path);
    this.#checkOpen();
    await abortable<void>(signal, (id, cancel) => this.#native.save(mailbox, id, path, cancel));
  }

  /** Ends searches that run (`MODEL_CLOSED`) and frees the memory. Later calls are refused. */
  close(): Promise<void> {
    return (this.#closed ??= call<void>((id) => this.#native.close(mailbox, id)).then(() => void (this.#size = 0)));
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #checkOpen(): void {
    if (this.#closed) throw new CandlewickError("MODEL_CLOSED", "The vector index is closed");
  }

  #inTurn(add: () => Promise<void>): Promise<void> {
    const adding = this.#adding.then(add);
    this.#adding = adding.catch(() => {});
    return adding;
  }

  async #add(where: string, vectors: Vector | readonly Vector[], options: AddOptions, replace: boolean): Promise<void> {
    const { ids, metadata, signal } = checkOptions(where, options, addOptions);
    this.#checkOpen();
    const rows = listOf(where, vectors);
    const several = !isVector(vectors);
    if (replace && ids === undefined) throw invalid(where, "ids", "must be given", ids);
    const count = rows.length;
    const columns = { ids: column(where, "ids", ids, count, several), metadata: column(where, "metadata", metadata, count, several) };
    const batch = (batches = (batches + 1) >>> 0);
    const most = Math.max(1, Math.floor(COPY / this.dimensions));
    let from = 0;
    try {
      while (from < count) {
        if (signal?.aborted) throw abortError(signal);
        let to = Math.min(count, from + most);
        let said: string | undefined;
        if (columns.ids || columns.metadata) [said, to] = say(where, columns, from, to, several);
        const data = pack(where, "Vector", rows, this.dimensions, from, to, several);
        const last = to === count;
        const added = call<number>((id) => this.#native.add(mailbox, id, batch, data, said, last, replace));
        this.#size = await withPlaces(added, (index) => (several ? index : undefined));
        from = to;
      }
    } catch (error) {
      if (from > 0) await call<number>((id) => this.#native.discard(mailbox, id, batch)).catch(() => {});
      throw error;
    }
  }
}

interface Columns {
  readonly ids: readonly unknown[] | undefined;
  readonly metadata: readonly unknown[] | undefined;
}

/** Ids and metadata of the vectors from `from` to `to`, or to where it is enough; and where that is. */
function say(where: string, { ids, metadata }: Columns, from: number, to: number, several: boolean): [string, number] {
  const [given, known]: [string[], string[]] = [[], []];
  let length = 0;
  let at = from;
  for (; at < to && length < SAID; at++) {
    const place = several ? at : undefined;
    if (ids) given.push(encodeId(where, ids[at], place));
    if (metadata) known.push(placed(() => encodeMetadata(where, metadata[at]), place));
    length += (given.at(-1)?.length ?? 0) + (known.at(-1)?.length ?? 0);
  }
  const parts = [...(ids ? [`"ids":[${given.join()}]`] : []), ...(metadata ? [`"metadata":[${known.join()}]`] : [])];
  return [`{${parts.join()}}`, at];
}

function encodeId(where: string, id: unknown, place: number | undefined): string {
  const problem = checkId(id);
  if (problem !== undefined) throw new CandlewickError("INPUT_INVALID", `${where}: its id ${problem}`).at(place, "Vector");
  return encode(id);
}

function placed<T>(run: () => T, place: number | undefined): T {
  try {
    return run();
  } catch (error) {
    throw error instanceof CandlewickError ? error.at(place, "Vector") : error;
  }
}

/** One for each vector, of one vector alone it may be no list. @throws {CandlewickError} `OPTION_INVALID`. */
function column(where: string, name: string, given: unknown, count: number, several: boolean): readonly unknown[] | undefined {
  if (given === undefined) return undefined;
  const list = Array.isArray(given) ? (given as unknown[]) : several ? undefined : [given];
  if (list === undefined) throw invalid(where, name, "must be an array, one for each vector", given);
  if (list.length === count) return list;
  throw new CandlewickError("OPTION_INVALID", `${where}: there are ${list.length} ${name} for ${count} vectors`);
}

function checkPath(where: string, path: unknown): void {
  if (typeof path === "string" && path !== "" && !path.includes("\0")) return;
  throw new CandlewickError("OPTION_INVALID", `${where}: the path must be a string that is not empty, got ${show(path)}`);
}

/** The hits of each query. What is said of them comes in lists, each parsed in a turn of its own. */
async function* unpackHits({ lengths, indices, scores, details }: PackedHits): AsyncGenerator<Hit[]> {
  let at = 0;
  let list = ([] as [VectorId, Metadata | null][]).values();
  let next = 0;
  for (const length of lengths) {
    const hits: Hit[] = [];
    for (let i = 0; i < length; i++, at++) {
      const [index, score] = [indices[at]!, scores[at]!];
      if (details.length === 0) {
        hits.push({ id: index, index, score });
        continue;
      }
      let said = list.next();
      if (said.done) {
        if (next > 0) await new Promise((resolve) => setImmediate(resolve));
        list = (JSON.parse(details[next++]!) as [VectorId, Metadata | null][]).values();
        said = list.next();
      }
      const [id, metadata] = said.value!;
      hits.push({ id, index, score, ...(metadata && { metadata }) });
    }
    yield hits;
  }
}
