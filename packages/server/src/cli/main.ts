#!/usr/bin/env node
// `candlewick-server`: serves models until it is told to end.
import { Command, CommanderError, Option } from "commander";
import type { BERT, GPT2 } from "candlewick";
import { destination, pino } from "pino";
import { createHandler } from "../handler.js";
import { listen } from "../listen.js";
import { type Config, ConfigError, modelConfigs, readConfig, settings, shown } from "./config.js";

function program(): Command {
  const { version } = require("candlewick-server/package.json") as { version: string };
  const command = new Command("candlewick-server")
    .description("Serves GPT-2 and BERT under OpenAI's API.\n\nEach option may also stand in the file of --config (as maxWait, …) or in the environment.")
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this")
    .showHelpAfterError("--help lists the options.")
    .showSuggestionAfterError()
    .exitOverride()
    .option("--model <name=path>", "a model: a folder, a .gguf file, a package of weights or a hub id; may be repeated", (one, before: string[] = []) => [...before, one])
    .option("--config <file>", "settings in JSON; keys and each model's own options stand there alone")
    .option("--check", "print the settings in effect, and end")
    .option("--json", "print one line of JSON, {url}, once all models are loaded");
  for (const { flag, description, kind, standard, variable } of settings) {
    const stated = kind === "boolean" && standard === true ? `--no-${flag.slice(2)}` : kind === "boolean" ? flag : `${flag} <value>`;
    const text = kind === "boolean" && standard === true ? `without ${description}` : description;
    command.addOption(new Option(stated, `${text}${standard === undefined || kind === "boolean" ? "" : ` (default ${String(standard)})`} [${variable}]`));
  }
  return command.addHelpText("after", "\nA key for all requests is read from CANDLEWICK_SERVER_API_KEY.");
}

async function main(): Promise<void> {
  const command = program().parse();
  const { model, config: file, check, json, ...flags } = command.opts();
  // Commander sets a `--no-…` option to true where it is not given.
  for (const { name } of settings) if (command.getOptionValueSource(name) === "default") delete flags[name];
  const config = readConfig({ file, models: model, flags, environment: process.env });
  if (check) return console.log(JSON.stringify(shown(config), null, 2));
  await serve(config, json === true);
}

async function serve(config: Config, json: boolean): Promise<void> {
  const log = pino({ level: config.logLevel, base: undefined, timestamp: pino.stdTimeFunctions.isoTime }, destination({ dest: 2, sync: false }));
  // Here, so that --help and --check work where the addon cannot be loaded.
  const { loadModel } = await import("./load.js");
  const loading = new AbortController();
  const models = Object.fromEntries(Object.entries(modelConfigs(config)).map(([name, options]) => [name, loadModel(options, config.kvCacheBytes, loading.signal)]));
  const handler = createHandler({
    models,
    keys: config.keys,
    sharePrefixes: config.sharePrefixes,
    maxWaitMs: config.maxWait * 1_000,
    keepAliveMs: config.keepAlive * 1_000,
    stallMs: config.stall * 1_000,
    maxBodyBytes: config.maxBodyBytes,
    allowTokenIds: config.allowTokenIds,
    page: config.page,
    log,
  });
  const server = await listen(handler, { port: config.port, host: config.host, allowedHosts: config.allowedHosts, maxConnections: config.maxConnections });

  let ending = false;
  const end = async (code: number) => {
    loading.abort();
    await server.close(config.drain * 1_000);
    const loaded = await Promise.allSettled(Object.values(models));
    await Promise.all(loaded.map((one) => (one.status === "fulfilled" ? one.value.close() : undefined)));
    log.flush();
    process.exit(code);
  };
  const told = () => {
    // Whoever asks twice does not want to wait.
    if (ending) process.exit(0);
    ending = true;
    if (handler.working > 0) console.error(`Ending when ${handler.working} requests have ended, after ${config.drain} s at most. The same once more ends at once.`);
    void end(0);
  };
  process.on("SIGTERM", told);
  process.on("SIGINT", told);

  if (!json) console.error(`Loading ${Object.keys(models).join(", ")} …`);
  try {
    for (const [name, model] of Object.entries(models)) announce(name, await model, json);
  } catch (error) {
    if (ending) return;
    console.error(explained(error));
    ending = true;
    return void end(1);
  }
  console.log(json ? JSON.stringify({ url: server.url }) : `Serving at ${server.url}`);
}

function announce(name: string, { info }: GPT2 | BERT, json: boolean): void {
  if (json) return;
  const { parameters, dtype, device, threads } = info;
  console.error(`  ${name}: ${info.modelType}, ${(parameters / 1e6).toFixed(1)} million parameters, ${dtype} on ${device}, ${threads} threads`);
}

function explained(error: unknown): string {
  if (error instanceof ConfigError) return error.message;
  const { code, message } = error as { code?: string; message?: string };
  return code === undefined ? String(error) : `${code}: ${message}`;
}

main().catch((error: unknown) => {
  // Commander has printed its own; help and version are no failures.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else {
    console.error(explained(error));
    process.exitCode = error instanceof ConfigError ? 2 : 1;
  }
});
