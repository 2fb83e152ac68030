/**
 * A process that trains, to be killed: `trainee.ts <options as JSON>`. Says each event's type on a line, or the code of
 * its error, then ends.
 */
import { CandlewickError, finetune, type FinetuneOptions } from "../../index.js";

async function main() {
  const run = finetune(JSON.parse(process.argv[2]!) as FinetuneOptions);
  for await (const event of run) process.stdout.write(`${event.type} ${event.step}\n`);
}

main().catch((error) => {
  process.exitCode = 1;
  if (error instanceof CandlewickError) process.stdout.write(`error ${error.code}\n`);
  else console.error(error);
});
