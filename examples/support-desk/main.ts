/** `npm run desk`: README.md has the options. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { ModelNames } from "./models.js";
import { startServer } from "./server.js";

const USAGE = `npm run desk -- [options]

  --port N          default 3000
  --host NAME       default 127.0.0.1: this machine alone
  --database FILE   default support-desk.sqlite; ":memory:" keeps nothing
  --models FILE     other models: JSON with some of the names of models.ts, each a folder or a hub id`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      port: { type: "string", default: "3000" },
      host: { type: "string", default: "127.0.0.1" },
      database: { type: "string", default: "support-desk.sqlite" },
      models: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const { host, database, help } = values;
  if (help) return console.log(USAGE);
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new Error(`--port: not a port: ${values.port}`);
  const models = values.models === undefined ? undefined : (JSON.parse(readFileSync(values.models, "utf8")) as Partial<ModelNames>);
  const server = await startServer({ port, host, database, models });
  console.log(`The support desk is open: ${server.url}`);

  // The first signal ends it in order, the second at once.
  let closing = false;
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    process.on(signal, () => {
      if (closing) process.exit(code);
      closing = true;
      console.log("Closing. The same once more ends it at once.");
      server.close().then(() => process.exit(0), fail);
    });
  }
}

function fail(error: unknown): void {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

main().catch(fail);
