// `candlewick chat`: a conversation at the terminal, or with the lines of a pipe.
import { appendFile } from "node:fs/promises";
import type { Command } from "commander";
import { CandlewickError } from "../errors.js";
import { MODEL_PREFIX } from "../package.js";
import type { DialogueSession } from "../pipelines/session.js";
import { shippedModel, shippedName } from "../default-models.js";
import { loadOptions, number, withLoadOptions, type LoadArguments } from "./arguments.js";
import { library } from "./library.js";
import { openPrompt, stateFile, type Prompt } from "./prompt.js";
import { bold, dim, signal, write } from "./terminal.js";

interface Arguments extends LoadArguments {
  model?: string;
  maxNewTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  seed?: number;
}

export function addChat(program: Command): void {
  const command = program
    .command("chat")
    .summary("talk with a model")
    .description(
      "Talks with a GPT-2 that was trained for it. On a terminal: arrow keys go through what you said, also in earlier runs; a line that ends with a backslash goes on, as does\ntext between \"\"\"; Ctrl-C stops a reply. In a pipe: each line is answered by one.",
    )
    .option("-m, --model <path>", `a folder with a GPT-2, or a hub id (default: the package ${MODEL_PREFIX}${shippedName("dialogue")})`)
    .option("--max-new-tokens <n>", "how long a reply may be", number)
    .option("--temperature <x>", "0 picks the likeliest token, higher is freer", number)
    .option("--top-k <n>", "choose among the N likeliest tokens", number)
    .option("--top-p <x>", "choose among the likeliest tokens that make up this probability", number)
    .option("--repetition-penalty <x>", "above 1, words that were said become less likely", number)
    .option("--seed <n>", "the same seed gives the same replies", number)
    .addHelpText("after", '\nFor instance: candlewick chat --temperature 0.5\n              echo "你好" | candlewick chat');
  withLoadOptions(command).action(chat);
}

async function chat(options: Arguments): Promise<void> {
  const { model, maxNewTokens, temperature, topK, topP, repetitionPenalty, seed } = options;
  const generation = { maxNewTokens, temperature, topK, topP, repetitionPenalty, seed };
  await using task = await library().pipeline("dialogue", model ?? shippedModel("dialogue"), { ...loadOptions(options), ...generation });
  await using session = task.session();
  const interactive = process.stdin.isTTY && process.stdout.isTTY;
  if (interactive) {
    const { parameters, dtype } = task.model.info;
    await write(dim(`${model ?? shippedName("dialogue")}: ${(parameters / 1e6).toFixed(1)} million parameters as ${dtype}. /help lists the commands.\n`));
  }
  const prompt = await openPrompt(stateFile("chat-history"));
  try {
    for (let text = await prompt.next(); text !== undefined; text = await prompt.next()) {
      const over = text.startsWith("/") && !text.includes("\n") ? await obey(text, session) : await reply(text, session, prompt);
      if (over) break;
    }
  } finally {
    await prompt.close();
  }
  if (interactive) await write("\n");
  if (signal.aborted) throw new CandlewickError("ABORTED", "Interrupted");
}

/** Sends the message, and writes the answer as it streams. */
async function reply(text: string, session: DialogueSession, prompt: Prompt): Promise<boolean> {
  if (text.trim() === "") return false;
  try {
    const answer = session.say(text, { signal });
    await prompt.during(
      () => answer.cancel(),
      async () => {
        for await (const token of answer) await write(harmless(token.text));
        const { finishReason } = await answer.result;
        await write(finishReason === "aborted" ? dim(" (stopped)\n") : finishReason === "length" ? dim(" …\n") : "\n");
      },
    );
  } catch (error) {
    if (!(error instanceof CandlewickError) || error.code === "ABORTED" || error.code === "MODEL_CLOSED") throw error;
    console.error(`${error.code}: ${error.message}`);
    if (!process.stdin.isTTY) process.exitCode = 1;
  }
  return false;
}

/** Removes control characters: generated text must not control the terminal. */
const harmless = (text: string): string => (process.stdout.isTTY ? text.replaceAll(/[^\P{Cc}\n\t]/gu, "") : text);

const COMMANDS = [
  ["/reset", "forgets what was said"],
  ["/save [file]", "adds the conversation to a file, as a row that `candlewick train -t dialogue` reads"],
  ["/help", "says this"],
  ["/exit", "leaves, as Ctrl-D does"],
] as const;

/** A command; `true` ends the program. */
async function obey(line: string, session: DialogueSession): Promise<boolean> {
  const [, name = "", argument = ""] = /^(\S+)\s*(.*)$/.exec(line.trim())!;
  switch (name) {
    case "/exit":
    case "/quit":
      return true;
    case "/reset":
      session.reset();
      await write(dim("Forgotten.\n"));
      return false;
    case "/save":
      await save(session, argument);
      return false;
    case "/help": {
      const width = Math.max(...COMMANDS.map(([command]) => command.length));
      await write(`${COMMANDS.map(([command, what]) => `  ${bold(command.padEnd(width))}  ${what}`).join("\n")}\n`);
      await write(dim('  A backslash at a line\'s end goes on in the next line; """ until the next """. Ctrl-C stops a reply.\n'));
      return false;
    }
    default:
      console.error(`There is no command ${name}; /help lists them. A space before it makes it a message.`);
      return false;
  }
}

async function save(session: DialogueSession, argument: string): Promise<void> {
  const { messages } = session;
  if (messages.length === 0) return void console.error("Nothing was said yet.");
  const path = argument || `chat-${new Date().toISOString().slice(0, 19).replace(/\D/g, "-")}.jsonl`;
  try {
    await appendFile(path, `${JSON.stringify({ messages })}\n`);
    await write(dim(`${messages.length} messages: ${path}\n`));
  } catch (error) {
    console.error(`IO: ${path}: ${(error as Error).message}`);
  }
}
