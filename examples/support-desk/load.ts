/**
 * How many messages the desk reads a second, and how long each part takes, with more and more operators at once:
 *
 *   npm run desk:load                       # writes docs/benchmarks/support-desk.{json,md,html}
 *   npm run desk:load -- --seconds 1 --clients 1,2 --output FOLDER
 *
 * Each client does what the page does, again and again without a pause: it sends a message, once to be analysed and
 * once for a reply, and waits for both. Times are the client's, from sending to the event; server and clients share the
 * machine.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { quantile } from "../../benchmark/stats.js";
import { html, type Lag, type Level, type LoadReport, markdown, TIMED, type Timed } from "./load-report.js";
import type { Answered, Asked } from "./load-server.js";
import { SHIPPED } from "./models.js";

/** Of several lengths and subjects; one in four is Chinese. */
const MESSAGES = [
  "Where is my parcel? It should have been here last week.",
  "The reading app cannot open the file that I bought yesterday. I tried to download it again, and it says that the file is damaged.",
  "Thank you, the cookbook is wonderful!",
  "收到的书封面破了，太让人失望了。",
  "I was charged twice for the same order. Please return the money, I am very angry about this.",
  "Which book should a beginner read to learn programming?",
  "My password is not accepted, and no email comes when I ask for a new one.",
  "发货需要多长时间？我想在周末之前收到。",
  "The history of science that you sent has forty blank pages. This is the second time! I have been a customer for ten years.",
  "Do you have a translation of the poems, and could you wrap it as a present for my sister's wedding?",
  "I would like to cancel my order.",
  "你们的服务太好了，书很好看，谢谢！",
];

type Sample = Partial<Record<Timed, number>> & { tokens: number };

/** One message, as the page sends it. */
async function converse(url: string, message: string): Promise<Sample> {
  const started = performance.now();
  const sample: Sample = { tokens: 0 };
  const since = (what: Timed) => (sample[what] = performance.now() - started);
  const analysis = events(`${url}/api/analysis`, { message }, ({ event }) => {
    if (event === "failed") throw new Error("a stage failed");
    if ((TIMED as readonly string[]).includes(event)) since(event as Timed);
  });
  const reply = events(`${url}/api/reply`, { message, seed: 1 }, ({ data }) => {
    if (data.startsWith(`{"error"`)) throw new Error(data);
    if (sample.tokens++ === 0) since("first token");
  }).then(() => since("reply"));
  await Promise.all([analysis, reply]);
  since("message");
  return sample;
}

async function events(url: string, body: object, take: (event: { event: string; data: string }) => void): Promise<void> {
  const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  let rest = "";
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream() as never) as unknown as AsyncIterable<string>) {
    const parts = (rest + chunk).split("\n\n");
    rest = parts.pop()!;
    for (const part of parts) take({ event: /^event: (.*)$/m.exec(part)?.[1] ?? "message", data: /^data: (.*)$/m.exec(part)?.[1] ?? "" });
  }
}

async function measure(url: string, clients: number, seconds: number): Promise<Omit<Level, "lag" | "bystander">> {
  const samples: Sample[] = [];
  const started = performance.now();
  const end = started + 1000 * seconds;
  await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      for (let turn = client; performance.now() < end; turn++) samples.push(await converse(url, MESSAGES[turn % MESSAGES.length]!));
    }),
  );
  const took = (performance.now() - started) / 1000;
  const digits = (value: number) => Number(value.toPrecision(4));
  const rate = (count: number) => digits(count / took);
  const times = TIMED.map((what) => {
    const values = samples.map((sample) => sample[what]).filter((time) => time !== undefined);
    return [what, { p50: digits(quantile(values, 0.5)), p99: digits(quantile(values, 0.99)) }] as const;
  });
  return {
    clients,
    messagesPerSecond: rate(samples.length),
    requestsPerSecond: rate(2 * samples.length),
    tokensPerSecond: rate(samples.reduce((sum, { tokens }) => sum + tokens, 0)),
    times: Object.fromEntries(times) as Level["times"],
  };
}

const start = (): ChildProcess => fork(join(__dirname, "load-server.ts"), { execArgv: ["--import", "tsx"] });

async function ask<Answer extends Answered>(child: ChildProcess, asked: Asked): Promise<Answer> {
  child.send(asked);
  const [answered] = (await once(child, "message")) as [Answered];
  if (typeof answered === "object" && "error" in answered) throw new Error(answered.error);
  return answered as Answer;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      clients: { type: "string", default: "1,2,4,8,16,32,64" },
      seconds: { type: "string", default: "10" },
      models: { type: "string" },
      output: { type: "string", default: join(__dirname, "../../docs/benchmarks") },
    },
  });
  const seconds = Number(values.seconds);
  const models = values.models === undefined ? {} : (JSON.parse(readFileSync(values.models, "utf8")) as Record<string, string>);

  const load = loadavg()[0]!;
  const [server, bystander] = [start(), start()];
  try {
    const { url } = await ask<{ url: string }>(server, { models });
    // What is done once, the machine's caches and the compiler's, is not measured.
    await measure(url, 4, Math.min(3, seconds));
    const levels: Level[] = [];
    for (const clients of values.clients.split(",").map(Number)) {
      await Promise.all([ask(server, "reset"), ask(bystander, "reset")]);
      const level = await measure(url, clients, seconds);
      levels.push({ ...level, lag: await ask<Lag>(server, "lag"), bystander: await ask<Lag>(bystander, "lag") });
      console.error(`${clients} clients: ${level.messagesPerSecond} messages/s`);
    }
    const report: LoadReport = {
      machine: `${cpus()[0]?.model.trim() ?? process.arch}, ${cpus().length} cores`,
      node: process.version,
      date: new Date().toISOString().slice(0, 10),
      load: Number(load.toFixed(1)),
      seconds,
      // Folders of this machine are no use to others.
      models: Object.fromEntries(Object.keys(SHIPPED).map((use) => [use, use in models ? "another" : "the one that ships"])),
      levels,
    };
    mkdirSync(values.output, { recursive: true });
    for (const [extension, content] of [["json", `${JSON.stringify(report, null, 1)}\n`], ["md", markdown(report)], ["html", html(report)]] as const) {
      writeFileSync(join(values.output, `support-desk.${extension}`), content);
    }
    console.log(markdown(report));
    await ask(server, "close");
  } finally {
    for (const child of [server, bystander]) child.kill();
  }
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
