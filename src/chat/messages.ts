/** The messages of a conversation, checked and copied. */
import { CandlewickError } from "../errors.js";
import { readObject } from "../pipelines/input-checks.js";

export interface Message {
  /** `"developer"` is what OpenAI calls the system's messages now: it is read as `"system"`. */
  readonly role: "user" | "assistant" | "system" | "developer";
  readonly content: string;
}

/** Messages, or a text that is the only one, the user's. */
export type Conversation = string | readonly Message[];

const ROLES: readonly unknown[] = ["user", "assistant", "system", "developer"];

/** A message, checked and copied. */
export function readMessage(name: string, input: unknown): Message {
  return readObject(name, input, {
    role: (value) => ROLES.includes(value),
    content: (value) => typeof value === "string",
  }) as unknown as Message;
}

/** A conversation of at least one message; a string is the only turn of one. */
export function readConversation(name: string, input: unknown): Message[] {
  const messages =
    typeof input === "string"
      ? [{ role: "user", content: input } as const]
      : Array.isArray(input)
        ? Array.from(input as readonly unknown[], (message) => readMessage(name, message))
        : undefined;
  if (!messages) throw new CandlewickError("INPUT_INVALID", `${name}: expected messages, [{role, content}, …], or a text`);
  if (messages.length === 0) throw new CandlewickError("INPUT_INVALID", `${name}: there is no message`);
  return messages;
}

/** Throws `INPUT_INVALID` if a conversation does not end with a turn to be answered. */
export function checkAnswerable(name: string, messages: readonly Message[]): void {
  if (messages.at(-1)!.role !== "assistant") return;
  throw new CandlewickError("INPUT_INVALID", `${name}: the last message must be one to be answered, the user's`);
}

/** Throws `PROMPT_EMPTY` if nothing is said last. */
export function checkSaid(name: string, messages: readonly Message[]): void {
  if (messages.at(-1)!.content.trim() === "") throw new CandlewickError("PROMPT_EMPTY", `${name}: the last message is empty`);
}

/** A conversation that ends with a turn to be answered, in which something is said. */
export function readMessages(name: string, input: unknown): Message[] {
  const messages = readConversation(name, input);
  checkAnswerable(name, messages);
  checkSaid(name, messages);
  return messages;
}

/** Whether it tells the model how to be, and is no turn of the conversation. */
export const isSystem = ({ role }: Message): boolean => role === "system" || role === "developer";
