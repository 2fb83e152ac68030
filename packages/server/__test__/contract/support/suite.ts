/** The tests that every client must pass, over what its program has seen. */
import assert from "node:assert/strict";
import { type TestContext, test } from "vitest";
import { after } from "./reciter.js";
import { cases } from "./cases.js";
import type { Ran } from "./clients.js";
import type { Answered, Failure, Outcome } from "./outcome.js";
import type { Servers } from "./servers.js";

/** `seen`: once the program has run. */
export type Seen<T> = () => Ran<T>;

/** A test of what was seen, skipped where the client could not be had. */
export function seenTest<T>(ran: Seen<T>, name: string, body: (seen: T) => void | Promise<void>): void {
  test(name, async (context: TestContext) => {
    const { seen, missing } = ran();
    if (missing !== undefined) return context.skip(missing);
    await body(seen!);
  });
}

/** What tells a client's errors apart: the client's own class, the status of those that have one, the fields. */
export interface Expected {
  readonly class: string;
  readonly status?: number;
  readonly code?: string;
  readonly param?: string;
  readonly says?: RegExp;
}

export function assertFailure(failure: Failure | null | undefined, { class: name, says, ...fields }: Expected): void {
  assert.ok(failure, "it did not fail");
  assert.ok(failure.classes.includes(name), `${failure.classes.join(" < ")}: ${failure.message}`);
  for (const [field, value] of Object.entries(fields)) assert.equal(failure[field as keyof Failure], value, `${field} of ${JSON.stringify(failure)}`);
  if (says) assert.match(failure.message, says);
}

/** Names of the classes that a client has for errors. */
export interface ErrorClasses {
  readonly badRequest: string;
  readonly notFound: string;
  readonly authentication: string;
  readonly rateLimit: string;
  readonly server: string;
  readonly stream: string;
  readonly timeout: string;
}

const joined = ({ deltas }: Answered): string => deltas.join("");

export function clientTests<T extends Outcome>(servers: () => Servers, ran: Seen<T>, classes: ErrorClasses): void {
  seenTest(ran, "a stream's deltas, joined, are the text of the same request without a stream, and the library's", async ({ answered }) => {
    const { models } = servers();
    const options = { maxNewTokens: 40, temperature: 0.8, seed: cases.seed };
    const reply = await models.dialogue.chat(cases.question, options).text();
    for (const [route, seen] of Object.entries(answered)) {
      assert.equal(joined(seen), seen.text, route);
      // The AI SDK writes a prompt of its own around what it is given.
      if (route !== "completions") assert.equal(seen.text, reply, route);
      assert.ok(seen.deltas.length > 1, route);
      assert.equal(seen.streamedFinish, seen.finish, route);
    }
  });

  seenTest(ran, "Chinese and emoji arrive whole", ({ recited }) => {
    for (const [route, seen] of Object.entries(recited)) {
      assert.ok(cases.recited.endsWith(seen.text) && seen.text.includes("👩‍👩‍👧") && seen.text.includes("合作"), `${route}: ${seen.text}`);
      if (route !== "completions") assert.equal(seen.text, after(cases.recited, 2), route);
      assert.equal(joined(seen), seen.text, route);
      assert.deepEqual(seen.deltas.filter((delta) => delta.includes("\uFFFD")), [], route);
      assert.equal(seen.finish, "stop", route);
    }
  });

  seenTest(ran, "counts of tokens are the same in a stream", ({ answered, recited }) => {
    for (const { usage, streamedUsage } of [...Object.values(answered), ...Object.values(recited)]) {
      assert.deepEqual(streamedUsage, usage);
      assert.equal(usage.prompt + usage.completion, usage.total);
    }
    // Bytes are its tokens; the last one ends the text.
    for (const { text, usage } of Object.values(recited)) assert.equal(usage.completion, Buffer.byteLength(text) + 1);
  });

  seenTest(ran, "an answer that was cut off says so", ({ length }) => {
    assert.ok(Object.keys(length).length > 0);
    for (const finish of Object.values(length)) assert.equal(finish, "length");
  });

  seenTest(ran, "a text ends before a stop string", ({ stopped }) => {
    assert.ok(Object.keys(stopped).length > 0);
    const until = cases.recited.slice(0, cases.recited.indexOf(cases.stop));
    for (const { text, joined, finish } of Object.values(stopped)) {
      assert.ok(text.length > 0 && until.endsWith(text), text);
      assert.equal(joined, text);
      assert.equal(finish, "stop");
    }
  });

  seenTest(ran, "vectors are those of the library, bit for bit", async ({ embeddings }) => {
    const expected = await servers().models.minilm.embed(cases.texts);
    assert.deepEqual(embeddings.vectors, expected.map((vector) => Array.from(vector)));
    assert.deepEqual(embeddings.one, Array.from(expected[1]!));
  });

  seenTest(ran, "what is wrong with a request is an error of the client's own, before anything is streamed", ({ errors }) => {
    const tooLong = { class: classes.badRequest, status: 400, code: "context_length_exceeded", says: /70\d .*(512|256)|(512|256) .*70\d/s };
    for (const name of ["tooLong", "tooLongStreamed", "tooLongResponse", "tooLongText"]) if (name in errors) assertFailure(errors[name], tooLong);
    assertFailure(errors["tooLongText"], tooLong);
    assertFailure(errors["noModel"], { class: classes.notFound, status: 404, code: "model_not_found", param: "model" });
    assertFailure(errors["tools"], { class: classes.badRequest, status: 400, code: "unsupported_parameter", param: "tools" });
    assertFailure(errors["format"], { class: classes.badRequest, status: 400, code: "unsupported_parameter", param: "response_format" });
    if ("responseTools" in errors) assertFailure(errors["responseTools"], { class: classes.badRequest, status: 400, code: "unsupported_parameter", param: "tools" });
    if ("ids" in errors) assertFailure(errors["ids"], { class: classes.badRequest, status: 400, code: "token_ids_not_allowed", param: "input", says: /check_embedding_ctx_length=False/ });
  });

  seenTest(ran, "a wrong key, a limit that is reached and a server that ends are told apart", ({ errors }) => {
    assertFailure(errors["wrongKey"], { class: classes.authentication, status: 401, code: "invalid_api_key" });
    assert.equal(errors["withinLimit"], null);
    assertFailure(errors["limit"], { class: classes.rateLimit, status: 429, code: "requests_limit_exceeded" });
    assertFailure(errors["draining"], { class: classes.server, status: 503, code: "server_draining" });
    for (const name of ["limit", "draining"]) {
      const seconds = Number(errors[name]!.retryAfter);
      assert.ok(seconds >= 1 && seconds < 60, `${name}: ${seconds}`);
    }
  });

  seenTest(ran, "a stream that the server ends is an error, not an end", ({ torn }) => {
    assert.ok(Object.keys(torn).length > 0);
    for (const [route, { pieces, error }] of Object.entries(torn)) {
      assert.ok(pieces > 0 && pieces < 490, `${route}: ${pieces}`);
      assertFailure(error, { class: classes.stream, says: /The server has ended/ });
    }
  });

  seenTest(ran, "who waits no longer gets an error", ({ timeout }) => {
    assertFailure(timeout.error, { class: classes.timeout });
    assert.ok(timeout.ms < 5_000, `${timeout.ms} ms`);
  });

  seenTest(ran, "nothing is computed for who has left", ({ left }) => {
    assert.ok(Object.keys(left).length > 0);
    for (const [how, { before, ms }] of Object.entries(left)) {
      assert.ok(before > 0, `${how}: nothing ran`);
      // All of it would take more. A step takes some 10 ms, where others leave the machine its cores.
      assert.ok(ms < 2_500, `${how}: ${ms} ms`);
    }
  });

  seenTest(ran, "who is refused for now comes again when it was told to, and is served", ({ retried }) => {
    assert.ok(retried.text.length > 0);
    assert.equal(retried.requests, 2);
    assert.ok(retried.ms >= 990 && retried.ms < 10_000, `${retried.ms} ms`);
  });
}
