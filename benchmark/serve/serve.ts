/**
 * `npm run bench -- serve [parts]`: the server under load, on loopback, its clients in a process of their own. Writes
 * docs/benchmarks/serve.json and serve.md (whole runs alone). Parts: `streams`, `prefixes`, `arriving`, `rate`,
 * `overload`, `mixed`; without any, all of them, about 50 minutes, of which `mixed` takes 30.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Child } from "../child.js";
import { here, modelFiles, mustExist, peers, root } from "../paths.js";
import { shapeOf } from "../shape.js";
import { median, quantile, randomIds } from "../stats.js";

const MODEL = "gpt2";
const THREADS = 2;
const LAG = /^candlewick_event_loop_lag_p99_seconds (\S+)/m;
const RESIDENT = /^candlewick_process_resident_bytes (\S+)/m;

interface Figure {
  readonly what: string;
  readonly value: string;
  /** What was to be reached, and whether it was. */
  readonly goal?: string;
  readonly reached?: boolean;
}

export interface ServeReport {
  date: string;
  cpu: string;
  node: string;
  seconds: Record<string, number>;
  figures: Record<string, Figure[]>;
}

interface Server {
  readonly url: string;
  readonly process: ChildProcess;
}

async function start(command: string[], env: NodeJS.ProcessEnv = {}): Promise<Server> {
  const child = spawn(process.execPath, command, { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, ...env } });
  const lines = createInterface({ input: child.stdout! });
  const [line] = (await Promise.race([once(lines, "line"), once(child, "exit").then(() => Promise.reject(new Error("the server ended")))])) as [string];
  return { ...(JSON.parse(line) as { url: string }), process: child };
}

const own = (dtype: string, more: string[] = []): Promise<Server> =>
  start([join(root, "packages", "server", "dist", "src", "cli", "main.js"), "--model", `${MODEL}=${mustExist(modelFiles.gpt2("candlewick", "f32"))}`, "--dtype", dtype, "--threads", String(THREADS), "--port", "0", "--json", "--log-level", "error", ...more]);

async function ended(server: Server): Promise<void> {
  const exit = once(server.process, "exit");
  server.process.kill("SIGTERM");
  await exit;
}

const metrics = async (server: Server): Promise<string> => (await fetch(`${server.url}/metrics`)).text();
const read = (text: string, pattern: RegExp): number => Number(pattern.exec(text)?.[1] ?? NaN);
const ms = (value: number): string => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
const rate = (value: number): string => `${value.toFixed(value < 100 ? 1 : 0)} tok/s`;

interface Streams {
  ms: number;
  tokens: number;
  first: number[];
  gaps: number[];
}

class Bench {
  readonly #client = new Child(process.execPath, [here("serve", "client.mjs")]);
  readonly #quick: boolean;
  readonly #vocabulary: number;
  #round = 0;

  constructor(quick: boolean) {
    this.#quick = quick;
    this.#vocabulary = shapeOf(mustExist(modelFiles.gpt2("candlewick", "f32"))).vocabulary;
  }

  end(): void {
    this.#client.kill();
  }

  #prompts(count: number, length: number): number[][] {
    this.#round++;
    return Array.from({ length: count }, (_, i) => randomIds(length, this.#vocabulary, 10_000 * this.#round + i));
  }

  #streams(server: Server, count: number, tokens: number): Promise<Streams> {
    return this.#client.ask("streams", { url: server.url, model: MODEL, prompts: this.#prompts(count, 32), tokens }, 600);
  }

  /** 32 streams to one, HTTP to the same work in process, and a peer behind the same HTTP. */
  async streams(): Promise<Figure[]> {
    const rounds = this.#quick ? 1 : 5;
    const tokens = this.#quick ? 8 : 128;
    const server = await own("q8_0");
    const inside = new Child(process.execPath, [here("workers", "candlewick.mjs")]);
    await inside.ask("open", { kind: "gpt2", path: modelFiles.gpt2("candlewick", "f32"), dtype: "q8_0", threads: THREADS });
    const llama = existsSync(modelFiles.gpt2("node-llama-cpp", "q8_0"))
      ? await start([here("serve", "llama.mjs"), join(peers, "llama"), modelFiles.gpt2("node-llama-cpp", "q8_0"), String(THREADS), "32"])
      : undefined;
    const rates: Record<string, number[]> = { one: [], many: [], inside: [], llama: [] };
    const speed = ({ tokens, ms }: Streams) => (1_000 * tokens) / ms;
    for (let turn = 0; turn <= rounds; turn++) {
      const one = speed(await this.#streams(server, 1, tokens));
      const many = speed(await this.#streams(server, 32, tokens));
      const prompts = this.#prompts(32, 32);
      const began = performance.now();
      await inside.ask("streams", { prompts, tokens }, 600);
      const same = (1_000 * 32 * tokens) / (performance.now() - began);
      const peer = llama && speed(await this.#streams(llama, 32, Math.min(tokens, 32)));
      // The first is for warming up.
      if (turn === 0 && rounds > 1) continue;
      rates["one"]!.push(one);
      rates["many"]!.push(many);
      rates["inside"]!.push(same);
      if (peer !== undefined) rates["llama"]!.push(peer);
    }
    // The lag is that of the last 15 to 30 seconds.
    const busyUntil = performance.now() + (this.#quick ? 0 : 35_000);
    do await this.#streams(server, 32, tokens);
    while (performance.now() < busyUntil);
    const lag = 1_000 * read(await metrics(server), LAG);
    await ended(server);
    if (llama) await ended({ ...llama, process: llama.process }).catch(() => {});
    inside.kill();
    const [one, many, same] = [median(rates["one"]!), median(rates["many"]!), median(rates["inside"]!)];
    const figures: Figure[] = [
      { what: "one stream through HTTP", value: rate(one) },
      { what: "32 streams through HTTP", value: `${rate(many)}, ${(many / one).toFixed(1)}× one`, goal: "≥ 5×", reached: many / one >= 5 },
      { what: "the same 32 in process", value: `${rate(same)}; HTTP has ${((100 * many) / same).toFixed(0)}% of it`, goal: "≥ 95%", reached: many / same >= 0.95 },
      { what: "event loop's lag meanwhile, p99", value: ms(lag), goal: "≤ 5 ms", reached: lag <= 5 },
    ];
    if (llama) {
      const peer = median(rates["llama"]!);
      figures.push({ what: "32 streams of node-llama-cpp behind the same HTTP", value: `${rate(peer)}; Candlewick ${(many / peer).toFixed(1)}×`, goal: "≥ 4×", reached: many / peer >= 4 });
    }
    return figures;
  }

  /** 64 clients over 8 beginnings of 512 tokens: what those who come later wait for their first token. */
  async prefixes(): Promise<Figure[]> {
    const server = await own("q8_0");
    const beginnings = this.#prompts(8, 512);
    const ask = (prompts: number[][]) => this.#client.ask<Streams>("streams", { url: server.url, model: MODEL, prompts, tokens: 1 }, 600);
    const cold: number[] = [];
    for (const beginning of beginnings) cold.push((await ask([beginning])).first[0]!);
    const warm: number[] = [];
    for (let client = 0; client < 64; client++) {
      const end = this.#prompts(1, 8)[0]!;
      warm.push((await ask([[...beginnings[client % 8]!, ...end]])).first[0]!);
    }
    await ended(server);
    const ratio = median(cold) / median(warm);
    return [
      { what: "first token after 512 new tokens", value: ms(median(cold)) },
      { what: "after the same and 8 more, 64 clients over 8 beginnings", value: `${ms(median(warm))}, ${ratio.toFixed(0)}× sooner`, goal: "≥ 10×", reached: ratio >= 10 },
    ];
  }

  /** 8 streams decode while prompts of 1,000 tokens arrive. */
  async arriving(): Promise<Figure[]> {
    const maxStepMs = 50;
    const server = await own("q8_0");
    await this.#streams(server, 8, 16);
    const { gaps, arrived } = await this.#client.ask<{ gaps: number[]; arrived: number }>(
      "arriving",
      { url: server.url, model: MODEL, prompts: this.#prompts(8, 32), tokens: this.#quick ? 20 : 300, long: this.#prompts(20, 1_000), pause: 200 },
      600,
    );
    await ended(server);
    const worst = Math.max(...gaps);
    return [{ what: `longest gap of 8 streams while ${arrived} prompts of 1,000 tokens arrive`, value: `${ms(worst)} (median of the streams' ${ms(median(gaps))})`, goal: `≤ ${3 * maxStepMs} ms`, reached: worst <= 3 * maxStepMs }];
  }

  /** At 70% of capacity. */
  async rate(): Promise<Figure[]> {
    const [promptTokens, tokens, seconds] = [64, 64, this.#quick ? 5 : 120];
    const server = await own("q8_0");
    const ask = (perSecond: number, seconds: number) =>
      this.#client.ask<Streams & { good: number; asked: number }>("rate", { url: server.url, model: MODEL, perSecond, seconds, promptTokens, tokens, vocabulary: this.#vocabulary }, 900);
    // Capacity: what is done of the same requests when there are always 32.
    const closed = await this.#client.ask<{ good: number; ms: number }>("rush", { url: server.url, model: MODEL, clients: 32, seconds: this.#quick ? 5 : 30, promptTokens, tokens, vocabulary: this.#vocabulary }, 600);
    const capacity = (1_000 * closed.good) / closed.ms;
    const { first, gaps, good, asked } = await ask(0.7 * capacity, seconds);
    await ended(server);
    const [firstP99, gapP99] = [quantile(first, 0.99), quantile(gaps, 0.99)];
    return [
      { what: `capacity, ${promptTokens} + ${tokens} tokens a request`, value: `${capacity.toFixed(1)} requests/s` },
      { what: `at 70% of it, ${good} of ${asked} requests done: first token, p50 / p99`, value: `${ms(median(first))} / ${ms(firstP99)}`, goal: "p99 ≤ 1 s", reached: firstP99 <= 1_000 && good === asked },
      { what: "between two tokens, p50 / p99", value: `${ms(median(gaps))} / ${ms(gapP99)}`, goal: "p99 ≤ 60 ms", reached: gapP99 <= 60 },
    ];
  }

  /** Ten times as many clients as the server has room for. */
  async overload(): Promise<Figure[]> {
    const [promptTokens, tokens] = [32, 32];
    const maxWait = 4;
    // So small that kept prefixes have filled it before memory is looked at.
    const server = await own("q8_0", ["--max-wait", String(maxWait), "--kv-cache-bytes", String(640 << 20)]);
    const rush = (clients: number, seconds: number, arrive = 0) =>
      this.#client.ask<{ ms: number; good: number; tokens: number; refusals: number[]; again: number; admitted: number; failed: number }>(
        "rush",
        { url: server.url, model: MODEL, clients, seconds, arrive, promptTokens, tokens, vocabulary: this.#vocabulary },
        900,
      );
    await rush(16, this.#quick ? 2 : 10);
    const peak = await rush(32, this.#quick ? 5 : 45);
    // So many are under way when requests are first refused.
    const room = Math.max(16, Math.round(((peak.good * 1_000) / peak.ms) * maxWait));
    const before = read(await metrics(server), RESIDENT);
    const { ms: took, tokens: made, refusals, again, admitted, failed } = await rush(10 * room, this.#quick ? 10 : 300, this.#quick ? 2 : 20);
    const after = read(await metrics(server), RESIDENT);
    await ended(server);
    const goodput = made / took / (peak.tokens / peak.ms);
    const growth = after / before - 1;
    return [
      { what: "peak, 32 clients", value: rate((1_000 * peak.tokens) / peak.ms) },
      { what: `${10 * room} clients, ten times those that there is room for, ${(took / 1_000).toFixed(0)} s: goodput`, value: `${rate((1_000 * made) / took)}, ${(100 * goodput).toFixed(0)}% of the peak`, goal: "≥ 95%", reached: goodput >= 0.95 },
      { what: `${refusals.length} refusals, p50 / p99`, value: `${ms(median(refusals))} / ${ms(quantile(refusals, 0.99))}`, goal: "p99 ≤ 10 ms", reached: quantile(refusals, 0.99) <= 10 },
      { what: "who waited as they were told and were let in", value: `${admitted} of ${again}, ${((100 * admitted) / again).toFixed(0)}%`, goal: "≥ 90%", reached: admitted / again >= 0.9 },
      { what: "memory", value: `${(after / 1e6).toFixed(0)} MB, ${growth >= 0 ? "+" : ""}${(100 * growth).toFixed(1)}%`, goal: "≤ +5%", reached: growth <= 0.05 },
      { what: "requests that ended otherwise", value: String(failed), goal: "0", reached: failed === 0 },
    ];
  }

  /** Half an hour of everything, with clients that leave and requests that no good client sends. */
  async mixed(): Promise<Figure[]> {
    const server = await own("q8_0", ["--kv-cache-bytes", String(640 << 20)]);
    const minutes = this.#quick ? 0.2 : 30;
    const resident: number[] = [];
    const rounds = Math.ceil(minutes / 3);
    let [good, hostile, badOnes, failed, leaves] = [0, 0, 0, 0, 0];
    for (let round = 0; round < rounds; round++) {
      const part = await this.#client.ask<{ good: number; hostile: number; badOnes: number; failed: number; leaves: number }>(
        "rush",
        { url: server.url, model: MODEL, clients: 24, seconds: (60 * minutes) / rounds, promptTokens: 48, tokens: 48, vocabulary: this.#vocabulary, share: 0.05 },
        900,
      );
      good += part.good;
      hostile += part.hostile;
      badOnes += part.badOnes;
      failed += part.failed;
      leaves += part.leaves;
      resident.push(read(await metrics(server), RESIDENT));
    }
    const text = await metrics(server);
    const running = read(text, /^candlewick_requests_running\{model="gpt2"\} (\S+)/m);
    const used = read(text, /^candlewick_kv_cache_usage_ratio\{model="gpt2"\} (\S+)/m);
    const alive = (await fetch(`${server.url}/livez`)).status === 200;
    await ended(server);
    // Megabytes an hour, after what the first rounds fill.
    const settled = resident.slice(Math.floor(rounds / 3));
    const slope = settled.length > 1 ? ((settled.at(-1)! - settled[0]!) / 1e6 / (((settled.length - 1) * minutes) / rounds)) * 60 : NaN;
    return [
      { what: `${minutes} minutes: ${good} answers, ${leaves} clients that left, ${hostile} hostile requests`, value: `${failed} ended without an answer or an event, ${badOnes} hostile ones without a refusal`, goal: "0, 0", reached: failed === 0 && badOnes === 0 },
      { what: "at the end", value: `${running} run, ${(100 * used).toFixed(1)}% of the blocks in use, ${alive ? "alive" : "NOT ALIVE"}`, goal: "0, 0%, alive", reached: running === 0 && used === 0 && alive },
      { what: "memory", value: `${(resident[0]! / 1e6).toFixed(0)} → ${(resident.at(-1)! / 1e6).toFixed(0)} MB, ${slope.toFixed(1)} MB an hour after the first third`, goal: "about 0" },
    ];
  }
}

const PARTS = ["streams", "prefixes", "arriving", "rate", "overload", "mixed"] as const;
const JSON_FILE = join(root, "docs", "benchmarks", "serve.json");
const PAGE = join(root, "docs", "benchmarks", "serve.md");

/** `given`: parts and `--quick`. A part that was measured takes the place of what the report had of it. */
export async function benchServe(given: readonly string[], quick: boolean): Promise<void> {
  const unknown = given.find((part) => !(PARTS as readonly string[]).includes(part));
  if (unknown !== undefined) throw new Error(`serve has no part ${unknown}: ${PARTS.join(", ")}`);
  const parts = given.length > 0 ? PARTS.filter((part) => given.includes(part)) : PARTS;
  const report: ServeReport = {
    ...(existsSync(JSON_FILE) ? (JSON.parse(readFileSync(JSON_FILE, "utf8")) as ServeReport) : { seconds: {}, figures: {} }),
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]!.model,
    node: process.version,
  };
  const bench = new Bench(quick);
  try {
    for (const part of parts) {
      console.error(`serve ${part} …`);
      const began = performance.now();
      const figures = await bench[part]();
      report.figures[part] = figures;
      report.seconds[part] = Math.round((performance.now() - began) / 1_000);
      for (const line of table(figures)) console.log(line);
      // After each, for a run that does not come to its end.
      if (!quick) write(report);
    }
  } finally {
    bench.end();
  }
}

const table = (figures: readonly Figure[]): string[] => [
  "| | | goal | |",
  "|---|---|---|---|",
  ...figures.map(({ what, value, goal, reached }) => `| ${what} | ${value} | ${goal ?? ""} | ${reached === undefined ? "" : reached ? "reached" : "**not reached**"} |`),
];

const TITLES: Record<(typeof PARTS)[number], string> = {
  streams: "Streams",
  prefixes: "Beginnings in common",
  arriving: "Long prompts beside streams",
  rate: "At 70% of capacity",
  overload: "Ten times too much",
  mixed: "Half an hour of everything",
};

function write(report: ServeReport): void {
  writeFileSync(JSON_FILE, `${JSON.stringify(report, null, 1)}\n`);
  const lines = [
    "# The server under load",
    "",
    "Written by `npm run bench -- serve` (`serve streams` and so on for a part), from `serve.json`. GPT-2 124M of random",
    `weights in q8_0, ${THREADS} threads, on ${report.cpu} with Node ${report.node.slice(1)}, ${report.date}. Clients are in a process of`,
    "their own on the same two cores, and cost what they cost. Greedy text, in which tokens may be guessed.",
    "",
  ];
  for (const part of PARTS) {
    const figures = report.figures[part];
    if (figures) lines.push(`## ${TITLES[part]}`, "", ...table(figures), "");
  }
  writeFileSync(PAGE, `${lines.join("\n").trimEnd()}\n`);
}
