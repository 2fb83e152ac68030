/**
 * What a generation takes and gives back. Ranges are those of `crates/engine/src/generation/options.rs`. A default that
 * a comment names holds where the model's files (`info.generationDefaults`) do not name another.
 */

import type { GPT2 } from "./gpt2.js";

/** Text, several texts, the ids of one prompt, or those of several. */
export type Prompt = string | readonly string[] | TokenIds | readonly TokenIds[];

/** Token ids: integers from 0 up to the vocabulary's size. */
export type TokenIds = readonly number[] | Uint32Array;

/**
 * An option that is not listed throws `OPTION_UNKNOWN`, a value outside its range `OPTION_INVALID`, both at once. So
 * does an option that would have no effect beside the others, such as `topK` in a beam search.
 */
export interface GenerateOptions {
  /**
   * Most tokens to generate, per sequence. Default 256, or as many as fit in the model's positions. With a value that,
   * together with the prompt, does not fit, the generation fails with `CONTEXT_OVERFLOW`.
   */
  maxNewTokens?: number;
  /** Until there are so many nothing ends a sequence: end tokens are banned, stop strings pass. Default 0. */
  minNewTokens?: number;
  /** 0 is greedy: the likeliest token, always. Default 1. */
  temperature?: number;
  /** Sample among the so many likeliest tokens. Default 0: among all. */
  topK?: number;
  /** Sample among the likeliest tokens whose probabilities add up to this, 0 to 1. Default 1: among all. */
  topP?: number;
  /** Drop tokens less likely than this × the likeliest one, 0 to 1. Default 0: none. */
  minP?: number;
  /** Divides the logits of tokens that prompt or continuation have (multiplies negative ones). Default 1: off. */
  repetitionPenalty?: number;
  /** Taken off the logits of tokens that the continuation has. Default 0. */
  presencePenalty?: number;
  /** Taken off the logits of the continuation's tokens once per time that they occur. Default 0. */
  frequencyPenalty?: number;
  /** No sequence of so many tokens occurs twice, the prompt's included. Default 0: off. */
  noRepeatNgramSize?: number;
  /** Added to the logits, by token id; `-Infinity` bans a token. */
  logitBias?: Readonly<Record<number, number>>;
  /**
   * What is not said: words, and sequences of token ids. A sequence is not completed: its last token is banned where
   * the others stand before it, the prompt's included; an end token by itself is no word (`suppressTokens` bans it). A
   * word is banned as the tokenizer writes it at the beginning of a text and after a space; one that begins with a
   * space or a line's end, only as it is. Other spellings are other words: `"Word"`, `"words"`. At most 10,000, each of
   * at most 1,024 characters or ids. Default: none.
   */
  badWords?: string | readonly (string | TokenIds)[];
  /** Token ids that are not generated, at most 100,000. Default: none. */
  suppressTokens?: TokenIds;
  /** Token ids with which no continuation begins, at most 100,000. Default: none. */
  beginSuppressTokens?: TokenIds;
  /**
   * The text ends before the first of these strings, which may span tokens, and in which special tokens have their
   * names (`"<|eot|>"`); so it does where one comes about between the tokens that are not written. At most 64, each of
   * at most 1,024 characters; one with a character that no token of the vocabulary has is `OPTION_INVALID`. Numbers are
   * token ids that end a sequence, as in `stopTokenIds`. Default: none.
   */
  stop?: string | number | readonly (string | number)[];
  /** Token ids that end a sequence, beside the model's own end tokens; with those in `stop` at most 1,024. */
  stopTokenIds?: readonly number[];
  /** Go on after the model's own end tokens. Default false. */
  ignoreEos?: boolean;
  /**
   * An integer of at least 0: the same seed, prompt and options give the same tokens on one machine and build. Default:
   * a random one, which the result names.
   */
  seed?: number;
  /**
   * Reports each token's log-probability (natural logarithm, of the model's own distribution before any option took its
   * effect) and, beside it, the so many likeliest tokens: 0 to 20. Default: no report.
   */
  logprobs?: number;
  /** Independent samples per prompt, 1 to 64. Default 1. */
  n?: number;
  /** Beam search with so many beams, 1 to 64. Default 1: no search. Its tokens arrive when it has ended. */
  numBeams?: number;
  /** How many of the beams to return, best first. Default 1. */
  numReturnSequences?: number;
  /** Beams are ranked by sum of log-probabilities ÷ length to this power. Default 1. */
  lengthPenalty?: number;
  /**
   * When a beam search may end: `true` as soon as `numBeams` sequences have ended, `false` (default) when no running
   * beam is likely to beat the worst of them, `"never"` when none can at any length.
   */
  earlyStopping?: boolean | "never";
  /** One of the adapters that the model was loaded with, by name. Default: none, the model as it is. */
  adapter?: string;
  /** `"left"` cuts a prompt that does not fit from its beginning. Default: `CONTEXT_OVERFLOW`. */
  truncate?: "left";
  /**
   * Whose turns these are: requests of one client share the turns of one, by tokens, so that a client with a thousand
   * prompts and a client with one get as many each. Default: each call is a client of its own.
   */
  client?: string;
  /** `"batch"`: gets what interactive requests leave of each step. Default `"interactive"`. */
  priority?: "interactive" | "batch";
  /** Milliseconds from the call; then the request ends with `DEADLINE_EXCEEDED`, after the tokens so far. */
  deadline?: number;
  /**
   * Beginnings of prompts are computed once, within a scope: name one for each of your users, and none can find out by
   * the time it takes what another one has asked. Default: one scope for all that name none.
   */
  scope?: string;
  /**
   * Tokens that exist already, of the one sequence or of each (prompt × `n` + sample): the generation goes on as if it
   * had just made them, with the same seed and options to the very tokens that it would have made. They are in the
   * result, without logprobs, and not in the stream. Not in a beam search.
   */
  continueFrom?: TokenIds | readonly TokenIds[];
  /**
   * `"lookup"` (default) guesses tokens from what followed the same tokens before, where that pays, and verifies them
   * in one pass: the same tokens and logprobs, sooner. `{ draft }`: a smaller model of the same vocabulary, or the same
   * model in a smaller dtype, guesses where that pays; the same tokens again. Whoever loaded it closes it, and it may
   * serve its own requests meanwhile. A draft of another vocabulary, or with `numBeams`, is `OPTION_INVALID`. `false`:
   * no guesses.
   */
  speculation?: "lookup" | { readonly draft: GPT2 } | false;
  /** Aborting it ends the compute by the next token; iteration and result are rejected with code `ABORTED`. */
  signal?: AbortSignal;
}

/** One generated token. The texts of a sequence's tokens, joined, are the sequence's text. */
export interface Token {
  readonly id: number;
  /**
   * Never a torn character: the first bytes of one come with an empty text, the last with all of it. A text that is cut
   * inside of a character ends before it. Also empty for end tokens, and while the text may be the beginning of a stop
   * string.
   */
  readonly text: string;
  /** Position among the sequence's generated tokens, from 0. */
  readonly index: number;
  /** Which continuation: prompt × `n` + sample; in a beam search prompt × `numReturnSequences` + rank. */
  readonly sequence: number;
  /** With `logprobs`: natural logarithm of the token's probability. */
  readonly logprob?: number;
  /** With `logprobs`: the likeliest tokens at this place, best first. */
  readonly topLogprobs?: readonly TokenLogprob[];
}

export interface TokenLogprob {
  readonly id: number;
  /** The token by itself: special tokens by name, a torn character as U+FFFD. */
  readonly text: string;
  readonly logprob: number;
}

/** What is known of a generation when its prompt is checked and queued. */
export interface Accepted {
  /**
   * Tokens of the prompt, or of all prompts together, as they will be computed: what `truncate` cut off is not among
   * them.
   */
  readonly promptTokens: number;
}

/** `"stop"`: an end token, a stop string, a stop id. `"length"`: `maxNewTokens`. `"aborted"`: ended by its reader. */
export type FinishReason = "stop" | "length" | "aborted";

/** One continuation. */
export interface GeneratedSequence {
  /** Index of the prompt that it continues. */
  readonly prompt: number;
  readonly text: string;
  /** All that were generated, a final end token included. */
  readonly tokens: readonly Token[];
  readonly finishReason: FinishReason;
  /** The stop string that ended it; it is not in `text`. */
  readonly stopSequence?: string;
  /**
   * The id of `stop` or `stopTokenIds` that ended it, its last token; of a reply also what ends its turn in the chat
   * template. Absent where a stop string ends before it.
   */
  readonly stopTokenId?: number;
  /** Beam search: what it was ranked by. */
  readonly score?: number;
}

/** A finished generation. `text`, `tokens` and `finishReason` are the first sequence's. */
export interface GenerationResult extends GeneratedSequence {
  /** By prompt, then by sample or rank. */
  readonly sequences: readonly GeneratedSequence[];
  readonly usage: Usage;
  readonly timings: Timings;
  /** The seed that was used. */
  readonly seed: number;
}

/** Counts of tokens. */
export interface Usage {
  /** Each prompt once, whatever `n`, after truncation. */
  readonly promptTokens: number;
  /** All that were generated, end tokens included. */
  readonly completionTokens: number;
  readonly totalTokens: number;
  /** Of the prompt's tokens those that an earlier request had computed already. */
  readonly cachedTokens: number;
  /** Tokens that were guessed, and those of them that were right: each of these saved a pass. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
}

/** Milliseconds, and tokens per second. Pauses for a slow reader are in none of them. */
export interface Timings {
  /** From the call to the first forward pass, tokenising included. */
  readonly queuedMs: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
  /** From the call to the first token. */
  readonly firstTokenMs: number;
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
}
