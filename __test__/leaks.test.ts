/** Memory: what a thousand generations, streams and models leave behind. In a process of its own. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { test } from "vitest";
import { randomModel } from "./support/models.js";

test("1,000 cycles of load, generate, cancel and close leave RSS within 5%", { timeout: 600_000 }, async () => {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    // V8's young generation grows with the load on the machine, not with what is kept: hold it still.
    ["--expose-gc", "--max-semi-space-size=2", "--import", "tsx", join(__dirname, "support", "cycles.ts"), randomModel()],
    { timeout: 600_000 },
  );
  const { before, after, threads } = JSON.parse(stdout) as { before: number; after: number; threads: [number, number] };
  assert.ok(after <= before * 1.05, `RSS went from ${before >> 20} to ${after >> 20} MiB`);
  assert.ok(threads[1] <= threads[0] + 1, `threads went from ${threads[0]} to ${threads[1]}`);
});
