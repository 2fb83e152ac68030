/** The short form of `npm run test:fuzz`. */
import assert from "node:assert/strict";
import { test } from "vitest";
import { fuzz } from "./support/fuzz.js";

test("5,000 requests that are wrong in random ways get a documented answer each, and harm nobody", async () => {
  const { requests, statuses, comparisons, findings } = await fuzz(5_000, 1);
  assert.deepEqual(findings, []);
  assert.ok(requests >= 5_000 && comparisons > 0);
  for (const status of [200, 400, 404, 405, 415]) assert.ok((statuses[status] ?? 0) > 0, `none had ${status}: ${JSON.stringify(statuses)}`);
});
