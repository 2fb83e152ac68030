/**
 * The kit's program, which run.sh starts: what the CUDA backend does on this machine's GPU, through the public API,
 * beside PyTorch. Each step has a time of its own, what fails in one does not stop the others, and report.json is
 * written after each. Without a GPU the steps run small models on the CPU.
 */
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { goalsTable, outcomes } from "./goals.js";
import { Kit } from "./kit.js";
import { benchmark, compiled } from "./speeds.js";
import { example, faults, invariance, parity, rustTests, smoke } from "./steps.js";

/** Name, seconds at most, what is left of the whole time to later ones, and the work; in the order of their worth. */
const steps: readonly [name: string, seconds: number, reserve: number, work: (kit: Kit) => Promise<void>][] = [
  ["smoke", 120, 0.5, smoke],
  ["parity", 100, 0.4, parity],
  ["benchmark", 270, 0.25, benchmark],
  ["invariance", 90, 0.1, invariance],
  ["faults", 75, 0, faults],
  ["more", 180, 0, more],
];

async function more(kit: Kit): Promise<void> {
  await rustTests(kit);
  await compiled(kit, "bf16");
  await example(kit);
  await compiled(kit, "f16");
}

const USAGE = `bash run.sh [--out DIR] [--minutes N] [--only STEP[,STEP]] [--cpu]

  --out DIR      for report.json, table.md and a log of each step; default cuda-report
  --minutes N    all steps together, default 8
  --only STEP    of ${steps.map(([name]) => name).join(", ")}; smoke, which makes the models, always runs
  --cpu          as where there is no GPU

The exit code is 1 if a step did not end, something is wrong, or a goal was missed on a GPU.
Environment: CANDLEWICK_PYTHON, the Python that has torch and transformers (default python3; empty: none).`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      out: { type: "string", default: "cuda-report" },
      minutes: { type: "string", default: "8" },
      only: { type: "string" },
      cpu: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) throw new Error(`--minutes: not a number of minutes: ${values.minutes}`);
  const only = values.only?.split(",");
  const unknown = only?.find((name) => !steps.some(([step]) => step === name));
  if (unknown !== undefined) throw new Error(`--only: there is no step ${unknown}\n\n${USAGE}`);

  const kit = new Kit(resolve(values.out), performance.now() + 60_000 * minutes, values.cpu ? "cpu" : undefined);
  const stop = () => {
    kit.finish();
    process.exit(1);
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  const { report } = kit;
  console.log(`${report.gpu?.name ?? report.cpu}, ${report.device}, Candlewick ${report.candlewick}, Node ${report.node}`);
  if (!kit.gpu) console.log("Without a GPU: small models run on the CPU, and no goal is measured.");
  for (const [name, seconds, reserve, work] of steps) {
    if (!only || only.includes(name) || name === "smoke") await kit.step(name, seconds, reserve, work);
  }
  kit.finish();

  const table = goalsTable(report);
  writeFileSync(join(kit.out, "table.md"), `${table}\n`);
  const unfinished = report.steps.filter(({ status }) => status !== "done");
  const wrong = report.checks.filter(({ passed }) => passed === false);
  const all = outcomes(report);
  const missed = all.filter(({ verdict }) => verdict === "**missed**").length;
  const reached = all.filter(({ verdict }) => verdict === "reached").length;
  console.log(`\n${table}\n`);
  for (const { name, status, reason } of unfinished) console.log(`${name}: ${status}: ${reason}`);
  for (const { what, dtype, detail } of wrong) console.log(`WRONG: ${what}${dtype ? ` ${dtype}` : ""}: ${detail}`);
  console.log(`${report.checks.length - wrong.length} checks hold, ${wrong.length} do not; ${reached} goals reached, ${missed} missed, ${all.length - reached - missed} not measured`);
  process.exitCode = unfinished.length > 0 || wrong.length > 0 || missed > 0 ? 1 : 0;
}

main()
  .catch((error: Error) => {
    console.error(error.message);
    process.exitCode = 1;
  })
  // Whatever a step has left to wait for.
  .finally(() => process.exit());
