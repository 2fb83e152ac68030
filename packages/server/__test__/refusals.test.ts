/** What every route says to what it cannot answer, and what no answer tells of the server. */
import assert from "node:assert/strict";
import { type BERT, CandlewickError, type GPT2, loadGPT2 } from "candlewick";
import { afterAll, beforeAll, describe, test } from "vitest";
import { randomModel } from "../../../__test__/support/models.js";
import { type Json, loadShippedBERT, post, type Started, startServer } from "./support/server.js";

const KEY = "sk-the-key-of-this-test";
const MOST_BYTES = 20_000;

let lm: GPT2;
let minilm: BERT;
let server: Started;
let locked: Started;
beforeAll(async () => {
  [lm, minilm] = await Promise.all([loadGPT2(randomModel(), { threads: 1 }), loadShippedBERT("minilm")]);
  server = await startServer({ models: { lm, minilm }, maxBodyBytes: MOST_BYTES });
  locked = await startServer({ models: { lm, minilm }, keys: [{ name: "one", key: KEY }] });
});
afterAll(async () => {
  await Promise.all([server?.[Symbol.asyncDispose](), locked?.[Symbol.asyncDispose]()]);
  await Promise.all([lm?.close(), minilm?.close()]);
});

const messages = [{ role: "user", content: "a" }];
const bodies: Readonly<Record<string, Json>> = {
  "/v1/completions": { model: "lm", prompt: "a" },
  "/v1/chat/completions": { model: "lm", messages },
  "/v1/responses": { model: "lm", input: "a" },
  "/v1/embeddings": { model: "minilm", input: "a" },
  "/v1/rerank": { model: "minilm", query: "a", documents: ["a"] },
  "/v1/classify": { model: "minilm", input: "a" },
  "/tokenize": { model: "lm", prompt: "a" },
  "/detokenize": { model: "lm", tokens: [1] },
};
const paths = Object.keys(bodies);
const gets = ["/v1/models", "/v1/models/lm", "/openapi.json", "/livez", "/readyz", "/metrics"];

/** OpenAI's form, an id, and nothing of files or code. */
async function assertRefusal(response: Response, status: number, code: string, param: string | null = null): Promise<Json> {
  const text = await response.text();
  assert.equal(response.status, status, text);
  assert.match(response.headers.get("content-type")!, /^application\/json/);
  assert.match(response.headers.get("x-request-id") ?? "", /^[\w.:-]{1,128}$/);
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  const { error, ...rest } = JSON.parse(text) as Json;
  assert.deepEqual(rest, {});
  assert.deepEqual(Object.keys(error).sort(), ["code", "message", "param", "type"]);
  assert.deepEqual([error.code, error.param], [code, param], text);
  assert.ok(typeof error.message === "string" && error.message.length > 0 && error.message.length < 400);
  assert.doesNotMatch(text, /node_modules|\bat .*:\d+:\d+|\.(js|ts|rs|node|safetensors)\b|\/(work|root|home|tmp|usr)\/|candlewick-test/);
  return error as Json;
}

describe.each(paths)("%s", (path) => {
  const body = bodies[path]!;

  test("a model that nobody has is 404, and so is one of the other kind", async () => {
    for (const model of ["nope", "", "x".repeat(500), "../../etc/passwd", "__proto__"].filter((name) => name !== "")) {
      const { message } = await assertRefusal(await post(server.url, path, { ...body, model }), 404, "model_not_found", "model");
      assert.ok(message.length < 200);
    }
    const other = body["model"] === "lm" ? "minilm" : "lm";
    if (!path.startsWith("/v1/")) return;
    await assertRefusal(await post(server.url, path, { ...body, model: other }), 404, "model_not_found", "model");
  });

  test("another method is 405, and says which is right", async () => {
    for (const method of ["GET", "PUT", "DELETE", "PATCH"]) {
      const response = await fetch(server.url + path, { method });
      assert.equal(response.headers.get("allow"), "POST");
      await assertRefusal(response, 405, "method_not_allowed");
    }
  });

  test("another content type is 415", async () => {
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"]) {
      await assertRefusal(await post(server.url, path, body, { headers: { "content-type": type } }), 415, "unsupported_media_type");
    }
    await assertRefusal(await post(server.url, path, body, { headers: { "content-encoding": "gzip" } }), 415, "unsupported_media_type");
    for (const type of ["application/json; charset=utf-8", "Application/JSON"]) {
      const { status } = await post(server.url, path, body, { headers: { "content-type": type } });
      assert.ok(status === 200 || status === 400, `${type}: ${status}`);
    }
  });

  test("a body that is too large is 413, whatever its length says", async () => {
    const large = { ...body, user: "x".repeat(MOST_BYTES) };
    await assertRefusal(await post(server.url, path, large), 413, "request_too_large");
    const chunks = new Blob([JSON.stringify(large)]).stream();
    const init = { method: "POST", headers: { "content-type": "application/json" }, body: chunks, duplex: "half" } as RequestInit;
    await assertRefusal(await fetch(server.url + path, init), 413, "request_too_large");
  });

  test("what is no JSON object is 400", async () => {
    for (const text of ["", "{", "[]", "1", "null", '"x"', '{"model": "lm",}', "\u0000"]) {
      await assertRefusal(await post(server.url, path, text), 400, "invalid_json");
    }
    await assertRefusal(await post(server.url, path, '{"model":"lm","model":"lm"}'), 400, "duplicate_key", "model");
  });

  test("without a key it is 401, before anything is read", async () => {
    for (const authorization of [undefined, "Bearer", "Bearer ", `Bearer ${KEY}x`, `Token ${KEY}`, KEY]) {
      const response = await post(locked.url, path, "{", { headers: authorization === undefined ? {} : { authorization } });
      assert.match(response.headers.get("www-authenticate")!, /^Basic realm=/);
      await assertRefusal(response, 401, "invalid_api_key");
    }
    for (const authorization of [`Bearer ${KEY}`, `bearer ${KEY}`, `Basic ${Buffer.from(`:${KEY}`).toString("base64")}`]) {
      await assertRefusal(await post(locked.url, path, "{", { headers: { authorization } }), 400, "invalid_json");
    }
  });
});

describe("routes", () => {
  test("one that is not is 404", async () => {
    for (const path of ["/v1", "/v1/", "/v2/completions", "/v1/completions/x", "/v1/files", "/v1/models/", "/.env", "/page/../../package.json", "/%2e%2e/package.json", "/metrics/x"]) {
      for (const method of ["GET", "POST"]) await assertRefusal(await fetch(server.url + path, { method }), 404, "unknown_route");
    }
  });

  test("a model that nobody has is 404, with its name in the path too", async () => {
    for (const name of ["nope", "a/b", "%00", "..%2f..%2fetc", "x".repeat(300)]) {
      await assertRefusal(await fetch(`${server.url}/v1/models/${name}`), 404, "model_not_found", "model");
    }
    assert.equal((await fetch(`${server.url}/v1/models/minilm`)).status, 200);
  });

  test("those that are read take no other method", async () => {
    for (const path of gets) {
      for (const method of ["POST", "PUT", "DELETE"]) {
        const response = await fetch(server.url + path, { method });
        assert.equal(response.headers.get("allow"), "GET", `${method} ${path}`);
        await assertRefusal(response, 405, "method_not_allowed");
      }
    }
  });

  test("a request's id comes back, of a caller's own if it is one", async () => {
    const id = async (given: string | undefined) => {
      const headers: Record<string, string> = given === undefined ? {} : { "x-request-id": given };
      const ids = await Promise.all([...gets, "/nowhere"].map(async (path) => (await fetch(server.url + path, { headers })).headers.get("x-request-id")));
      return ids;
    };
    for (const own of ["abc-1.2:3_4", "x".repeat(128)]) assert.ok((await id(own)).every((one) => one === own));
    for (const bad of ["x".repeat(129), "a b", "<script>", undefined]) {
      const ids = await id(bad);
      assert.ok(ids.every((one) => /^req_[0-9a-f]{24}$/.test(one!)));
      assert.equal(new Set(ids).size, ids.length);
    }
  });
});

describe("what goes wrong on this side", () => {
  const secret = "/srv/secret/model.safetensors";
  /** A model whose stream gives some tokens, and then fails. */
  const failing = (error: Error, tokens: number) =>
    Object.create(lm, {
      info: { value: lm.info },
      stats: { value: () => lm.stats() },
      generate: {
        value: (prompt: string, options: object) => {
          const stream = lm.generate(prompt, options);
          let left = tokens;
          const fail = async (): Promise<never> => {
            throw error;
          };
          const next = () => (left-- > 0 ? stream.next() : fail());
          const cancel = () => stream.cancel();
          return {
            next,
            cancel,
            get accepted() {
              return tokens < 0 ? fail() : stream.accepted;
            },
            get result() {
              return fail();
            },
          };
        },
      },
    }) as GPT2;
  const body = { model: "broken", prompt: "a", max_tokens: 8, ignore_eos: true };

  for (const [error, code] of [[new Error(`open ${secret}`), "internal_error"], [new CandlewickError("TENSOR_SHAPE", secret), "TENSOR_SHAPE"]] as const) {
    test(`is named, and nothing more is told: ${code}`, async () => {
      for (const tokens of [-1, 0]) {
        await using broken = await startServer({ models: { broken: failing(error, tokens) } });
        for (const stream of tokens < 0 ? [false, true] : [false]) {
          const response = await post(broken.url, "/v1/completions", { ...body, stream });
          const { message, type } = await assertRefusal(response, 500, code);
          assert.equal(type, "server_error");
          assert.ok(!message.includes("secret"));
        }
      }
      await using broken = await startServer({ models: { broken: failing(error, 3) } });
      const response = await post(broken.url, "/v1/completions", { ...body, stream: true });
      assert.equal(response.status, 200);
      const text = await response.text();
      assert.ok(!text.includes("secret") && !text.includes("[DONE]"));
      const last = JSON.parse(text.trimEnd().split("\n\n").at(-1)!.slice("data: ".length)) as Json;
      assert.deepEqual([last["error"].code, last["error"].type], [code, "server_error"]);
      assert.equal(broken.handler.working, 0);
    });
  }
});

describe("what a model cannot do", () => {
  test("a conversation, without a form for it", async () => {
    for (const [path, body] of [["/v1/chat/completions", { model: "lm", messages }], ["/v1/responses", { model: "lm", input: "a" }], ["/tokenize", { model: "lm", messages }]] as const) {
      for (const stream of path === "/tokenize" ? [undefined] : [false, true]) {
        await assertRefusal(await post(server.url, path, { ...body, stream }), 400, "chat_template_missing", "model");
      }
    }
  });

  test("classes, without a head for them", async () => {
    await assertRefusal(await post(server.url, "/v1/classify", bodies["/v1/classify"]), 400, "TASK_UNSUPPORTED", "model");
  });
});
