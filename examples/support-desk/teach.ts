/**
 * Teaches the dialogue model to answer as the desk does, from the answers that were sent:
 *
 *   npm run desk:teach                       # a few minutes on two cores
 *   npm run desk -- --models support-desk-reply/models.json
 *
 * It learns some dozens of answers by heart, and to choose among them: more questions for each answer make it choose
 * better.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { finetune, pipeline } from "candlewick";
import { type Draft, openStore } from "./store.js";

const USAGE = `npm run desk:teach -- [options]

  --database FILE   whose answers; default support-desk.sqlite, and the first answers where it is not there
  --model NAME      what is taught: a folder or a hub id; default the dialogue model that ships
  --output FOLDER   default support-desk-reply
  --epochs N        passes over the answers; default 40

Ctrl-C leaves a checkpoint, and the same command goes on from it.`;

/** A conversation for each answer. */
async function conversations(database: string): Promise<{ messages: string[] }[]> {
  const pairs = existsSync(database) ? await answersOf(database) : (JSON.parse(readFileSync(join(__dirname, "answers.json"), "utf8")) as Draft[]);
  return pairs.map(({ question, answer }) => ({ messages: [question, answer] }));
}

async function answersOf(database: string): Promise<Pick<Draft, "question" | "answer">[]> {
  const store = openStore(database);
  try {
    const all = [...(await store.of("en")), ...(await store.of("zh"))].map(({ id }) => id);
    const found = [];
    // SQLite takes so many numbers at once.
    for (let from = 0; from < all.length; from += 500) found.push(...(await store.get(all.slice(from, from + 500))));
    return found;
  } finally {
    await store.close();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      database: { type: "string", default: "support-desk.sqlite" },
      model: { type: "string" },
      output: { type: "string", default: "support-desk-reply" },
      epochs: { type: "string", default: "40" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const output = resolve(values.output);
  const models = join(output, "models.json");
  const shipped = await pipeline("dialogue", values.model);
  const { source } = shipped.model;
  await shipped.close();

  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort());
  const run = finetune({
    model: source,
    task: "dialogue",
    train: await conversations(values.database),
    output,
    // What was interrupted goes on; what had ended begins anew, since there may be new answers.
    resume: existsSync(output) && !existsSync(models),
    epochs: Number(values.epochs),
    batchSize: 8,
    learningRate: 5e-4,
    lrSchedulerType: "cosine",
    warmupRatio: 0.05,
    // Answers are longer than the small talk that it comes from, and less varied.
    config: { task_specific_params: { dialogue: { do_sample: true, temperature: 0.3, top_k: 20, max_new_tokens: 160 } } },
    seed: 1,
    signal: stop.signal,
  });
  for await (const event of run) {
    if (event.type === "step" && event.step % 10 === 0) console.log(`step ${event.step} of ${event.totalSteps}, loss ${event.loss.toFixed(2)}`);
  }
  await run.result;
  writeFileSync(models, `${JSON.stringify({ reply: output }, null, 1)}\n`);
  console.log(`It has learnt. npm run desk -- --models ${models}`);
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
