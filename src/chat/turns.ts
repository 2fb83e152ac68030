/**
 * A conversation as a GPT-2 reads it, which is as training joins it (`crates/train/src/data/completion.rs`): each turn,
 * and what ends it.
 */
import type { GPT2 } from "../gpt2.js";
import type { Message } from "./messages.js";

/** Sampling defaults for small models: likely words, without repetition. */
export const REPLIES = { do_sample: true, temperature: 0.7, top_k: 40, top_p: 0.9, repetition_penalty: 1.1 };

/** A message with its ids, what ends it included. */
export interface Turn {
  readonly message: Message;
  readonly ids: Uint32Array;
}

/** Joins turns for one model, with one separator. */
export class Joiner {
  readonly #model: GPT2;
  readonly #separator: string;
  readonly #end: number | undefined;
  /** Each turn is ended by the end of text; else by the separator, and the assistant's by the end of text. */
  readonly #endsAll: boolean;

  constructor(model: GPT2, separator?: string) {
    this.#model = model;
    this.#end = model.info.eosTokenIds[0];
    this.#separator = separator ?? (this.#end === undefined ? "\n" : "");
    this.#endsAll = this.#separator === "";
  }

  /** The stop string of a reply, for a model without an end-of-text token, which would never stop otherwise. */
  get stop(): string | undefined {
    return this.#end === undefined && !this.#endsAll ? this.#separator : undefined;
  }

  async turns(messages: readonly Message[], signal?: AbortSignal): Promise<Turn[]> {
    if (messages.length === 0) return [];
    const texts = messages.map(({ role, content }) => (role === "assistant" || this.#endsAll ? content : content + this.#separator));
    const ids = await this.#model.plainIds(texts, signal);
    return messages.map((message, index) => this.#turn(message, ids[index]!));
  }

  /** The assistant's turn out of the ids that were generated, so that what follows finds their past in the cache. */
  reply(content: string, ids: readonly number[]): Turn {
    return this.#turn({ role: "assistant", content }, ids);
  }

  #turn(message: Message, ids: Uint32Array | readonly number[]): Turn {
    // The name of the end-of-text token inside a message does not end the message.
    const { eosTokenIds } = this.#model.info;
    const own = Uint32Array.from(ids).filter((id) => !eosTokenIds.includes(id));
    if (this.#end === undefined || !(message.role === "assistant" || this.#endsAll)) return { message, ids: own };
    const ended = new Uint32Array(own.length + 1);
    ended.set(own);
    ended[own.length] = this.#end;
    return { message, ids: ended };
  }
}

/**
 * The first turn that is kept where only `limit` tokens fit: all are if they do; else the oldest go until there are
 * `target`, and one that the assistant began with. The last turn stays.
 */
export function firstKept(turns: readonly Turn[], limit: number, target = limit): number {
  let total = turns.reduce((sum, { ids }) => sum + ids.length, 0);
  if (total <= limit) return 0;
  const last = turns.length - 1;
  let first = 0;
  while (first < last && (total > target || turns[first]!.message.role === "assistant")) total -= turns[first++]!.ids.length;
  return first;
}

/** One list of ids. */
export function joined(turns: readonly Turn[]): Uint32Array {
  const ids = new Uint32Array(turns.reduce((sum, turn) => sum + turn.ids.length, 0));
  let at = 0;
  for (const turn of turns) {
    ids.set(turn.ids, at);
    at += turn.ids.length;
  }
  return ids;
}

/**
 * Tokens that a history may have, so that there is room for a reply: of `maxNewTokens`, or of a quarter of the
 * positions.
 */
export function historyRoom(positions: number, maxNewTokens = Math.min(256, positions >> 2)): number {
  return Math.max(1, positions - maxNewTokens);
}
