// `npm run recipe -- <name> --data`: fetches a recipe's sources and prepares its data, in the cache.
// `--train`: trains its model there (again: goes on where it was). `--evaluate`: measures it on the held-out data.
import { readdirSync, readFileSync, writeFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { CandlewickError, evaluate } from "../index.js";
import { dataFile, dataFolder, prepare, type Prepared, type Recipe } from "./lib/data.js";
import { train, trainedFolder, type Trained } from "./lib/train.js";

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

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { data: { type: "boolean" }, train: { type: "boolean" }, evaluate: { type: "boolean" } },
  });
  const [name] = positionals;
  if (!(values.data || values.train || values.evaluate) || name === undefined || !recipes.includes(name)) {
    console.error(`npm run recipe -- <name> --data|--train|--evaluate; the recipes: ${recipes.join(", ")}`);
    process.exitCode = 2;
    return;
  }
  const abort = new AbortController();
  process.once("SIGINT", () => abort.abort());
  if (values.data) await data(name);
  if (!values.train && !values.evaluate) return;
  const { trained } = (await import(`./${name}/train.js`)) as { trained: Trained };
  if (values.train) await train(name, trained, abort.signal);
  if (values.evaluate) {
    const folder = trainedFolder(name);
    const { samples: _, ...metrics } = await evaluate({
      model: folder,
      task: trained.training.task,
      data: dataFile(name, "heldout"),
      report: join(folder, "report"),
      trainingLog: join(folder, "training-log.jsonl"),
      signal: abort.signal,
    });
    console.log(JSON.stringify(metrics, undefined, 2));
  }
}

if (require.main === module) {
  main().catch((error: unknown) => {
    const aborted = error instanceof CandlewickError && error.code === "ABORTED";
    console.error(aborted ? "interrupted; the same command goes on where it was" : error);
    process.exitCode = aborted ? 130 : 1;
  });
}
