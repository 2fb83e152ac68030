// `npm run recipe -- <name> --data`: fetches a recipe's sources and prepares its data, in the cache. `--train`: trains
// its model there (again: goes on where it was). `--ship`: puts that model into its package in models/. `--evaluate`:
// measures what is in the package on the held-out data, for its card; `--latency`: how long it takes, alone.
import { readdirSync, readFileSync, writeFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { CandlewickError } from "../index.js";
import { TRAINING_LOG } from "../src/evaluate/training-log.js";
import { temperature } from "./lib/calibrate.js";
import { drawCurve, measure, measureLatency } from "./lib/measure.js";
import { dataFile, dataFolder, prepare, type Prepared, type Recipe } from "./lib/data.js";
import { ship } from "./lib/ship.js";
import { fetched, train, trainedFolder, type Trained } from "./lib/train.js";

export const recipes = readdirSync(__dirname, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && entry.name !== "lib" && existsSync(join(__dirname, entry.name, "data.ts")))
  .map(({ name }) => name);

async function data(name: string): Promise<void> {
  const { recipe } = (await import(`./${name}/data.js`)) as { recipe: Recipe };
  const prepared = await prepare(name, recipe);
  const { files, rows, duplicates, shared } = prepared;
  const sizes = Object.entries(files).map(([split, file]) => `${split} ${file.rows}`);
  console.log(`${name}: ${rows} rows, ${duplicates} duplicates, ${shared} left out because another side has a text of theirs; ${sizes.join(", ")}`);
  console.log(dataFolder(name));
  const path = join(__dirname, name, "data.json");
  const text = `${JSON.stringify(prepared, undefined, 2)}\n`;
  if (!existsSync(path)) return writeFileSync(path, text);
  const before = JSON.parse(readFileSync(path, "utf8")) as Prepared;
  for (const split of Object.keys(files) as (keyof typeof files)[]) {
    if (before.files[split].sha256 === files[split].sha256) continue;
    console.log(`${split}.jsonl is not the one that recipes/${name}/data.json describes: figures of the two cannot be compared`);
    process.exitCode = 1;
  }
}

/** Of an adapter the adapter alone; of a classifier with its scores calibrated on the validation set. */
async function shipTrained(name: string, { ships, training, parameters }: Trained): Promise<void> {
  const folder = trainedFolder(name);
  const classifies = training.task === "sentiment-analysis" || training.task === "text-classification";
  const scale = classifies ? await temperature(folder, dataFile(name, "validation")) : 1;
  if (classifies) console.log(`temperature ${scale.toFixed(3)}`);
  await ship(training.lora ? join(folder, "adapter") : folder, ships, {
    temperature: scale,
    config({ task_specific_params }) {
      if (!parameters) return {};
      const tasks = task_specific_params as Record<string, object> | undefined;
      return { task_specific_params: { ...tasks, [training.task]: { ...tasks?.[training.task], ...parameters } } };
    },
  });
  await drawCurve(join(folder, TRAINING_LOG), ships);
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { data: { type: "boolean" }, train: { type: "boolean" }, ship: { type: "boolean" }, evaluate: { type: "boolean" }, latency: { type: "boolean" } },
  });
  const [name] = positionals;
  // Not trained here: what it has to do is to ship.
  if (name === "minilm" && values.ship) return ship(fetched(name), name);
  if (!Object.values(values).some(Boolean) || name === undefined || !recipes.includes(name)) {
    console.error(`npm run recipe -- <name> --data|--train|--ship|--evaluate|--latency; the recipes: ${recipes.join(", ")}`);
    process.exitCode = 2;
    return;
  }
  const abort = new AbortController();
  process.once("SIGINT", () => abort.abort());
  if (values.data) await data(name);
  if (!Object.entries(values).some(([step, wanted]) => wanted && step !== "data")) return;
  const { trained } = (await import(`./${name}/train.js`)) as { trained: Trained };
  if (values.train) await train(name, trained, abort.signal);
  if (values.ship) await shipTrained(name, trained);
  if (values.evaluate) await measure(name, trained, abort.signal);
  else if (values.latency) await measureLatency(name, trained, abort.signal);
}

if (require.main === module) {
  main().catch((error: unknown) => {
    const aborted = error instanceof CandlewickError && error.code === "ABORTED";
    console.error(aborted ? "interrupted; the same command goes on where it was" : error);
    process.exitCode = aborted ? 130 : 1;
  });
}
