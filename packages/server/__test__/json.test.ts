/** Bodies of requests: what is no JSON object, or could be read in two ways, is refused. */
import assert from "node:assert/strict";
import { describe, test } from "vitest";
import { ApiError } from "../src/errors.js";
import { readJson } from "../src/json.js";

type Body = NonNullable<RequestInit["body"]>;

const limits = { budget: { left: 1 << 20 }, maxBytes: 10_000, timeoutMs: 1_000 };
const body = (content: Body, headers: Record<string, string> = {}) =>
  new Request("http://x/", { method: "POST", body: content, headers: { "content-type": "application/json", ...headers } });

const read = (content: Body, headers?: Record<string, string>) => readJson(body(content, headers), limits);

async function refusal(content: Body, headers?: Record<string, string>): Promise<[number, string, string | null]> {
  try {
    await read(content, headers);
  } catch (error) {
    assert.ok(error instanceof ApiError, String(error));
    return [error.status, error.code, error.body.error.param];
  }
  throw new Error(`It was read: ${String(content).slice(0, 100)}`);
}

test("objects are read as JSON.parse reads them", async () => {
  const objects = [{}, { a: 1, b: [1, { a: 2 }], c: { a: "\"}{" } }, { "a\\": '\\"', é: "🙂", "": null }, { a: { b: 1 }, c: { b: 2 }, d: [{ b: 1 }, { b: 2 }] }];
  for (const object of objects) {
    for (const indent of [0, 2]) assert.deepEqual(await read(JSON.stringify(object, null, indent)), object);
  }
});

describe("refused", () => {
  const cases: [name: string, content: Body, status: number, code: string, param?: string][] = [
    ["an empty body", "", 400, "invalid_json"],
    ["no JSON", "{'a': 1}", 400, "invalid_json"],
    ["cut off", '{"a": [1, 2', 400, "invalid_json"],
    ["cut off in a string", '{"a": "b', 400, "invalid_json"],
    ["two values", "{}{}", 400, "invalid_json"],
    ["a list", "[]", 400, "invalid_json"],
    ["a number", "1", 400, "invalid_json"],
    ["null", "null", 400, "invalid_json"],
    ["NaN", '{"a": NaN}', 400, "invalid_json"],
    ["no UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 400, "invalid_json"],
    ["a surrogate in UTF-8", Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]), 400, "invalid_json"],
    ["a key twice", '{"n": 1, "n": 1}', 400, "duplicate_key", "n"],
    ["a key twice, once escaped", '{"n": 1, "\\u006e": 2}', 400, "duplicate_key", "n"],
    ["a key twice, deep inside", '{"a": [{"b": {"c": 1, "d": "}", "c": 2}}]}', 400, "duplicate_key", "c"],
    ["a key twice after a list", '{"a": [1, {"x": 1}, "a"], "a": 2}', 400, "duplicate_key", "a"],
    ["nesting", `${'{"a":'.repeat(40)}1${"}".repeat(40)}`, 400, "invalid_json"],
    ["nesting without an end", "[".repeat(9_000), 400, "invalid_json"],
    ["too many bytes", JSON.stringify({ a: "x".repeat(10_000) }), 413, "request_too_large"],
  ];
  for (const [name, content, status, code, param = null] of cases) {
    test(name, async () => assert.deepEqual(await refusal(content), [status, code, param]));
  }

  test("another type of content", async () => {
    for (const type of ["text/plain", "application/json-patch+json", "application/x-www-form-urlencoded", "multipart/form-data"]) {
      assert.deepEqual(await refusal("{}", { "content-type": type }), [415, "unsupported_media_type", null]);
    }
    assert.deepEqual(await read("{}", { "content-type": "Application/JSON; charset=utf-8" }), {});
    assert.equal((await refusal("{}", { "content-encoding": "gzip" }))[0], 415);
  });

  test("a length that is too much, before anything is read", async () => {
    const stream = new ReadableStream({ pull: () => assert.fail("it was read") }, { highWaterMark: 0 });
    const request = new Request("http://x/", { method: "POST", body: stream, duplex: "half", headers: { "content-type": "application/json", "content-length": "10001" } } as RequestInit);
    await assert.rejects(readJson(request, limits), (error) => error instanceof ApiError && error.status === 413);
  });

  test("a body that does not come in time", async () => {
    const stream = new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from("{")) });
    const request = new Request("http://x/", { method: "POST", body: stream, duplex: "half", headers: { "content-type": "application/json" } } as RequestInit);
    await assert.rejects(readJson(request, { ...limits, timeoutMs: 50 }), (error) => error instanceof ApiError && error.status === 408);
  });
});

test("all bodies that are being read have a bound together", async () => {
  const budget = { left: 100 };
  const part = (bytes: number) => JSON.stringify({ a: "x".repeat(bytes) });
  await assert.rejects(readJson(body(part(200)), { ...limits, budget }), (error) => error instanceof ApiError && error.status === 503);
  assert.equal(budget.left, 100, "what was refused is given back");
  await readJson(body(part(50)), { ...limits, budget });
  assert.equal(budget.left, 100, "and what was read");
});

test("any two keys in any place: refused exactly if they are one key of one object", async () => {
  let random = 7;
  const draw = (below: number) => (random = (random * 1_103_515_245 + 12_345) % 2 ** 31) % below;
  const keys = ["a", "b", "\\u0061", '\\"', "\\\\", "é"];
  let twice = false;
  const value = (depth: number): string => {
    if (depth > 4 || draw(3) === 0) return ['"a"', '"}"', "1", "null", '"\\\\"', '"{\\"a\\":1"'][draw(6)]!;
    if (draw(2) === 0) return `[${Array.from({ length: draw(4) }, () => value(depth + 1)).join(", ")}]`;
    return object(depth);
  };
  const object = (depth: number): string => {
    const chosen = Array.from({ length: draw(4) }, () => keys[draw(keys.length)]!);
    const plain = chosen.map((key) => JSON.parse(`"${key}"`) as string);
    if (new Set(plain).size < plain.length) twice = true;
    return `{${chosen.map((key) => `"${key}" : ${value(depth + 1)}`).join(",")}}`;
  };
  for (let i = 0; i < 3_000; i++) {
    twice = false;
    const text = object(0);
    if (twice) assert.equal((await refusal(text))[1], "duplicate_key", text);
    else assert.deepEqual(await read(text), JSON.parse(text), text);
  }
});
