/**
 * The desk as load.ts starts it: it says how late its event loop is, when it is asked. One that is never given models
 * says how late any process is on this machine just now.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { ModelNames } from "./models.js";
import { startServer } from "./server.js";

/** Milliseconds between the histogram's own ticks, which are part of what it measures. */
const TICK = 5;

export type Asked = { models: Partial<ModelNames> } | "reset" | "lag" | "close";
export type Answered = { url: string } | { p50: number; p99: number; max: number } | "done" | { error: string };

const delays = monitorEventLoopDelay({ resolution: TICK });
delays.enable();
let server: Awaited<ReturnType<typeof startServer>> | undefined;

async function answer(asked: Asked): Promise<Answered> {
  if (asked === "reset") {
    delays.reset();
    return "done";
  }
  if (asked === "lag") {
    const late = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - TICK);
    return { p50: late(delays.percentile(50)), p99: late(delays.percentile(99)), max: late(delays.max) };
  }
  if (asked === "close") {
    await server?.close();
    return "done";
  }
  server = await startServer({ port: 0, database: ":memory:", models: asked.models });
  return { url: server.url };
}

process.on("message", (asked: Asked) => {
  answer(asked)
    .catch((error: Error) => ({ error: error.message }))
    .then((answered) => process.send!(answered, () => asked === "close" && process.disconnect()));
});
