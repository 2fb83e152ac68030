import { CandlewickError, type ErrorCode } from "../../index.js";

/** Tokens that the engine computes ahead of a reader, at most: its queue, and a batch on its way. */
export const QUEUE = 64 + 64 + 1;

export const hasCode =
  (code: ErrorCode) =>
  (error: unknown): boolean =>
    error instanceof CandlewickError && error.code === code;

export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}
