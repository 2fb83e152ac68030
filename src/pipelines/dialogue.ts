/** Conversation with a GPT-2: replies to lists of messages, and sessions that keep their history. */
import { readMessage, readMessages, type Conversation, type Message } from "../chat/messages.js";
import { REPLIES } from "../chat/turns.js";
import type { GPT2 } from "../gpt2.js";
import { checkOptions, type OptionTable } from "../options.js";
import type { TokenStream } from "../stream.js";
import { useOf } from "../task-parameters.js";
import { DialogueSession } from "./session.js";
import { replyOptions, Responder, type ReplyOptions } from "./responder.js";

export interface DialogueOptions extends ReplyOptions {
  /**
   * What ends the user's turns, as in training: then the model's chat template, if its files have one, is not used.
   * Default: the template; what the model's files say; nothing but the end of text.
   */
  separator?: string;
}

export interface SessionOptions extends DialogueOptions {
  /** What was said before. Default: nothing. */
  messages?: readonly Message[];
}

/** The assistant's message. */
export interface Reply extends Message {
  readonly role: "assistant";
}

/** Answers. A history that is too long for the model's positions is read from a later turn on. */
export interface DialogueTask extends AsyncDisposable {
  /** The reply to a conversation that ends with the user's message; a string is a conversation of one. */
  (conversation: Conversation, options?: DialogueOptions): Promise<Reply>;
  /** Of several conversations, which run together. */
  (conversations: readonly (readonly Message[])[], options?: DialogueOptions): Promise<Reply[]>;
  /** The reply's tokens as they come. */
  stream(conversation: Conversation, options?: DialogueOptions): TokenStream;
  /** A conversation that keeps its history. */
  session(options?: SessionOptions): DialogueSession;
  readonly model: GPT2;
  /** Closes the model, if `pipeline()` loaded it for this task. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const NAME = "dialogue";

const options: OptionTable<DialogueOptions> = {
  ...replyOptions,
  separator: (value) => (typeof value === "string" ? undefined : "must be a string"),
};
const sessionOptions: OptionTable<SessionOptions> = {
  ...options,
  messages: (value) => (Array.isArray(value) ? undefined : "must be a list of messages"),
};

export function createDialogue(model: GPT2, defaults: DialogueOptions, owned: boolean): DialogueTask {
  const standing = checkOptions(NAME, defaults, options);
  const use = useOf(model.tasks, NAME, REPLIES);

  const open = (given: DialogueOptions) => {
    const { separator, ...generation } = { ...standing, ...given };
    model.checkOpen();
    return new Responder(model, separator, generation, use);
  };

  const task = async (input: Conversation | readonly (readonly Message[])[], given: DialogueOptions = {}) => {
    const responder = open(checkOptions(NAME, given, options));
    const several = Array.isArray(input) && Array.isArray(input[0]);
    const conversations = several ? Array.from(input, (one) => readMessages(NAME, one)) : [readMessages(NAME, input)];
    const { sequences } = await responder.answer(() => responder.all(conversations)).result;
    const replies = sequences.map(({ text }): Reply => ({ role: "assistant", content: text }));
    return several ? replies : replies[0]!;
  };
  const stream = (conversation: Conversation, given: DialogueOptions = {}) => {
    const responder = open(checkOptions(NAME, given, options));
    const conversations = [readMessages(NAME, conversation)];
    return responder.answer(() => responder.all(conversations));
  };
  const session = (given: SessionOptions = {}) => {
    const { messages = [], ...rest } = checkOptions(NAME, given, sessionOptions);
    return new DialogueSession(open(rest), Array.from(messages, (message) => readMessage(NAME, message)));
  };
  const close = async (): Promise<void> => {
    if (owned) await model.close();
  };
  return Object.assign(task, { model, stream, session, close, [Symbol.asyncDispose]: close }) as DialogueTask;
}
