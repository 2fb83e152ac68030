/** What the routes of generations have in common. */
import { createHash, randomBytes } from "node:crypto";
import type { AnswerHead } from "candlewick/openai";
import type { Json } from "../json.js";
import type { PlainMessage } from "../generation.js";
import type { Entry, Generator } from "../models.js";

export const newId = (kind: string): string => `${kind}-${randomBytes(12).toString("hex")}`;

export const now = (): number => Math.floor(Date.now() / 1_000);

export function answerHead(kind: string, object: string, { id }: Entry, fingerprint: string): AnswerHead {
  return { id: newId(kind), object, created: now(), model: id, system_fingerprint: fingerprint };
}

/** What was asked: equal for a request that is sent again. */
export const identityOf = (json: Json): string => createHash("sha256").update(JSON.stringify(json)).digest("base64url");

/** Bytes of a token of text, about. Before a prompt is tokenised its length must do. */
const BYTES_OF_TOKEN = 4;

/** Tokens of prompts, of texts about. */
export function tokensOf(prompts: readonly (string | readonly number[])[]): number {
  return prompts.reduce((sum, prompt) => sum + (typeof prompt === "string" ? Math.ceil(Buffer.byteLength(prompt) / BYTES_OF_TOKEN) : prompt.length), 0);
}

/** Tokens that a conversation may have the model compute: those of its messages, and of the reply. */
export function roomOf({ info }: Generator, messages: readonly PlainMessage[], maxNewTokens: number | undefined): number {
  const prompt = tokensOf(messages.map(({ content }) => content));
  return Math.min(prompt + (maxNewTokens ?? info.positions), Math.max(prompt, info.positions));
}
