/**
 * The server's settings: one schema for the file, the flags and the environment. A flag counts before the environment,
 * and that before the file.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import * as v from "valibot";
import { DEFAULTS } from "../core.js";

const positive = v.pipe(v.number(), v.integer(), v.minValue(1));
const seconds = v.pipe(v.number(), v.minValue(0), v.maxValue(86_400));
const name = v.pipe(v.string(), v.regex(/^[\w.@:+-][\w.@:+/-]{0,127}$/, "must be 1 to 128 letters, digits and . _ - @ : + /"));

const loading = {
  dtype: v.optional(v.picklist(["f32", "f16", "bf16", "int8", "q8_0", "q4_0"])),
  device: v.optional(v.string()),
  threads: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1_024))),
} as const;

const modelSchema = v.strictObject({
  path: v.pipe(v.string(), v.minLength(1)),
  ...loading,
  adapters: v.optional(v.record(name, v.string())),
  kvCacheBytes: v.optional(positive),
  maxQueuedTokens: v.optional(positive),
  maxQueuedRequests: v.optional(positive),
  maxStepMs: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(60_000))),
});
export type ModelConfig = v.InferOutput<typeof modelSchema>;

const keySchema = v.pipe(
  v.strictObject({
    name,
    key: v.optional(v.pipe(v.string(), v.minLength(16, "must have at least 16 characters"))),
    sha256: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/i, "must be 64 hexadecimal digits"))),
    requestsPerMinute: v.optional(positive),
    tokensPerMinute: v.optional(positive),
  }),
  v.check(({ key, sha256 }) => (key === undefined) !== (sha256 === undefined), 'must have either "key" or "sha256"'),
);

/** Settings of one value, which flags and the environment may give; the description is that of `--help`. */
const scalars = {
  host: v.pipe(v.optional(v.string(), "127.0.0.1"), v.description("address to listen on; 0.0.0.0 for all")),
  port: v.pipe(v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535)), 8_000), v.description("port; 0 for any that is free")),
  dtype: v.pipe(loading.dtype, v.description("how the weights of all models are held")),
  device: v.pipe(loading.device, v.description("auto, cpu, cuda or cuda:1")),
  threads: v.pipe(loading.threads, v.description("threads of each model")),
  kvCacheBytes: v.pipe(v.optional(positive), v.description("bytes for the keys and values of each GPT-2; kept prefixes fill them")),
  drain: v.pipe(v.optional(seconds, 30), v.description("seconds that running requests have after SIGTERM")),
  maxWait: v.pipe(v.optional(v.pipe(seconds, v.minValue(0.1)), DEFAULTS.maxWaitMs / 1_000), v.description("seconds of work that may wait for a model; beyond it requests get 429")),
  keepAlive: v.pipe(v.optional(seconds, DEFAULTS.keepAliveMs / 1_000), v.description("seconds of silence before a stream's keep-alive comment; 0 for none")),
  stall: v.pipe(v.optional(seconds, DEFAULTS.stallMs / 1_000), v.description("seconds after which a client that reads nothing is cut off; 0 for never")),
  maxBodyBytes: v.pipe(v.optional(v.pipe(positive, v.maxValue(256 << 20)), DEFAULTS.maxBodyBytes), v.description("bytes of a request's body")),
  maxConnections: v.pipe(v.optional(positive, 4_096), v.description("connections at once")),
  sharePrefixes: v.pipe(v.optional(v.boolean(), false), v.description("share prefixes of prompts between keys, whose owners can then time each other's")),
  allowTokenIds: v.pipe(v.optional(v.boolean(), false), v.description("take token ids for embeddings")),
  page: v.pipe(v.optional(v.boolean(), true), v.description("the page at /")),
  logLevel: v.pipe(v.optional(v.picklist(["silent", "error", "warn", "info"]), "info"), v.description("what is logged, as JSON on standard error")),
} as const;

export const configSchema = v.strictObject({
  ...scalars,
  models: v.pipe(
    v.record(name, v.union([v.pipe(v.string(), v.minLength(1)), modelSchema])),
    v.check((models) => Object.keys(models).length > 0, "must name at least one model"),
    v.check((models) => {
      const names = Object.entries(models).flatMap(([name, model]) => [name, ...(typeof model === "string" ? [] : Object.keys(model.adapters ?? {}))]);
      return new Set(names).size === names.length;
    }, "must not have two of one name; adapters are models by their names"),
  ),
  keys: v.optional(v.array(keySchema), []),
  allowedHosts: v.optional(v.array(v.string())),
});
export type Config = v.InferOutput<typeof configSchema>;

export interface Setting {
  readonly name: keyof typeof scalars;
  /** `--max-wait`. */
  readonly flag: string;
  /** `CANDLEWICK_SERVER_MAX_WAIT`. */
  readonly variable: string;
  readonly description: string;
  readonly kind: "string" | "number" | "boolean";
  readonly standard: unknown;
}

const words = (camel: string): string[] => camel.split(/(?=[A-Z])/).map((word) => word.toLowerCase());

/** What flags and the environment may give. */
export const settings: readonly Setting[] = Object.entries(scalars).map(([name, schema]) => {
  const standard = v.getDefault(schema as v.OptionalSchema<v.GenericSchema, unknown>) as unknown;
  const inner = schema.wrapped;
  return {
    name: name as keyof typeof scalars,
    flag: `--${words(name).join("-")}`,
    variable: `CANDLEWICK_SERVER_${words(name).join("_").toUpperCase()}`,
    description: v.getDescription(schema)!,
    kind: inner.type === "number" ? "number" : inner.type === "boolean" ? "boolean" : "string",
    standard,
  };
});

/** What is wrong with the settings; `where` names the file, flag or variable. */
export class ConfigError extends Error {}

/** A value as text, from a flag or the environment. */
function fromText(text: string, { kind }: Setting, where: string): unknown {
  if (kind === "string") return text;
  if (kind === "boolean") {
    if (["1", "true", "yes", "on"].includes(text)) return true;
    if (["0", "false", "no", "off"].includes(text)) return false;
    throw new ConfigError(`${where}: must be true or false, not ${JSON.stringify(text)}`);
  }
  if (text.trim() === "" || !Number.isFinite(Number(text))) throw new ConfigError(`${where}: must be a number, not ${JSON.stringify(text)}`);
  return Number(text);
}

export interface Sources {
  readonly file?: string;
  /** `name=path`. */
  readonly models?: readonly string[];
  readonly flags: Readonly<Record<string, string | boolean | undefined>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** @throws {ConfigError} */
export function readConfig({ file, models = [], flags, environment }: Sources): Config {
  const config: Record<string, unknown> = file === undefined ? {} : readFile(file);
  for (const setting of settings) {
    const { name, flag, variable } = setting;
    const text = environment[variable];
    if (text !== undefined) config[name] = fromText(text, setting, variable);
    const given = flags[name];
    if (given !== undefined) config[name] = typeof given === "string" ? fromText(given, setting, flag) : given;
  }
  const key = environment["CANDLEWICK_SERVER_API_KEY"];
  if (key !== undefined) config["keys"] = [...((config["keys"] as unknown[] | undefined) ?? []), { name: "default", key }];
  if (models.length > 0) config["models"] = { ...(config["models"] as object | undefined), ...Object.fromEntries(models.map(modelFlag)) };
  config["models"] ??= {};
  const result = v.safeParse(configSchema, config);
  if (result.success) return result.output;
  const lines = result.issues.map((issue) => `${v.getDotPath(issue) ?? "the settings"}: ${issue.message}`);
  if (Object.keys(config["models"] as object).length === 0) lines.unshift("no model is named: --model name=path");
  throw new ConfigError(lines.join("\n"));
}

function modelFlag(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1 || at === text.length - 1) throw new ConfigError(`--model: must be name=path, not ${JSON.stringify(text)}`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function readFile(path: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new ConfigError(`${path}: ${(error as Error).message}`);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new ConfigError(`${path}: must be a JSON object`);
  return json as Record<string, unknown>;
}

/** Each model with what holds for all of them. */
export function modelConfigs({ models, dtype, device, threads }: Config): Record<string, ModelConfig> {
  const common = Object.fromEntries(Object.entries({ dtype, device, threads }).filter(([, value]) => value !== undefined));
  const each = Object.entries(models).map(([name, model]) => [name, { ...common, ...(typeof model === "string" ? { path: model } : model) }] as const);
  return Object.fromEntries(each);
}

/** The settings as they are in effect; of keys their digests. */
export function shown(config: Config): object {
  const keys = config.keys.map(({ key, ...rest }) => ({ ...rest, sha256: rest.sha256 ?? createHash("sha256").update(key!).digest("hex") }));
  return { ...config, models: modelConfigs(config), keys };
}
