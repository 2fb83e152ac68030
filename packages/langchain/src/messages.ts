/** LangChain's messages as Candlewick's. */
import { AIMessage, ChatMessage, type BaseMessage } from "@langchain/core/messages";
import { CandlewickError, type Message } from "candlewick";
import { unable } from "./generation.js";

const ROLES: Readonly<Record<string, Message["role"]>> = { human: "user", ai: "assistant", system: "system", developer: "developer" };

/** Throws `TASK_UNSUPPORTED` for what is no text, `INPUT_INVALID` for a role that no conversation has. */
export function messagesOf(messages: readonly BaseMessage[]): Message[] {
  return messages.map((message) => ({ role: roleOf(message), content: textOf(message) }));
}

function roleOf(message: BaseMessage): Message["role"] {
  const { type } = message;
  if (type === "tool" || type === "function") throw unable(`messages of a ${type}`);
  if (AIMessage.isInstance(message) && message.tool_calls?.length) throw unable("calls of tools");
  const named = ChatMessage.isInstance(message) ? message.role : type;
  const role = ROLES[named] ?? Object.values(ROLES).find((known) => known === named);
  if (!role) throw new CandlewickError("INPUT_INVALID", `A message's role is "${named}"; known: ${Object.values(ROLES).join(", ")}`);
  return role;
}

function textOf({ content }: BaseMessage): string {
  if (typeof content === "string") return content;
  return content
    .map((block) => {
      if (block.type === "text" && typeof block["text"] === "string") return block["text"];
      throw unable(`content of type ${String(block.type)}`);
    })
    .join("");
}
