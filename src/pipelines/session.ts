/** A conversation that keeps its history. */
import { readMessages, type Message } from "../chat/messages.js";
import { firstTurn } from "../chat/chat.js";
import { firstKept, joined, type Turn } from "../chat/turns.js";
import { CandlewickError } from "../errors.js";
import { checkOptions } from "../options.js";
import type { TokenStream } from "../stream.js";
import { replyOptions, type ReplyOptions, type Responder } from "./responder.js";

/**
 * What was said so far, and the next turn of it. A reply computes its own turn alone: what the model read and wrote
 * before lies in the engine's cache (of a model's last few generations, so that of many sessions at once some read
 * again).
 *
 * Once the positions are full, the oldest turns are forgotten until half of them are free, so that this happens now and
 * then and not at every turn. By a chat template the whole conversation is written at each turn, of which the cache has
 * what was read before; the system's messages at its beginning are not forgotten.
 */
export class DialogueSession implements AsyncDisposable {
  readonly #responder: Responder;
  /** In order; a turn's ids are made when it is first read by the model. */
  #history: (Message | Turn)[];
  /** Of `#history`, those before it are no longer read, but for the system's by a template. */
  #first = 0;
  #last: TokenStream | undefined;
  #closed = false;

  /** @internal */
  constructor(responder: Responder, messages: readonly Message[]) {
    this.#responder = responder;
    this.#history = [...messages];
  }

  /**
   * What was said, also what is forgotten. A turn is there when its reply is over: with what was read of it, if it was
   * left.
   */
  get messages(): Message[] {
    return this.#history.map((entry) => ({ ...messageOf(entry) }));
  }

  /** How many of the {@link messages}, from the oldest on, the model no longer reads. */
  get forgotten(): number {
    return this.#first > 0 && this.#responder.template ? this.#first - firstTurn(this.messages) : this.#first;
  }

  /**
   * Says something, and streams the reply. A reply that is still on its way is brought to its end first. One that is
   * left, cancelled or aborted is remembered as far as it was read; if nothing of it was, nothing was said.
   *
   * @throws {CandlewickError} At once: `INPUT_INVALID`, `PROMPT_EMPTY`, `OPTION_UNKNOWN`, `OPTION_INVALID`,
   *   `MODEL_CLOSED` (the session's end too). Through the stream: `CONTEXT_OVERFLOW` (a message that does not fit by
   *   itself), and what a generation ends with.
   */
  say(text: string, options: ReplyOptions = {}): TokenStream {
    const given = checkOptions("say", options, replyOptions);
    if (typeof text !== "string") throw new CandlewickError("INPUT_INVALID", "say: what is said must be a string");
    const [message] = readMessages("say", text) as [Message];
    if (this.#closed) throw new CandlewickError("MODEL_CLOSED", "The session is closed");
    const before = this.#last;
    const history = this.#history;
    let said: Turn | undefined;
    const reply = this.#responder.answer(async () => {
      await before?.result.catch(() => {});
      if (this.#responder.template) return [await this.#written(history, message, given)];
      const turns = await this.#turns(history, message, given);
      said = turns.at(-1)!;
      return [joined(turns)];
    }, given);
    this.#last = reply;
    reply.whenOver((tokens, whole) => {
      const content = tokens.map((token) => token.text).join("");
      // Ids that were generated are in the cache; of a part, a character may be torn.
      const answer =
        said && whole ? this.#responder.joiner.reply(content, tokens.map(({ id }) => id)) : ({ role: "assistant", content } as const);
      // After a reset the history is another one.
      if (whole || content !== "") history.push(said ?? message, answer);
    });
    return reply;
  }

  /** Ends a reply that is on its way, and forgets everything. */
  reset(): void {
    this.#history = [];
    this.#first = 0;
    this.#last?.cancel();
  }

  /** Ends a reply that is on its way. The model stays open. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#last?.return();
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The ids of the conversation by the template. */
  async #written(history: (Message | Turn)[], message: Message, given: ReplyOptions): Promise<Uint32Array> {
    const messages = [...history.map(messageOf), message];
    const own = history === this.#history;
    const system = firstTurn(messages);
    const before = Math.max(own ? this.#first : 0, system);
    const room = this.#responder.room(given);
    const kept = [...messages.slice(0, system), ...messages.slice(before)];
    const { ids, first } = await this.#responder.template!.fit(kept, room, room >> 1, given.signal);
    if (own && first > 0 && history === this.#history) this.#first = before + first - system;
    return ids;
  }

  /** The turns that the model reads, the new one last. */
  async #turns(history: (Message | Turn)[], message: Message, given: ReplyOptions): Promise<Turn[]> {
    const first = history === this.#history ? this.#first : 0;
    const kept = [...history.slice(first), message];
    const missing = kept.filter((entry): entry is Message => !("ids" in entry));
    const made = await this.#responder.joiner.turns(missing, given.signal);
    const turns = kept.map((entry) => ("ids" in entry ? entry : made.shift()!));
    turns.slice(0, -1).forEach((turn, index) => (history[first + index] = turn));
    const room = this.#responder.room(given);
    const dropped = firstKept(turns, room, room >> 1);
    if (history === this.#history) this.#first = first + dropped;
    return turns.slice(dropped);
  }
}

const messageOf = (entry: Message | Turn): Message => ("ids" in entry ? entry.message : entry);
