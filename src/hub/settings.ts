/**
 * The environment variables that `huggingface_hub` reads, with its names, precedence and defaults. Read at each call.
 */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { CandlewickError } from "../errors.js";

type Environment = Readonly<Record<string, string | undefined>>;

export interface HubSettings {
  /** Holds one `models--organisation--name` folder per model. */
  readonly cache: string;
  /** Without a slash at its end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** The variable that forbids the network, if one does. */
  readonly offline: string | undefined;
  /** Milliseconds to wait for the listing of a model that is cached. */
  readonly checkTimeout: number;
  /** Milliseconds without a byte after which a request has failed. */
  readonly stallTimeout: number;
  readonly symlinks: boolean;
}

export async function readSettings(environment: Environment = process.env): Promise<HubSettings> {
  const home = hubHome(environment);
  return {
    cache: hubCache(environment),
    endpoint: endpointOf(environment["HF_ENDPOINT"] || "https://huggingface.co"),
    token: await readToken(environment, home),
    offline: offlineVariable(environment),
    checkTimeout: seconds(environment["HF_HUB_ETAG_TIMEOUT"]),
    stallTimeout: seconds(environment["HF_HUB_DOWNLOAD_TIMEOUT"]),
    symlinks: !isTrue(environment["HF_HUB_DISABLE_SYMLINKS"]),
  };
}

/** Where the hub's own tools keep models. `HUGGINGFACE_HUB_CACHE` is the older name, which they still read. */
export function hubCache(environment: Environment = process.env): string {
  const named = environment["HF_HUB_CACHE"] || environment["HUGGINGFACE_HUB_CACHE"];
  return named ? expand(named, environment) : join(hubHome(environment), "hub");
}

function hubHome(environment: Environment): string {
  const caches = environment["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  return expand(environment["HF_HOME"] || join(caches, "huggingface"), environment);
}

function expand(path: string, environment: Environment): string {
  const named = path
    .replace(/^~(?=$|[/\\])/, () => homedir())
    .replaceAll(/\$(?:(\w+)|\{(\w+)\})/g, (whole, bare, braced) => environment[bare ?? braced] ?? whole);
  return resolve(named);
}

function endpointOf(text: string): string {
  if (/^https?:/i.test(text) && URL.canParse(text)) return new URL(text).href.replace(/\/+$/, "");
  throw new CandlewickError("OPTION_INVALID", `HF_ENDPOINT is ${JSON.stringify(text)}, which is not an http(s) address`);
}

async function readToken(environment: Environment, home: string): Promise<string | undefined> {
  if (isTrue(environment["HF_HUB_DISABLE_IMPLICIT_TOKEN"])) return undefined;
  const named = environment["HF_TOKEN"] || environment["HUGGING_FACE_HUB_TOKEN"];
  const file = environment["HF_TOKEN_PATH"] ? expand(environment["HF_TOKEN_PATH"], environment) : join(home, "token");
  const token = (named ?? (await readFile(file, "utf8").catch(() => ""))).trim();
  // fetch() would name the whole header, token included, in its error.
  if (!/^[\x21-\x7e]*$/.test(token)) {
    throw new CandlewickError("OPTION_INVALID", "The hub token (HF_TOKEN or the token file) has characters no token has");
  }
  return token || undefined;
}

/** As there, `HF_HUB_OFFLINE=0` wins over `TRANSFORMERS_OFFLINE=1`. */
function offlineVariable(environment: Environment): string | undefined {
  const name = environment["HF_HUB_OFFLINE"] ? "HF_HUB_OFFLINE" : "TRANSFORMERS_OFFLINE";
  return isTrue(environment[name]) ? name : undefined;
}

const isTrue = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? "");

const seconds = (value: string | undefined): number => {
  const number = Number(value || 10);
  return (Number.isFinite(number) && number > 0 ? number : 10) * 1000;
};
