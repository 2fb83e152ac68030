/** Several JavaScript environments, and the ends of them. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { describe, test } from "vitest";
import { loadGPT2 } from "../index.js";
import { fixturePath } from "./support/fixtures.js";
import { randomModel } from "./support/models.js";

const model = randomModel({ n_positions: 4096 });
const script = join(__dirname, "support", "worker.ts");
/** Of the ways to have TypeScript in a worker this one works on every Node. */
const start = (workerData: object) =>
  new Worker(`require("tsx/cjs"); require(${JSON.stringify(script)});`, {
    eval: true,
    workerData: { model, encoder: fixturePath("bert-base"), ...workerData },
  });

describe("worker_threads", () => {
  test("two workers and the main thread get the same text, and the workers end by themselves", async () => {
    await using lm = await loadGPT2(model, { threads: 1 });
    const workers = [start({}), start({})];
    const ends = workers.map((worker) => once(worker, "exit"));
    const texts = await Promise.all(workers.map(async (worker) => (await once(worker, "message"))[0] as string));
    const { text } = await lm.generate("abc", { temperature: 0, maxNewTokens: 50, ignoreEos: true }).result;
    assert.deepEqual(texts, [text, text]);
    assert.deepEqual(await Promise.all(ends), [[0], [0]]);
  });

  test("a worker that is terminated in the middle of its streams harms nobody", async () => {
    await using lm = await loadGPT2(model, { threads: 1 });
    const own = lm.generate("abc", { maxNewTokens: 3000, ignoreEos: true, seed: 1 });
    await own.next();
    for (let round = 0; round < 5; round++) {
      const worker = start({ endless: true });
      await once(worker, "message");
      await worker.terminate();
    }
    let count = 1;
    for await (const _ of own) count++;
    assert.equal(count, 3000);
  });

  test("a worker that is terminated while it loads harms nobody", async () => {
    for (let round = 0; round < 3; round++) {
      const worker = start({ endless: true });
      await once(worker, "online");
      await worker.terminate();
    }
    await using lm = await loadGPT2(model, { threads: 1 });
    assert.equal((await lm.generate("abc", { maxNewTokens: 5, ignoreEos: true }).result).usage.completionTokens, 5);
  });
});

describe("the process", () => {
  const root = join(__dirname, "..");
  const index = join(root, "index.ts");
  const run = (source: string) => {
    const head = `const { loadGPT2, generate } = require(${JSON.stringify(index)}); const model = ${JSON.stringify(model)};`;
    return promisify(execFile)(process.execPath, ["--import", "tsx", "--eval", `${head}\n${source}`], { cwd: root, timeout: 60_000 });
  };

  test("ends by itself with an idle model, and does not with a pending call", async () => {
    const { stdout } = await run(`
      (async () => {
        const lm = await loadGPT2(model);
        const stream = lm.generate("abc", { maxNewTokens: 20, ignoreEos: true });
        const { usage } = await stream.result;
        // Loads another one, by name.
        await generate("abc", { model, maxNewTokens: 2 }).result;
        console.log(usage.completionTokens);
      })();
    `);
    assert.equal(stdout.trim(), "20");
  });

  test("ends by itself with a stream that nobody reads on", async () => {
    const { stdout } = await run(`
      (async () => {
        const lm = await loadGPT2(model);
        const stream = lm.generate("abc", { maxNewTokens: 4000, ignoreEos: true });
        console.log((await stream.next()).value.index);
        globalThis.kept = [lm, stream];
      })();
    `);
    assert.equal(stdout.trim(), "0");
  });

  test("without an addon the import fails, and says so", async () => {
    const env = { ...process.env, CANDLEWICK_NATIVE: join(__dirname, "no", "such.node") };
    const source = `try { require(${JSON.stringify(index)}) } catch (error) { console.log(error.code, error.message.includes("such.node")) }`;
    const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", "--eval", source], { cwd: root, env });
    assert.equal(stdout.trim(), "ADDON_MISSING true");
  });

  test("process.exit in the middle of a stream is a clean exit", async () => {
    const { stdout } = await run(`
      (async () => {
        const lm = await loadGPT2(model);
        for await (const token of lm.generate("abc", { maxNewTokens: 4000, ignoreEos: true })) {
          console.log(token.index);
          process.exit(0);
        }
      })();
    `);
    assert.equal(stdout.trim(), "0");
  });
});
