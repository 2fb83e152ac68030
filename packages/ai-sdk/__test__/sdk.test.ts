/** What a user of the AI SDK sees, with the real `ai` 6 and 7: programs/sdk.mjs does it, in a process of its own. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, test } from "vitest";
import { describeUnless } from "../../../__test__/support/skip.js";
import { clients } from "../../../scripts/lib/clients.mjs";

const exec = promisify(execFile);
const program = join(__dirname, "programs", "sdk.mjs");

/** As the program prints it. */
type Seen = Record<string, any>;

describe("the AI SDK", async () => {
  const installed = await clients();
  for (const [name, what] of [["ai6", "ai 6, on this Node"], ["ai7", "ai 7, on Node 22"]] as const) {
    describeUnless(!installed && "its packages could not be installed", what, () => {
      let seen: Seen;
      beforeAll(async () => {
        const node = name === "ai6" ? process.execPath : installed!.node;
        const { stdout } = await exec(node, [program, installed!.folder, name], { maxBuffer: 1 << 24, timeout: 300_000 });
        seen = JSON.parse(stdout);
      });

      test("generateText gives the text that the model gives, and what it took", () => {
        const { text, expected, finishReason, usage, modelId, id, timestamp, warnings, metadata } = seen["generate"];
        assert.equal(text, expected);
        assert.equal(finishReason, "length");
        assert.deepEqual([usage.inputTokens, usage.outputTokens, usage.totalTokens], [9, 12, 21]);
        assert.equal(usage.inputTokenDetails.cacheReadTokens, 0);
        assert.equal(modelId, "writer");
        assert.match(id, /^candlewick-/);
        assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < 600_000);
        assert.deepEqual(warnings, []);
        assert.equal(metadata.candlewick.seed, 7);
        assert.equal(metadata.candlewick.logprobs.length, 12);
        assert.ok(metadata.candlewick.timings.firstTokenMs > 0);
      });

      test("a stop sequence ends the text before it", () => {
        assert.equal(seen["stop"].finishReason, "stop");
        assert.ok(!seen["stop"].text.includes("."));
      });

      test("streamText's deltas are the text", () => {
        const { deltas, text, whole, finishReason, usage, metadata, modelId } = seen["stream"];
        assert.ok(deltas.length > 20);
        assert.equal(deltas.join(""), text);
        assert.equal(text, whole);
        assert.equal(finishReason, "length");
        assert.deepEqual([usage.outputTokens, metadata.candlewick.seed, modelId], [60, 3, "writer"]);
      });

      test("Chinese comes whole", () => {
        const { text, streamed } = seen["chinese"];
        assert.match(text, /\p{Script=Han}{5}/u);
        assert.ok(!text.includes("\uFFFD"));
        assert.equal(streamed, text);
      });

      test("a conversation is answered", () => {
        assert.equal(seen["chat"].finishReason, "stop");
        assert.ok(seen["chat"].text.length > 3);
      });

      test("an aborted signal ends stream and compute", () => {
        const { deltas, during, aborted, running } = seen["abort"];
        assert.equal(during, 1);
        assert.ok(deltas >= 3 && deltas < 100, `${deltas} deltas`);
        assert.deepEqual(aborted, ["aborted"]);
        assert.equal(running, 0);
        assert.equal(seen["timeout"].error.name, "TimeoutError");
        assert.equal(seen["timeout"].running, 0);
      });

      test("embedMany and rerank", () => {
        const { lengths, like, unlike, cosine, usage, same } = seen["embed"];
        assert.deepEqual(lengths, [384, 384, 384, 384]);
        assert.ok(like > unlike && Math.abs(like - cosine) < 1e-4);
        assert.ok(usage.tokens > 15);
        assert.ok(same);
        const { ranking, rerankedDocuments } = seen["rerank"];
        assert.deepEqual(ranking.map(({ originalIndex }: { originalIndex: number }) => originalIndex), [2, 1]);
        assert.ok(ranking[0].score > ranking[1].score);
        assert.equal(rerankedDocuments[0], "A kitten is a young cat.");
      });

      test("what is wrong is said once, with its code, and is not tried again", () => {
        assert.deepEqual([seen["refused"].error.code, seen["refused"].error.status, seen["refused"].calls], ["OPTION_INVALID", 400, 1]);
        for (const [case_, code, status] of [
          ["unknown", "OPTION_UNKNOWN", 400],
          ["overflow", "CONTEXT_OVERFLOW", 400],
          ["missing", "MODEL_NOT_FOUND", 404],
          ["unfit", "TASK_UNSUPPORTED", 400],
        ] as const) {
          const { name, call, code: found, status: foundStatus, cause } = seen[case_];
          assert.deepEqual([name, call, found, foundStatus, cause], ["AI_APICallError", true, code, status, code], case_);
        }
        assert.deepEqual(seen["streamRefused"], { errors: ["OPTION_INVALID"], text: "" });
        assert.equal(seen["noModel"].name, "AI_NoSuchModelError");
      });

      test("a failure in the middle comes after the text before it", () => {
        const { errors, before, finishReason } = seen["broken"];
        assert.deepEqual(errors, ["MODEL_CLOSED"]);
        assert.ok(before.length > 0);
        assert.equal(finishReason, "error");
      });

      test("a full queue is tried again, when the model says", () => {
        const { error, calls, waited } = seen["queue"];
        assert.deepEqual([error.name, error.code, calls], ["AI_RetryError", "QUEUE_FULL", 2]);
        // Without the model's word the AI SDK waits for two seconds.
        assert.ok(waited >= 900 && waited < 1900, `${waited} ms`);
      });

      test("what the model cannot do is an error, or a warning where text is an answer", () => {
        for (const case_ of ["system", "image", "json"]) assert.ok(seen[case_].unsupported, case_);
        assert.ok(seen["tools"].required.unsupported);
        assert.deepEqual(seen["tools"].warnings.map(({ type, feature }: Seen) => [type, feature]), [["unsupported", "tools"]]);
      });

      test("the provider closes what it has loaded, and nothing else", () => {
        assert.equal(seen["closed"].given, undefined);
        assert.equal(seen["closed"].loaded.code, "MODEL_CLOSED");
      });
    });
  }
});
