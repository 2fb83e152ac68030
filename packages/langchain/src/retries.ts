import { CandlewickError } from "candlewick";

/**
 * What `onFailedAttempt` is where the caller has none: a full queue may have room later; nothing else that Candlewick
 * refuses is right the second time.
 */
export function onlyQueueFull(error: unknown): void {
  if (!(error instanceof CandlewickError && error.code === "QUEUE_FULL")) throw error;
}
