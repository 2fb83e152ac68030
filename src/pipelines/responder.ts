/** What generates replies in a dialogue: a model, how it reads conversations, and its generation options. */
import { templateFormat, type TemplateFormat, withEnds } from "../chat/chat.js";
import type { Message } from "../chat/messages.js";
import { firstKept, historyRoom, joined, Joiner } from "../chat/turns.js";
import { generateOptions } from "../generation-options.js";
import type { GPT2 } from "../gpt2.js";
import type { OptionTable } from "../options.js";
import type { TokenStream } from "../stream.js";
import { type GenerationDefaults, overDefaults } from "../generation-defaults.js";
import type { Use } from "../task-parameters.js";
import type { GenerateOptions } from "../types.js";

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
  /** What writes conversations where the model's files have a chat template; {@link joiner} else. */
  readonly template: TemplateFormat | undefined;
  readonly #generation: ReplyOptions;
  readonly #learned: GenerationDefaults;

  constructor(model: GPT2, separator: string | undefined, generation: ReplyOptions, use: Use) {
    this.model = model;
    // A separator that the call names asks for turns.
    this.template = model.info.chat === "template" && separator === undefined ? templateFormat(model) : undefined;
    this.joiner = new Joiner(model, separator ?? use.separator);
    this.#generation = generation;
    this.#learned = use.generation ?? {};
  }

  /** Each conversation's ids, of as many turns as fit. */
  async all(conversations: readonly (readonly Message[])[]): Promise<Uint32Array[]> {
    const { signal } = this.#generation;
    const { template } = this;
    const most = this.room();
    if (template) return Promise.all(conversations.map((one) => template.ids(one, { addGenerationPrompt: true, most, signal })));
    const turns = await this.joiner.turns(conversations.flat(), signal);
    let at = 0;
    return conversations.map(({ length }) => {
      const own = turns.slice(at, (at += length));
      return joined(own.slice(firstKept(own, most)));
    });
  }

  /** Tokens that a history may have. */
  room({ maxNewTokens = this.#generation.maxNewTokens ?? this.#learned.maxNewTokens }: ReplyOptions = {}): number {
    return historyRoom(this.model.info.positions, maxNewTokens);
  }

  /** Continues conversations whose ids are still being made. */
  answer(make: () => Promise<readonly Uint32Array[]>, given: ReplyOptions = {}): TokenStream {
    const generation = { ...this.#generation, ...given };
    return this.model.generateFrom(async () => {
      const prompts = await make();
      const ends = this.template ? await this.template.ends() : { stop: this.joiner.stop };
      return { prompts, options: withEnds(overDefaults(generation, this.#learned), ends) };
    }, generation.signal);
  }
}
