/**
 * A conversation as a GPT-2 reads it, which is as training joins it (`crates/train/src/data/completion.rs`): each turn,
 * and what ends it.
 */
import { CandlewickError } from "../errors.js";
import type { GPT2 } from "../gpt2.js";
import { readObject } from "./input-checks.js";

export interface Message {
  readonly role: "user" | "assistant" | "system";
  readonly content: string;
}

const ROLES: readonly unknown[] = ["user", "assistant", "system"];

/** A message, checked and copied. */
export function readMessage(name: string, input: unknown): Message {
  return readObject(name, input, {
    role: (value) => ROLES.includes(value),
    content: (value) => typeof value === "string",
  }) as unknown as Message;
}

/** A conversation that ends with a turn to be answered; a string is the only turn of one. */
export function readMessages(name: string, input: unknown): Message[] {
  const messages =
    typeof input === "string"
      ? [{ role: "user", content: input } as const]
      : Array.isArray(input)
        ? Array.from(input as readonly unknown[], (message) => readMessage(name, message))
        : undefined;
  if (!messages) throw new CandlewickError("INPUT_INVALID", `${name}: expected messages, [{role, content}, …], or a text`);
  const last = messages.at(-1);
  if (!last || last.role === "assistant") {
    throw new CandlewickError("INPUT_INVALID", `${name}: the last message must be one to be answered, the user's`);
  }
  if (last.content.trim() === "") throw new CandlewickError("PROMPT_EMPTY", `${name}: the last message is empty`);
  return messages;
}

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
