/** What the routes of generations have in common. */
import { randomBytes } from "node:crypto";
import type { AnswerHead } from "candlewick/openai";
import { invalid } from "../errors.js";
import type { PlainMessage } from "../generation.js";
import type { Entry, Generator } from "../models.js";

export const newId = (kind: string): string => `${kind}-${randomBytes(12).toString("hex")}`;

export const now = (): number => Math.floor(Date.now() / 1_000);

export function answerHead(kind: string, object: string, { id }: Entry, fingerprint: string): AnswerHead {
  return { id: newId(kind), object, created: now(), model: id, system_fingerprint: fingerprint };
}

/** Bytes of a token of text, about. Before a prompt is tokenised its length must do. */
const BYTES_OF_TOKEN = 4;

/** Tokens of prompts, of texts about. */
export function tokensOf(prompts: readonly (string | readonly number[])[]): number {
  return prompts.reduce((sum, prompt) => sum + (typeof prompt === "string" ? Math.ceil(Buffer.byteLength(prompt) / BYTES_OF_TOKEN) : prompt.length), 0);
}

/** Answers of one request, whatever they have. */
const MOST_CHOICES = 2_048;
/** Log-probabilities that are made into JSON at once: some 100 ms of the event loop. */
const MOST_REPORTED = 100_000;

/** @throws {ApiError} 400: `count` answers are more than one response may have. */
export function checkChoices(count: number): void {
  if (count > MOST_CHOICES) throw invalid(`The request asks for ${count} answers; at most ${MOST_CHOICES} may be asked for.`, "n", "too_many_choices");
}

/** @throws {ApiError} 400: so many tokens, each with `logprobs` candidates, are more than one answer may report. */
export function checkReported(tokens: number, logprobs: number | undefined): void {
  if (logprobs === undefined || tokens * (1 + logprobs) <= MOST_REPORTED) return;
  throw invalid(`The request asks for ${tokens * (1 + logprobs)} log-probabilities; at most ${MOST_REPORTED} may be asked for.`, "logprobs", "too_many_logprobs");
}

/** Tokens that a conversation may have the model compute: those of its messages, and of the reply. */
export function roomOf({ info }: Generator, messages: readonly PlainMessage[], maxNewTokens: number | undefined, cut = false): number {
  const whole = tokensOf(messages.map(({ content }) => content));
  // What is forgotten is not computed.
  const prompt = cut ? Math.min(whole, info.positions) : whole;
  return Math.min(prompt + (maxNewTokens ?? info.positions), Math.max(prompt, info.positions));
}
