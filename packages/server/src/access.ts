/** Who asks: API keys, what each may ask for in a minute, and what requests of one key share. */
import { createHash, timingSafeEqual } from "node:crypto";
import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import { ApiError, busy } from "./errors.js";

/** A key that opens the server. */
export interface ApiKey {
  /** For logs; also whose turns and prefixes its requests share. */
  readonly name: string;
  /** The key itself, or its SHA-256 in hexadecimal digits. */
  readonly key?: string;
  readonly sha256?: string;
  /** Default: no limit. */
  readonly requestsPerMinute?: number;
  /** Tokens of prompts and of what they may generate. Default: no limit. */
  readonly tokensPerMinute?: number;
}

/** The one who asks, as far as the server knows. */
export interface Caller {
  /** The key's name; absent where no keys are asked for. */
  readonly name?: string;
  /** Whose prefixes of prompts are shared. */
  readonly scope?: string;
  /** Counts tokens against the key's limit. */
  spend(tokens: number): Promise<void>;
}

interface Known {
  readonly name: string;
  readonly digest: Buffer;
  readonly requests?: RateLimiterMemory;
  readonly tokens?: RateLimiterMemory;
}

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();
const perMinute = (points: number | undefined, keyPrefix: string) =>
  points === undefined ? undefined : new RateLimiterMemory({ points, duration: 60, keyPrefix });

export class Access {
  readonly #keys: readonly Known[];
  readonly #sharePrefixes: boolean;

  constructor(keys: readonly ApiKey[], sharePrefixes: boolean) {
    this.#sharePrefixes = sharePrefixes;
    const empty = keys.find(({ key }) => key === "");
    if (empty) throw new TypeError(`The key ${empty.name} is empty`);
    this.#keys = keys.map(({ name, key, sha256: hash, requestsPerMinute, tokensPerMinute }) => {
      if ((key === undefined) === (hash === undefined)) throw new TypeError(`The key ${name} needs either "key" or "sha256"`);
      return {
        name,
        digest: key === undefined ? Buffer.from(hash!, "hex") : sha256(key),
        requests: perMinute(requestsPerMinute, "requests"),
        tokens: perMinute(tokensPerMinute, "tokens"),
      };
    });
    if (new Set(keys.map(({ name }) => name)).size < keys.length) throw new TypeError("Two keys have one name");
    const odd = this.#keys.find(({ digest }) => digest.length !== 32);
    if (odd) throw new TypeError(`The key ${odd.name}: "sha256" must be 64 hexadecimal digits`);
  }

  /** @throws {ApiError} 401 without a key that is known. */
  caller(headers: Headers): Caller {
    if (this.#keys.length === 0) return { spend: async () => {} };
    const known = this.#find(keyOf(headers));
    if (!known) {
      // A browser asks its user, who gives the key as the password. Beside another scheme it would not.
      throw new ApiError(401, "A valid API key is needed: authorization: Bearer KEY.", {
        code: "invalid_api_key",
        headers: { "www-authenticate": 'Basic realm="Candlewick: the key is the password", charset="UTF-8"' },
      });
    }
    const { name, tokens } = known;
    return {
      name,
      scope: this.#sharePrefixes ? undefined : name,
      spend: (count) => consume(tokens, name, count, "tokens"),
    };
  }

  /** Counts a request. @throws {ApiError} 429 beyond the key's limit. */
  async count({ name }: Caller): Promise<void> {
    if (name === undefined) return;
    await consume(this.#keys.find((known) => known.name === name)!.requests, name, 1, "requests");
  }

  /** Compares with every key, in a time that tells nothing of which one it was like. */
  #find(key: string | undefined): Known | undefined {
    if (key === undefined) return undefined;
    const digest = sha256(key);
    let found: Known | undefined;
    for (const known of this.#keys) if (timingSafeEqual(known.digest, digest)) found = known;
    return found;
  }
}

function keyOf(headers: Headers): string | undefined {
  const header = headers.get("authorization");
  const [, scheme, value] = /^(Bearer|Basic) +(\S+) *$/i.exec(header ?? "") ?? [];
  if (!scheme || !value) return undefined;
  if (scheme.toLowerCase() === "bearer") return value;
  const decoded = Buffer.from(value, "base64").toString();
  return decoded.slice(decoded.indexOf(":") + 1);
}

async function consume(limiter: RateLimiterMemory | undefined, name: string, points: number, what: string): Promise<void> {
  if (!limiter) return;
  if (points > limiter.points) {
    throw new ApiError(400, `The key may ask for ${limiter.points} ${what} a minute, and this needs ${points}.`, { code: "rate_limit_too_small" });
  }
  try {
    await limiter.consume(name, points);
  } catch (error) {
    if (!(error instanceof RateLimiterRes)) throw error;
    // What is refused is not used up.
    await limiter.reward(name, points);
    throw busy(`The key's limit of ${limiter.points} ${what} a minute is reached.`, error.msBeforeNext, `${what}_limit_exceeded`);
  }
}
