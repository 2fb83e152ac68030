/**
 * Memory under many requests: it may grow while pools fill, and then no more. `CANDLEWICK_REQUESTS=20000` for the long
 * form. In a process of its own, whose memory is that of the server alone.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { randomModel } from "../../../__test__/support/models.js";
import { testUnless } from "../../../__test__/support/skip.js";

const REQUESTS = Number(process.env["CANDLEWICK_REQUESTS"] ?? 6_000);
const main = join(__dirname, "..", "dist", "src", "cli", "main.js");

/** Megabytes of a process that are its own, swapped ones too. */
function anonymous(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const kilobytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)![1]);
  return (kilobytes("RssAnon") + kilobytes("VmSwap")) / 1_024;
}

/** One request with a prompt that nobody has sent before, a third of them left in the middle. */
function ask(port: number, agent: Agent, i: number): Promise<void> {
  const body = JSON.stringify({ model: "m", prompt: `${i} `.repeat(1 + (i % 40)), max_tokens: 12, logprobs: 5, seed: i, stream: i % 2 === 0, echo: i % 5 === 0 });
  return new Promise((resolve) => {
    const sent = request({ host: "127.0.0.1", port, agent, method: "POST", path: "/v1/completions", headers: { "content-type": "application/json", "content-length": body.length } }, (response) => {
      response.on("end", resolve).on("error", () => resolve()).resume();
    });
    sent.on("error", () => resolve());
    sent.end(body);
    if (i % 3 === 0) setTimeout(() => sent.destroy(), i % 13);
  });
}

testUnless(process.platform === "linux" ? false : "memory is read from /proc", `memory stays flat over ${REQUESTS} requests, a third of them left`, async () => {
  const model = randomModel({ n_positions: 512 });
  // V8's young generation grows with the load on the machine, not with what is kept: hold it still.
  const child = spawn(process.execPath, ["--max-semi-space-size=2", main, "--model", `m=${model}`, "--port", "0", "--json", "--log-level", "silent", "--threads", "1"], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [line] = (await once(createInterface(child.stdout), "line")) as [string];
    const { port } = new URL((JSON.parse(line) as { url: string }).url);
    const agent = new Agent({ keepAlive: true, maxSockets: 8 });
    let next = 0;
    const until = async (count: number) => {
      await Promise.all(
        Array.from({ length: 8 }, async () => {
          while (next < count) await ask(Number(port), agent, next++);
        }),
      );
    };
    const readings: number[] = [];
    // Pools and compiled code fill in the first part; what grows after that would go on growing.
    for (let part = 1; part <= 6; part++) {
      await until((REQUESTS * part) / 6);
      await new Promise((resolve) => setTimeout(resolve, 300));
      readings.push(anonymous(child.pid!));
    }
    const growth = Math.min(...readings.slice(4)) - Math.max(...readings.slice(1, 3));
    assert.ok(growth <= 10, `MB after each sixth: ${readings.map((reading) => reading.toFixed(0)).join(", ")}`);
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    assert.match(metrics, /candlewick_requests_running\{model="m"\} 0\n/);
    assert.match(metrics, /candlewick_kv_cache_usage_ratio\{model="m"\} 0\n/);
    agent.destroy();
  } finally {
    child.kill("SIGKILL");
  }
});
