/** What generates replies in a dialogue: a model, how its turns are joined, and its generation options. */
import { generateOptions } from "../generation-options.js";
import type { GPT2 } from "../gpt2.js";
import type { OptionTable } from "../options.js";
import type { TokenStream } from "../stream.js";
import { type GenerationDefaults, overDefaults } from "../generation-defaults.js";
import type { GenerateOptions } from "../types.js";
import { firstKept, joined, type Joiner, type Message, type Turn } from "./turns.js";

/**
 * Defaults are those of `task_specific_params.dialogue` in the model's `config.json`, else of a
 * `generation_config.json` that samples, else `temperature: 0.7`, `topK: 40`, `topP: 0.9`, `repetitionPenalty: 1.1`.
 */
export interface ReplyOptions extends Omit<GenerateOptions, "n" | "numReturnSequences" | "truncate"> {}

const { n: _n, numReturnSequences: _numReturnSequences, truncate: _truncate, ...ofReplies } = generateOptions;
export const replyOptions: OptionTable<ReplyOptions> = ofReplies;

export class Responder {
  readonly model: GPT2;
  readonly joiner: Joiner;
  readonly #generation: ReplyOptions;
  readonly #learned: GenerationDefaults;

  constructor(model: GPT2, joiner: Joiner, generation: ReplyOptions, learned: GenerationDefaults) {
    this.model = model;
    this.joiner = joiner;
    this.#generation = generation;
    this.#learned = learned;
  }

  /** Each conversation's turns, as many as fit. */
  async all(conversations: readonly (readonly Message[])[]): Promise<(readonly Turn[])[]> {
    const { signal } = this.#generation;
    const turns = await this.joiner.turns(conversations.flat(), signal);
    let at = 0;
    return conversations.map(({ length }) => {
      const own = turns.slice(at, (at += length));
      return own.slice(firstKept(own, this.room()));
    });
  }

  /**
   * Tokens that a history may have, so that there is room for a reply: of `maxNewTokens`, or of a quarter of the
   * positions.
   */
  room({ maxNewTokens = this.#generation.maxNewTokens ?? this.#learned.maxNewTokens }: ReplyOptions = {}): number {
    const { positions } = this.model.info;
    return Math.max(1, positions - (maxNewTokens ?? Math.min(256, positions >> 2)));
  }

  /** Continues conversations whose ids are still being made. */
  answer(make: () => Promise<readonly (readonly Turn[])[]>, given: ReplyOptions = {}): TokenStream {
    const generation = { ...this.#generation, ...given };
    const { stop } = this.joiner;
    return this.model.generateFrom(async () => {
      const prompts = (await make()).map(joined);
      const options = overDefaults(generation, this.#learned);
      if (stop !== undefined) options.stop = [stop, ...[options.stop ?? []].flat()];
      return { prompts, options };
    }, generation.signal);
  }
}
