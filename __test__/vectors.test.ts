/** An index of vectors and the first dimensions of embeddings, beside numpy and sentence-transformers. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { type AddOptions, type ErrorCode, type Hit, loadBERT, similarity, type SimilarityName, type Vector, type VectorFilter, VectorIndex, type VectorIndexOptions } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder } from "./support/models.js";

const fixture = JSON.parse(readFileSync(fixturePath("vectors.json"), "utf8")) as {
  dimensions: { texts: string[]; cases: { dimensions: number; normalize: boolean; rows: number[][] }[] };
  search: { count: number; width: number; queries: number; topK: number; oversample: number; found: Record<string, [number, number][][]> };
};
const similarities = ["cosine", "dot", "euclidean", "manhattan"] as const;

/** As tools/fixtures/vectors.py. */
function vectorsOf(count: number, width: number, seed: number): Float32Array[] {
  const next = () => ((seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) >>> 16) - 32768;
  return Array.from({ length: count }, () => Float32Array.from({ length: width }, () => (next() + next() + next()) / 65536));
}

const indices = (hits: readonly Hit[]) => hits.map(({ index }) => index);

/** An index of three, with ids and metadata. */
async function small(options?: VectorIndexOptions): Promise<VectorIndex> {
  const index = new VectorIndex(2, options);
  await index.add([[1, 0], [0, 1], [-1, 0]], { ids: ["east", "north", 7], metadata: [{ lang: "en", year: 2020 }, { lang: "de", year: 2021.5, tags: ["a", 1] }, undefined] });
  return index;
}

describe("a search", () => {
  const { count, width, queries, topK, oversample, found } = fixture.search;
  const rows = vectorsOf(count, width, 1);
  const asked = vectorsOf(queries, width, 2);

  for (const name of similarities) {
    test(`finds by ${name} what numpy finds, with any number of threads`, async () => {
      const all: Hit[][][] = [];
      for (const threads of [1, 2, 3]) {
        await using index = new VectorIndex(width, { similarity: name, threads });
        await index.add(rows.slice(0, 1777));
        await index.add(rows.slice(1777));
        all.push(await index.search(asked, { topK }));
        assert.deepEqual(await index.search(asked[2]!, { topK }), all[0]![2]);
      }
      assert.deepEqual(all[1], all[0]);
      assert.deepEqual(all[2], all[0]);
      for (const [query, hits] of all[0]!.entries()) {
        assert.deepEqual(indices(hits), found[name]![query]!.map(([index]) => index));
        for (const [place, { id, index, score }] of hits.entries()) {
          assert.equal(id, index);
          assert.ok(Math.abs(score - found[name]![query]![place]![1]) < 1e-5);
          assert.ok(Math.abs(score - similarity(asked[query]!, rows[index]!, name)) < 1e-5);
        }
      }
    });
  }

  test("of bits finds what numpy finds of sentence-transformers' bits", async () => {
    await using index = new VectorIndex(width, { precision: "binary", rescore: "f32", threads: 2 });
    await index.add(rows);
    const hits = await index.search(asked, { topK, oversample });
    assert.deepEqual(hits.map(indices), found["binary"]!.map((best) => best.map(([index]) => index)));
  });

  test("of bytes and of bits finds most of it, more with more oversampling", async () => {
    const exact = found["cosine"]!.map((best) => new Set(best.map(([index]) => index)));
    const recall = async (options: VectorIndexOptions, oversample?: number) => {
      await using index = new VectorIndex(width, options);
      await index.add(rows);
      const hits = await index.search(asked, { topK, oversample });
      return hits.flatMap((some, query) => indices(some).filter((at) => exact[query]!.has(at))).length / (queries * topK);
    };
    assert.ok((await recall({ precision: "int8" })) >= 0.95);
    const bits = { precision: "binary" } as const;
    assert.ok((await recall(bits, 100)) >= 0.95);
    assert.ok((await recall(bits, 1)) < (await recall(bits, 20)));
    assert.ok((await recall({ ...bits, rescore: "binary" }, 20)) > 0.1);
  });

  test("gives equal scores in the order of adding, and takes a threshold", async () => {
    await using index = new VectorIndex(3);
    await index.add([[1, 0, 0], [0, 1, 0], [2, 0, 0], [1, 0, 0]]);
    assert.deepEqual(indices(await index.search([1, 0, 0], { topK: 3 })), [0, 2, 3]);
    assert.deepEqual(indices(await index.search([1, 0, 0], { threshold: 0.5 })), [0, 2, 3]);
    assert.deepEqual(await index.search([0, 0, 0], { topK: 1 }), [{ id: 0, index: 0, score: 0 }]);
    assert.deepEqual(await index.search([]), []);
    assert.deepEqual(await new VectorIndex(2).search([1, 2]), []);
  });

  test("can be ended, and is by closing", async () => {
    const index = new VectorIndex(width);
    await index.add(rows);
    await assert.rejects(index.search(asked, { signal: AbortSignal.abort() }), hasCode("ABORTED"));
    const controller = new AbortController();
    const many = Array.from({ length: 3000 }, () => asked[0]!);
    const running = index.search(many, { signal: controller.signal });
    setImmediate(() => controller.abort());
    await assert.rejects(running, hasCode("ABORTED"));
    const closed = assert.rejects(index.search(many), hasCode("MODEL_CLOSED"));
    await new Promise((resolve) => setImmediate(resolve));
    await index.close();
    await index.close();
    await closed;
    for (const call of [index.search([1]), index.add([1]), index.delete(1), index.save("x"), index.update([1], { ids: 1 })]) await assert.rejects(call, hasCode("MODEL_CLOSED"));
    assert.equal(index.size, 0);
  });
});

describe("vectors have", () => {
  test("ids and metadata, which hits bring along", async () => {
    await using index = await small();
    const hits = await index.search([1, 0.1], { topK: 3 });
    assert.deepEqual(hits, [
      { id: "east", index: 0, score: hits[0]!.score, metadata: { lang: "en", year: 2020 } },
      { id: "north", index: 1, score: hits[1]!.score, metadata: { lang: "de", year: 2021.5, tags: ["a", 1] } },
      { id: 7, index: 2, score: hits[2]!.score },
    ]);
  });

  test("metadata that comes back as it was", async () => {
    await using index = new VectorIndex(1);
    const metadata = { "": "", é: "\u{1f600}\u0000\"\\\n", number: 0.1 + 0.2, tiny: 5e-324, large: 1.7976931348623157e308, zero: -0, list: [null, true, "x", -1.5], empty: [], none: null, prototype: "x", __proto__x: 1 };
    await index.add([1], { metadata });
    const [hit] = await index.search([1]);
    assert.deepEqual(hit!.metadata, metadata);
    assert.ok(Object.is(hit!.metadata!["zero"], -0));
  });

  test("details in their order, of many hits", async () => {
    await using index = new VectorIndex(2);
    const count = 5000;
    await index.add(vectorsOf(count, 2, 5), { ids: Array.from({ length: count }, (_, at) => `id ${at}`), metadata: Array.from({ length: count }, (_, at) => ({ at, text: "x".repeat(100) })) });
    for (const hits of [await index.search([1, 1], { topK: count }), ...(await index.search([[1, 0], [0, 1]], { topK: 3000 }))]) {
      assert.ok(hits.length >= 3000);
      for (const { id, index, metadata } of hits) assert.deepEqual([id, metadata!["at"]], [`id ${index}`, index]);
    }
  });

  const matching: [VectorFilter, (string | number)[]][] = [
    [{}, ["east", "north", 7]],
    [{ lang: "en" }, ["east"]],
    [{ lang: { ne: "en" } }, ["north", 7]],
    [{ year: { gte: 2020, lt: 2021 } }, ["east"]],
    [{ year: { gt: 2020 } }, ["north"]],
    [{ lang: { in: ["en", "de"] }, year: { lte: 2020 } }, ["east"]],
    [{ lang: { nin: ["en"] } }, ["north", 7]],
    [{ lang: null }, [7]],
    [{ lang: { exists: true } }, ["east", "north"]],
    [{ tags: "a" }, ["north"]],
    [{ tags: { gte: 1 } }, ["north"]],
    [{ or: [{ lang: "en" }, { lang: { exists: false } }] }, ["east", 7]],
    [{ and: [{ lang: "en" }, { year: 2021 }] }, []],
    [{ not: { or: [{ tags: 1 }, { lang: "en" }] } }, [7]],
    [{ lang: { gt: "a", lt: "dz" } }, ["north"]],
    [{ nothing: 1 }, []],
  ];
  for (const [filter, expected] of matching) {
    test(`a filter ${JSON.stringify(filter)}`, async () => {
      for (const precision of ["f32", "int8", "binary"] as const) {
        await using index = await small({ precision });
        assert.deepEqual((await index.search([1, 0.1], { filter })).map(({ id }) => id).sort(), expected.sort());
      }
    });
  }

  test("a filter that is none is refused", async () => {
    await using index = await small();
    const none = (filter: unknown, code: ErrorCode = "OPTION_INVALID") => assert.rejects(index.search([1, 0], { filter: filter as VectorFilter }), hasCode(code));
    for (const filter of [null, [], "lang", { lang: { gte: true } }, { lang: { in: "en" } }, { lang: {} }, { lang: Number.NaN }, { lang: 1n }, { lang: Symbol("x") }, { lang: ["en"] }, { and: {} }, { not: [] }, { or: [1] }, { a: { exists: 1 } }, { a: "\ud800" }]) {
      await none(filter);
    }
    await none({ lang: { $gte: 1 } }, "OPTION_UNKNOWN");
    let deep: VectorFilter = {};
    for (let i = 0; i < 50; i++) deep = { not: deep };
    await none(deep);
    await none({ a: { in: Array.from({ length: 20_000 }, (_, i) => i) } });
  });

  test("numbers of their own that are not used again", async () => {
    await using index = new VectorIndex(1, { similarity: "dot" });
    await index.add([[1], [2], [3]]);
    assert.equal(await index.delete([2, 2, 5]), 1);
    await index.add([4]);
    assert.deepEqual(indices(await index.search([1])), [3, 1, 0]);
    assert.equal(index.size, 3);
    await index.update([9], { ids: 0 });
    assert.deepEqual(indices(await index.search([1])), [0, 3, 1]);
    await assert.rejects(index.update([9], { ids: 2 }), hasCode("INPUT_INVALID"));
    await assert.rejects(index.add([9], { ids: "x" }), hasCode("INPUT_INVALID"));
  });
});

describe("update and delete", () => {
  test("put a vector in another's place, with its metadata, or add it", async () => {
    await using index = await small();
    await index.update([[0, -1], [3, 3]], { ids: ["north", "new"], metadata: [{ lang: "fr" }, { lang: "it" }] });
    assert.equal(index.size, 4);
    const [hit] = await index.search([0, -1], { topK: 1 });
    assert.deepEqual([hit!.id, hit!.index, hit!.metadata], ["north", 1, { lang: "fr" }]);
    await index.update([0, -1], { ids: "north" });
    assert.equal((await index.search([0, -1], { topK: 1 }))[0]!.metadata, undefined);
    await assert.rejects(index.update([0, 1], {} as AddOptions), hasCode("OPTION_INVALID"));
  });

  test("by ids and by filter", async () => {
    await using index = await small();
    assert.equal(await index.delete("nobody"), 0);
    assert.equal(await index.delete({ filter: { year: { gte: 2021 } } }), 1);
    assert.equal(await index.delete([7, "east"]), 2);
    assert.equal(index.size, 0);
    assert.deepEqual(await index.search([1, 0]), []);
    await index.add([1, 0], { ids: "east" });
    assert.equal(index.size, 1);
    await assert.rejects(index.delete({} as { filter: VectorFilter }), hasCode("OPTION_INVALID"));
    await assert.rejects(index.delete([1, Number.NaN]), hasCode("INPUT_INVALID"));
  });

  test("can be ended, with nothing added", async () => {
    await using index = new VectorIndex(100);
    const controller = new AbortController();
    const adding = index.add(vectorsOf(20_000, 100, 1), { signal: controller.signal });
    setImmediate(() => controller.abort());
    await assert.rejects(adding, hasCode("ABORTED"));
    assert.equal(index.size, 0);
    assert.deepEqual(await index.search(vectorsOf(1, 100, 1)[0]!), []);
    await index.add(vectorsOf(10, 100, 1));
    assert.equal(index.size, 10);
  });

  test("are seen whole by searches that run beside additions", async () => {
    await using index = new VectorIndex(64, { threads: 2 });
    const parts = Array.from({ length: 6 }, (_, part) => vectorsOf(12_000, 64, part + 1));
    const adding = Promise.all(parts.map((part) => index.add(part)));
    const state = { running: true };
    void adding.finally(() => (state.running = false));
    const query = parts[5]![7]!;
    const sizes = new Set<number>();
    while (state.running) {
      const hits = await index.search(query, { topK: 100_000 });
      sizes.add(hits.length);
    }
    await adding;
    for (const size of sizes) assert.equal(size % 12_000, 0, `${size}: part of an addition was seen`);
    assert.equal(index.size, 72_000);
    assert.deepEqual(indices(await index.search(query, { topK: 1 })), [5 * 12_000 + 7], "in the order of the calls");
  });
});

describe("what is no vector", () => {
  const hole = [1, 2, 3] as number[];
  delete hole[1];
  const wrong: [string, unknown][] = [
    ["NaN", [0, Number.NaN, 0]],
    ["infinity", new Float32Array([0, Infinity, 0])],
    ["more than an f32 holds", new Float64Array([0, 1e300, 0])],
    ["a hole", hole],
    ["undefined", [1, undefined, 3]],
    ["a string", [1, "2", 3]],
    ["a symbol", [1, Symbol("x"), 3]],
    ["a bigint", [1, 2n, 3]],
    ["null", [1, null, 3]],
    ["an Int8Array", new Int8Array(3)],
    ["a Uint8Array", new Uint8Array(3)],
    ["a BigInt64Array", new BigInt64Array(3)],
    ["a DataView", new DataView(new ArrayBuffer(12))],
    ["too short", [1, 2]],
    ["too long", new Float32Array(4)],
    ["empty", new Float32Array(0)],
    ["a string alone", "vector"],
    ["an object", { length: 3, 0: 1, 1: 2, 2: 3 }],
    ["a function", () => [1, 2, 3]],
  ];
  for (const [what, vector] of wrong) {
    test(`${what} is refused by its place, and nothing is added`, async () => {
      await using index = new VectorIndex(3);
      await index.add([1, 2, 3]);
      const several = [[1, 2, 3], vector] as Vector[];
      const isAt = (place: number | undefined) => (error: unknown) => {
        assert.ok(hasCode("INPUT_INVALID")(error));
        assert.equal((error as { index?: number }).index, place);
        return true;
      };
      await assert.rejects(index.add(several), isAt(1));
      await assert.rejects(index.search(several), isAt(1));
      await assert.rejects(index.update(several, { ids: [0, 1] }), isAt(1));
      await assert.rejects(index.add(vector as Vector), hasCode("INPUT_INVALID"));
      await assert.rejects(index.search(vector as Vector), hasCode("INPUT_INVALID"));
      for (const name of similarities) {
        const far = what === "more than an f32 holds";
        if (!far) assert.throws(() => similarity([1, 2, 3], vector as Vector, name), hasCode("INPUT_INVALID"));
      }
      assert.equal(index.size, 1);
      assert.deepEqual(indices(await index.search([1, 2, 3])), [0]);
    });
  }

  test("far into many, is found, and none of them is added", async () => {
    await using index = new VectorIndex(100);
    const rows = vectorsOf(9000, 100, 1);
    rows[8999]![7] = Number.NaN;
    await assert.rejects(index.add(rows), (error: unknown) => hasCode("INPUT_INVALID")(error) && (error as { index?: number }).index === 8999);
    await assert.rejects(index.search(rows), (error: unknown) => (error as { index?: number }).index === 8999);
    assert.equal(index.size, 0);
    await index.add(rows.slice(0, 8999));
    assert.equal(index.size, 8999);
  });

  test("in similarity() is refused, and what is finite is compared", () => {
    assert.throws(() => similarity([1], [1, 2]), hasCode("INPUT_INVALID"));
    assert.throws(() => similarity([], []), hasCode("INPUT_INVALID"));
    assert.throws(() => similarity([1e200, 1], [1e200, 1], "dot"), hasCode("INPUT_INVALID"));
    assert.throws(() => similarity([1], [1], "near" as SimilarityName), hasCode("OPTION_INVALID"));
    assert.equal(similarity([0, 0], [1, 2]), 0);
    assert.ok(Math.abs(similarity(new Float64Array([1e-30, 0]), [5, 5]) - Math.SQRT1_2) < 1e-12);
  });

  const bad = (options: AddOptions): [AddOptions, ErrorCode][] => [[options, "INPUT_INVALID"]];
  const said: [AddOptions, ErrorCode][] = [
    ...[{ a: { b: 1 } }, { a: [[1]] }, { a: Number.NaN }, { a: 1n }, { a: new Date(0) }, { a: Symbol("x") }, { and: 1 }, { a: "\ud800" }, [1], "x", new Map(), { a: "x".repeat(2 << 20) }].flatMap((metadata) => bad({ metadata: [{}, metadata] } as unknown as AddOptions)),
    ...["", "x".repeat(2000), 1.5, Number.NaN, 2 ** 53, null, {}, 1n, Symbol("x"), "\udc00", undefined].flatMap((id) => bad({ ids: ["a", id] } as unknown as AddOptions)),
    ...bad({ ids: ["a", "a"] }),
    [{ ids: ["a"] }, "OPTION_INVALID"],
    [{ ids: "a" }, "OPTION_INVALID"],
    [{ metadata: [{}] }, "OPTION_INVALID"],
    [{ names: ["a"] } as AddOptions, "OPTION_UNKNOWN"],
  ];
  test("ids and metadata that are none are refused by their place", async () => {
    await using index = new VectorIndex(1);
    for (const [options, code] of said) {
      await assert.rejects(index.add([[1], [2]], options), (error: unknown) => {
        assert.ok(hasCode(code)(error));
        if (code === "INPUT_INVALID") assert.equal((error as { index?: number }).index, 1);
        return true;
      });
    }
    assert.equal(index.size, 0);
  });

  test("options that are none are refused", async () => {
    for (const options of [{ similarity: "near" }, { precision: "f16" }, { rescore: "f32" }, { precision: "binary", rescore: "binary", similarity: "dot" }, { threads: 0 }]) {
      assert.throws(() => new VectorIndex(4, options as VectorIndexOptions), hasCode("OPTION_INVALID"));
    }
    assert.throws(() => new VectorIndex(0), hasCode("OPTION_INVALID"));
    await using index = new VectorIndex(1);
    for (const options of [{ topK: 0 }, { topK: Number.NaN }, { threshold: Number.NaN }, { threshold: Infinity }, { oversample: 2 }]) {
      await assert.rejects(index.search([1], options), hasCode("OPTION_INVALID"));
    }
  });
});

describe("a saved index", () => {
  const path = () => join(newFolder("vectors"), "saved.index");

  for (const precision of ["f32", "int8", "binary"] as const) {
    for (const similarity of similarities) {
      test(`of ${precision} and ${similarity} is the same when it is loaded`, async () => {
        await using index = new VectorIndex(20, { precision, similarity });
        const rows = vectorsOf(5000, 20, 3);
        await index.add(rows, { ids: rows.map((_, at) => (at % 2 ? at : `é ${at}`)), metadata: rows.map((_, at) => ({ at, even: at % 2 === 0, text: `text ${at % 7}` })) });
        await index.delete({ filter: { text: "text 3" } });
        const file = path();
        await index.save(file);
        await using loaded = await VectorIndex.load(file, { threads: 2 });
        assert.deepEqual([loaded.size, loaded.dimensions, loaded.precision, loaded.similarity], [index.size, 20, precision, similarity]);
        const options = { topK: 30, filter: { even: true, at: { lt: 4000 } } };
        const queries = vectorsOf(5, 20, 9);
        assert.deepEqual(await loaded.search(queries, options), await index.search(queries, options));
        await loaded.add(rows[0]!, { ids: "another" });
        assert.equal((await loaded.search(rows[0]!, { topK: 2, filter: { at: null } }))[0]!.index, 5000);
      });
    }
  }

  test("is written whole, while searches and additions go on", async () => {
    await using index = new VectorIndex(100);
    const rows = vectorsOf(40_000, 100, 4);
    await index.add(rows);
    const file = path();
    const saving = index.save(file);
    const [, hits] = await Promise.all([index.add(rows.slice(0, 100)), index.search(rows[3]!, { topK: 1 }), index.delete([1, 2])]);
    assert.equal(indices(hits)[0], 3);
    await saving;
    assert.equal((await VectorIndex.load(file)).size, 40_000);
    assert.equal(index.size, 40_098);
    await index.save(file);
    assert.equal((await VectorIndex.load(file)).size, 40_098);
    assert.deepEqual(readdirSync(join(file, "..")), ["saved.index"]);
    await assert.rejects(index.save(file, { signal: AbortSignal.abort() }), hasCode("ABORTED"));
  });

  test("that is cut, changed, another's or not there is refused by its name", async () => {
    const file = path();
    await using index = await small();
    await index.save(file);
    const whole = readFileSync(file);
    const refused = async (bytes: Uint8Array) => {
      writeFileSync(file, bytes);
      await assert.rejects(VectorIndex.load(file), (error: unknown) => hasCode("INDEX_INVALID")(error) && (error as Error).message.includes("saved.index"));
    };
    for (let length = 0; length < whole.length; length += 7) await refused(whole.subarray(0, length));
    for (let at = 0; at < whole.length; at += 5) await refused(whole.map((byte, place) => (place === at ? byte ^ 16 : byte)));
    await refused(Buffer.from("<!doctype html>".repeat(20)));
    // A header that asks for 2^50 rows, in a file that is as long as any.
    const large = Buffer.from(whole);
    large.writeBigUInt64LE(1n << 50n, 32);
    await refused(large);
    writeFileSync(file, whole);
    assert.equal((await VectorIndex.load(file)).size, 3);
    truncateSync(file, 100);
    await assert.rejects(VectorIndex.load(file), hasCode("INDEX_INVALID"));
    await assert.rejects(VectorIndex.load(`${file}.none`), hasCode("IO"));
    await assert.rejects(VectorIndex.load(join(file, "..")), hasCode("IO"));
    await assert.rejects(index.save(join(file, "..", "none", "x.index")), hasCode("IO"));
    await assert.rejects(VectorIndex.load(""), hasCode("OPTION_INVALID"));
    await assert.rejects(VectorIndex.load(file, { signal: AbortSignal.abort() }), hasCode("ABORTED"));
  });
});

describe("the first dimensions of a vector", () => {
  const folder = fixturePath(join("pipelines", "sentences"));
  const { texts, cases } = fixture.dimensions;

  for (const { dimensions, rows } of cases.filter(({ normalize }) => normalize)) {
    test(`${dimensions}: are sentence-transformers'`, async () => {
      await using bert = await loadBERT(folder, { threads: 1 });
      const found = await bert.embed(texts, { dimensions });
      for (const [at, row] of found.entries()) {
        assert.equal(row.length, dimensions);
        for (const [i, x] of row.entries()) assert.ok(Math.abs(x - rows[at]![i]!) < 1e-5, `${x} ${rows[at]![i]}`);
      }
      assert.deepEqual(await bert.embed(texts[1]!, { dimensions }), found[1]);
      const whole = await bert.embed(texts[1]!, { normalize: false });
      assert.deepEqual(await bert.embed(texts[1]!, { normalize: false, dimensions }), whole.slice(0, dimensions));
    });
  }

  test("are at most all of them, and none of a matrix", async () => {
    await using bert = await loadBERT(folder, { threads: 1 });
    for (const dimensions of [0, 1.5, Number.NaN, "8", 49, 1e9]) {
      await assert.rejects(bert.embed("a", { dimensions: dimensions as number }), hasCode("OPTION_INVALID"));
    }
    assert.equal((await bert.embed("a", { dimensions: 24, pooling: "cls" })).length, 24);
    await assert.rejects(bert.embed("a", { dimensions: 25, pooling: "cls" }), hasCode("OPTION_INVALID"));
    await assert.rejects(bert.embed("a", { dimensions: 2, pooling: "none" }), hasCode("OPTION_INVALID"));
    const bits = await bert.embed("a", { dimensions: 16, precision: "ubinary" });
    assert.equal(bits.length, 2);
  });
});
