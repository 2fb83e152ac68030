/** The AI SDK's messages as Candlewick's. */
import { UnsupportedFunctionalityError } from "@ai-sdk/provider-v3";
import type { Message } from "candlewick";
import type { Prompt, Warning } from "./specification.js";

/** Reasoning of earlier answers is left out with a warning; other things than text have no place in a conversation. */
export function messagesOf(prompt: Prompt, warnings: Warning[]): Message[] {
  return prompt.map((message): Message => {
    if (message.role === "system") return { role: "system", content: message.content };
    if (message.role === "tool") throw unsupported("messages of tools");
    const texts = message.content.map((part) => {
      if (part.type === "text") return part.text;
      if (part.type !== "reasoning") throw unsupported(`parts of type ${part.type}`);
      warnings.push({ type: "unsupported", feature: "reasoning", details: "The reasoning of an earlier answer is not read." });
      return "";
    });
    return { role: message.role, content: texts.join("") };
  });
}

/** The text of a prompt that is one message of the user's. */
export function soleText(messages: readonly Message[]): string | undefined {
  const [first] = messages;
  return messages.length === 1 && first?.role === "user" ? first.content : undefined;
}

export function unsupported(functionality: string, message?: string): UnsupportedFunctionalityError {
  return new UnsupportedFunctionalityError({ functionality, message });
}
