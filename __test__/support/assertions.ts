import { CandlewickError, type ErrorCode, type Token } from "../../index.js";

/** Tokens that the engine computes ahead of a reader, at most: its queue, and a batch on its way. */
export const QUEUE = 64 + 64 + 1;

export const hasCode =
  (code: ErrorCode) =>
  (error: unknown): boolean =>
    error instanceof CandlewickError && error.code === code;

export async function collect(stream: AsyncIterable<Token>): Promise<Token[]> {
  const tokens: Token[] = [];
  for await (const token of stream) tokens.push(token);
  return tokens;
}
