/** Conversations of a GPT-2 in the form that its files give them: `GPT2.chat` and `GPT2.chatPrompt`. */
import { CandlewickError } from "../errors.js";
import { type GenerationDefaults, overDefaults } from "../generation-defaults.js";
import { generateOptions, type ResolvedOptions } from "../generation-options.js";
import type { GPT2 } from "../gpt2.js";
import { checkOptions, checks, isPlainObject, type OptionTable } from "../options.js";
import type { TokenStream } from "../stream.js";
import { useOf, type TaskParameters } from "../task-parameters.js";
import type { GenerateOptions } from "../types.js";
import { checkAnswerable, checkSaid, isSystem, readConversation, type Conversation, type Message } from "./messages.js";
import { firstKept, historyRoom, joined, Joiner, REPLIES } from "./turns.js";

/**
 * Those of `generate()`. `maxNewTokens` is by default all that the positions leave, where the files' defaults do not
 * name another.
 */
export interface ChatOptions extends Omit<GenerateOptions, "truncate"> {
  /**
   * `"turns"`: of a conversation that does not fit, the oldest turns are forgotten until there is room for the reply
   * (`maxNewTokens`, else a quarter of the positions): never the system's messages at its beginning, never the last
   * turn. Default: `CONTEXT_OVERFLOW`.
   */
  truncate?: "turns";
}

export interface ChatPromptOptions {
  /** Whether what begins the assistant's turn comes last. Default true. */
  addGenerationPrompt?: boolean;
  signal?: AbortSignal;
}

const chatOptions: OptionTable<ChatOptions> = { ...generateOptions, truncate: checks.oneOf("turns") };
const promptOptions: OptionTable<ChatPromptOptions> = { addGenerationPrompt: checks.boolean, signal: checks.signal };

/** `"template"`: by the template in the model's files. `"turns"`: as `finetune()` joins a dialogue. */
export type ChatKind = "template" | "turns";

/** How a model reads conversations. */
export interface ChatFormat {
  readonly defaults: GenerationDefaults;
  /** Throws for what this format cannot say. */
  check(where: string, messages: readonly Message[]): void;
  /** The conversation's ids; the oldest turns left out until they are `most`. */
  ids(messages: readonly Message[], options: { addGenerationPrompt: boolean; most?: number; signal?: AbortSignal }): Promise<Uint32Array>;
  /** What ends a reply, beside the model's own end tokens. */
  ends(): Promise<Ends>;
}

export interface Ends {
  readonly stop?: string;
  readonly stopTokenId?: number;
}

/** Which format a model's files give. */
export function chatKind(hasTemplate: boolean, tasks: TaskParameters): ChatKind | undefined {
  return hasTemplate ? "template" : isPlainObject(tasks.tasks["dialogue"]) ? "turns" : undefined;
}

/** Throws `CHAT_TEMPLATE_MISSING` where the files say nothing of conversations. */
export function chatFormat(model: GPT2): ChatFormat {
  if (model.info.chat === "template") return templateFormat(model);
  if (model.info.chat === "turns") return turnsFormat(model);
  throw new CandlewickError(
    "CHAT_TEMPLATE_MISSING",
    `The files of ${model.source} do not say how it reads a conversation: they have no chat template (chat_template.jinja, or chat_template in tokenizer_config.json), and it was not trained for a dialogue (task_specific_params.dialogue in config.json)`,
  );
}

/** `GPT2.chatPrompt`. */
export async function chatPrompt(model: GPT2, input: Conversation, options: ChatPromptOptions): Promise<Uint32Array> {
  const { addGenerationPrompt = true, signal } = checkOptions("chatPrompt", options, promptOptions);
  const messages = readConversation("chatPrompt", input);
  model.checkOpen();
  const format = chatFormat(model);
  format.check("chatPrompt", messages);
  return format.ids(messages, { addGenerationPrompt, signal });
}

/** `GPT2.chat`. */
export function chat(model: GPT2, input: Conversation, options: ChatOptions): TokenStream {
  const { truncate, ...given } = checkOptions("chat", options, chatOptions);
  const messages = readConversation("chat", input);
  checkAnswerable("chat", messages);
  model.checkOpen();
  const format = chatFormat(model);
  format.check("chat", messages);
  const { signal } = given;
  const { positions } = model.info;
  const resolved = overDefaults(given, format.defaults);
  const most = truncate && historyRoom(positions, given.maxNewTokens ?? format.defaults.maxNewTokens);
  const wishes = [resolved.maxNewTokens, resolved.wishedNewTokens, resolved.wishedLength];
  if (wishes.every((wish) => wish === undefined)) resolved.wishedNewTokens = positions;
  return model.generateFrom(async () => {
    const ids = await format.ids(messages, { addGenerationPrompt: true, most, signal });
    return { prompts: [ids], options: withEnds(resolved, await format.ends()) };
  }, signal);
}

/** Options that end a reply where its turn ends. */
export function withEnds<Options extends ResolvedOptions>(options: Options, { stop, stopTokenId }: Ends): Options {
  const resolved = { ...options };
  if (stop !== undefined) resolved.stop = [stop, ...[options.stop ?? []].flat()];
  if (stopTokenId !== undefined && !options.ignoreEos) resolved.stopTokenIds = [...(options.stopTokenIds ?? []), stopTokenId];
  return resolved;
}

/**
 * A dialogue as `finetune()` has taught it. Nothing in its ids says whose a turn is: the assistant's are those that the
 * model has learned to write. So a system's message would be read as one more turn of the user's, which a caller who
 * sends it does not mean, and it is refused.
 */
function turnsFormat(model: GPT2): ChatFormat {
  const { separator, generation: defaults = {} } = useOf(model.tasks, "dialogue", REPLIES);
  const joiner = new Joiner(model, separator);
  return {
    defaults,
    check(where, messages) {
      if (messages.some(isSystem)) {
        const problem = "was trained on a dialogue's turns, which have no place for a message of the system's or the developer's";
        throw new CandlewickError("INPUT_INVALID", `${where}: ${model.source} ${problem}`);
      }
      checkSaid(where, messages);
    },
    async ids(messages, { most, signal }) {
      const turns = await joiner.turns(messages, signal);
      return joined(most === undefined ? turns : turns.slice(firstKept(turns, most)));
    },
    ends: async () => ({ stop: joiner.stop }),
  };
}

/** A conversation of which the turns before `first` are forgotten, but for the system's messages at its beginning. */
export interface Fitted {
  readonly ids: Uint32Array;
  readonly first: number;
}

export interface TemplateFormat extends ChatFormat {
  /** The ids of all messages if they are no more than `most`; else the oldest turns go until they are `target`. */
  fit(messages: readonly Message[], most: number, target: number, signal?: AbortSignal): Promise<Fitted>;
}

/** A chat template, which the engine renders on the model's text thread. */
export function templateFormat(model: GPT2): TemplateFormat {
  const fit: TemplateFormat["fit"] = (messages, most, target, signal) =>
    fitting(messages, most, target, (kept) => model.templateIds(kept, true, signal));
  return {
    defaults: model.info.generationDefaults,
    check() {},
    fit,
    ids: async (messages, { addGenerationPrompt, most, signal }) =>
      most === undefined
        ? model.templateIds(messages, addGenerationPrompt, signal)
        : (await fit(messages, most, most, signal)).ids,
    async ends() {
      const id = await model.templateEnd();
      return id === undefined || model.info.eosTokenIds.includes(id) ? {} : { stopTokenId: id };
    },
  };
}

/**
 * The latest turns that make at most so many ids, found by halves: a template writes more of more messages. What comes
 * after the system's messages begins with no reply. If not even the last turn fits, its ids.
 */
async function fitting(
  messages: readonly Message[],
  most: number,
  target: number,
  idsOf: (messages: readonly Message[]) => Promise<Uint32Array>,
): Promise<Fitted> {
  const system = firstTurn(messages);
  const last = messages.length - 1;
  const from = async (first: number, limit: number): Promise<Fitted | undefined> => {
    try {
      const ids = await idsOf([...messages.slice(0, system), ...messages.slice(first)]);
      return ids.length <= limit || first === last ? { ids, first } : undefined;
    } catch (error) {
      if (first < last && error instanceof CandlewickError && error.code === "CONTEXT_OVERFLOW") return undefined;
      throw error;
    }
  };
  // A message is a token at the least: of thousands of them only the latest are rendered.
  const whole = last - system < most ? await from(system, most) : undefined;
  if (whole) return { ...whole, first: 0 };
  const starts = Array.from(messages.keys()).filter(
    (at) => at === last || (at > Math.max(system, last - most) && messages[at]!.role !== "assistant"),
  );
  let fitted: Fitted | undefined;
  for (let low = 0, high = starts.length - 1; low < high || !fitted; ) {
    const middle = (low + high) >> 1;
    const tried = await from(starts[middle]!, target);
    if (tried) [fitted, high] = [tried, middle];
    else low = middle + 1;
  }
  return fitted;
}

/** Where a conversation begins, after the system's messages; the last message is always part of it. */
export const firstTurn = (messages: readonly Message[]): number => {
  const first = messages.findIndex((message) => !isSystem(message));
  return first === -1 ? messages.length - 1 : first;
};
