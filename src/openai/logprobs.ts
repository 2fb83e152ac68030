/** Log-probabilities in the two shapes of OpenAI's API: of completions, and of chat. */
import type { TokenLogprob } from "../types.js";

/** A model's `Vocabulary`, as far as reports need it. */
export interface TokenBytes {
  bytes(id: number): Uint8Array;
}

/** A token with its report, generated or scored. */
export interface Reported {
  readonly id: number;
  readonly logprob?: number;
  readonly topLogprobs?: readonly TokenLogprob[];
}

/** Of `/v1/completions`: lists of one length. */
export interface CompletionLogprobs {
  tokens: string[];
  /** `null` for a first token, which nothing precedes. */
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  /** Where each token begins in prompt and completion, in code points. */
  text_offset: number[];
}

export interface ChatToken {
  token: string;
  logprob: number;
  bytes: number[];
}

/** Of `/v1/chat/completions`: an entry for each token. */
export interface ChatLogprob extends ChatToken {
  top_logprobs: ChatToken[];
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A token's text; of one that is no whole characters its bytes, so that two such tokens differ: `bytes:\xe6\x88`. */
export function tokenText(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
  }
}

const continues = (byte: number): boolean => (byte & 0xc0) === 0x80;

/**
 * Reports of a completion's tokens, in their order. `offset` is where the first one begins, in code points from the
 * prompt's beginning.
 */
export class CompletionReport {
  readonly #vocabulary: TokenBytes;
  /** As texts are decoded: bytes of no character are U+FFFD. */
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  /** Of the whole characters so far. */
  #offset: number;

  constructor(vocabulary: TokenBytes, offset: number) {
    this.#vocabulary = vocabulary;
    this.#offset = offset;
  }

  of(tokens: readonly Reported[]): CompletionLogprobs {
    const report: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
    for (const { id, logprob, topLogprobs } of tokens) {
      const bytes = this.#vocabulary.bytes(id);
      const text = tokenText(bytes);
      report.tokens.push(text);
      report.token_logprobs.push(logprob ?? null);
      report.top_logprobs.push(logprob === undefined ? null : this.#top(text, logprob, topLogprobs ?? []));
      // A token that goes on with a character begins where the character does; another one ends it, as U+FFFD.
      if (bytes.length > 0 && !continues(bytes[0]!)) this.#pass(this.#decoder.decode());
      report.text_offset.push(this.#offset);
      this.#pass(this.#decoder.decode(bytes, { stream: true }));
    }
    return report;
  }

  #pass(text: string): void {
    this.#offset += Array.from(text).length;
  }

  /** The likeliest tokens, and the one that came, which is not always among them. */
  #top(text: string, logprob: number, likeliest: readonly TokenLogprob[]): Record<string, number> {
    const pairs = likeliest.map((one): [string, number] => [tokenText(this.#vocabulary.bytes(one.id)), one.logprob]);
    // Pairs, for a token may be called `__proto__`.
    return Object.fromEntries(pairs.some(([other]) => other === text) ? pairs : [...pairs, [text, logprob]]);
  }
}

/** Reports of a reply's tokens. */
export function chatLogprobs(vocabulary: TokenBytes, tokens: readonly Reported[]): ChatLogprob[] {
  const token = (id: number, logprob: number): ChatToken => {
    const bytes = vocabulary.bytes(id);
    return { token: tokenText(bytes), logprob, bytes: Array.from(bytes) };
  };
  return tokens.map(({ id, logprob, topLogprobs = [] }) => ({
    ...token(id, logprob!),
    top_logprobs: topLogprobs.map((one) => token(one.id, one.logprob)),
  }));
}
