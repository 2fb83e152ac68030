/** Reads messages: at a terminal with history and Ctrl-C, or from a pipe. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { Writable } from "node:stream";
import { dim, interrupt, signal, write } from "./terminal.js";

/** Lines that are kept across runs. */
const HISTORY = 1000;
const PROMPT = "> ";
const MORE = ". ";
const QUOTES = '"""';

export interface Prompt {
  /** The next message; nothing at the end. */
  next(): Promise<string | undefined>;
  /** Ctrl-C, until `work` is over, calls `stop` instead of doing what it does at the prompt. */
  during<T>(stop: () => void, work: () => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** Lines into messages: a backslash at a line's end goes on in the next one, `"""` goes on until the next `"""`. */
export class Messages {
  #lines: string[] = [];
  #quoted = false;

  /** A message has begun that is not complete yet. */
  get begun(): boolean {
    return this.#lines.length > 0;
  }

  push(line: string): string | undefined {
    const opens = !this.begun && line.trimStart().startsWith(QUOTES);
    if (opens) this.#quoted = true;
    const rest = opens ? line.trimStart().slice(QUOTES.length) : line;
    if (this.#quoted) {
      const ends = rest.trimEnd().endsWith(QUOTES);
      this.#lines.push(ends ? rest.trimEnd().slice(0, -QUOTES.length) : rest);
      return ends ? this.end() : undefined;
    }
    const goesOn = rest.endsWith("\\");
    this.#lines.push(goesOn ? rest.slice(0, -1) : rest);
    return goesOn ? undefined : this.end();
  }

  /** The lines so far, as a message. */
  end(): string {
    const text = this.#lines.join("\n");
    this.#lines = [];
    this.#quoted = false;
    // Quotation marks on lines of their own are no lines of the message.
    return text.replace(/^\n|\n$/g, "");
  }
}

/** Where programs keep what they remember of a user: the XDG state folder, on Windows the local application data. */
export function stateFile(name: string): string {
  const { XDG_STATE_HOME, LOCALAPPDATA } = process.env;
  const local = process.platform === "win32" ? LOCALAPPDATA : undefined;
  return join(XDG_STATE_HOME || local || join(homedir(), ".local", "state"), "candlewick", name);
}

export async function openPrompt(historyFile: string): Promise<Prompt> {
  return process.stdin.isTTY && process.stdout.isTTY ? openTerminal(historyFile) : openPipe();
}

function openPipe(): Prompt {
  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity, signal });
  const iterator = lines[Symbol.asyncIterator]();
  const messages = new Messages();
  return {
    async next() {
      for (;;) {
        const { value, done } = await iterator.next();
        if (done) return messages.begun ? messages.end() : undefined;
        const message = messages.push(value);
        if (message !== undefined) return message;
      }
    },
    during: (_stop, work) => work(),
    close: async () => lines.close(),
  };
}

async function openTerminal(historyFile: string): Promise<Prompt> {
  const history = await readHistory(historyFile);
  // What is typed during a reply is shown after it.
  let muted = false;
  const output = new Writable({
    write(chunk, _encoding, done) {
      if (muted) done();
      else process.stdout.write(chunk, () => done());
    },
  });
  // The editor asks the screen for its width.
  Object.defineProperties(output, { columns: { get: () => process.stdout.columns }, rows: { get: () => process.stdout.rows } });
  const editor = createInterface({ input: process.stdin, output, terminal: true, history, historySize: HISTORY, removeHistoryDuplicates: true, prompt: PROMPT });
  process.stdout.on("resize", () => output.emit("resize"));

  const messages = new Messages();
  const ready: string[] = [];
  let waiting: ((line: string | undefined) => void) | undefined;
  let stop: (() => void) | undefined;
  let closed = false;
  let interrupted = false;

  const ask = () => {
    editor.setPrompt(messages.begun ? MORE : PROMPT);
    // The prompt begins on a fresh row, whatever was typed while a reply was written.
    (editor as unknown as Rows).prevRows = 0;
    editor.prompt(true);
  };
  const onPaste = (chunk: Buffer | string) => {
    const text = chunk.toString();
    if (text.length > 1 && !text.startsWith("\x1b")) setImmediate(() => muted || closed || redraw(editor));
  };
  process.stdin.on("data", onPaste);
  const settle = (line: string | undefined) => {
    const resolve = waiting;
    waiting = undefined;
    resolve?.(line);
  };
  editor.on("line", (line) => {
    interrupted = false;
    if (waiting) settle(line);
    else ready.push(line);
  });
  let known = history;
  editor.on("history", (lines: string[]) => (known = [...lines]));
  editor.on("close", () => {
    closed = true;
    stop?.();
    settle(undefined);
  });
  const onInterrupt = () => {
    if (stop) return stop();
    if (editor.line !== "" || messages.begun) {
      clear(editor);
      messages.end();
      interrupted = false;
      process.stdout.write("\n");
      return ask();
    }
    if (interrupted) return editor.close();
    interrupted = true;
    process.stdout.write(`\n${dim("Ctrl-C once more, Ctrl-D or /exit leaves.")}\n`);
    ask();
  };
  editor.on("SIGINT", onInterrupt);
  // A SIGINT from another process also ends the reply, not the program.
  process.removeListener("SIGINT", interrupt);
  process.on("SIGINT", onInterrupt);
  const leave = () => editor.close();
  signal.addEventListener("abort", leave, { once: true });

  const line = async (): Promise<string | undefined> => {
    const typed = ready.shift();
    if (typed !== undefined) {
      await write(`${messages.begun ? MORE : PROMPT}${typed}\n`);
      return typed;
    }
    if (closed) return undefined;
    const typing = new Promise<string | undefined>((resolve) => (waiting = resolve));
    ask();
    return typing;
  };
  return {
    async next() {
      for (;;) {
        const typed = await line();
        if (typed === undefined) return undefined;
        const message = messages.push(typed);
        if (message !== undefined) return message;
      }
    },
    async during(stopWork, work) {
      stop = stopWork;
      muted = true;
      try {
        return await work();
      } finally {
        muted = false;
        stop = undefined;
        await writeHistory(historyFile, known);
      }
    },
    async close() {
      if (!closed) editor.close();
      process.stdin.removeListener("data", onPaste);
      process.removeListener("SIGINT", onInterrupt);
      signal.removeEventListener("abort", leave);
      await writeHistory(historyFile, known);
    },
  };
}

/** What Node's editor keeps of the screen: the rows between the prompt's and the cursor's. */
interface Rows {
  prevRows: number;
  _refreshLine(): void;
}

/**
 * Draws the line anew after several characters came at once: pasted, or written by an input method, as Chinese is.
 * Node's editor writes these straight to the screen and does not count the rows, so that its next redraw would begin
 * too low.
 */
function redraw(editor: Interface): void {
  const { rows, cols } = editor.getCursorPos();
  const internals = editor as unknown as Rows;
  // At the right edge a terminal wraps with the next character only.
  internals.prevRows = cols === 0 && rows > 0 ? rows - 1 : rows;
  internals._refreshLine();
}

/** To the end of the line, and back over all of it. */
function clear(editor: Interface): void {
  editor.write(null, { ctrl: true, name: "e" });
  editor.write(null, { ctrl: true, name: "u" });
}

/** Newest first, as the editor has it; the file has the oldest first. */
async function readHistory(path: string): Promise<string[]> {
  try {
    return (await readFile(path, "utf8")).split("\n").filter((line) => line !== "").toReversed();
  } catch {
    return [];
  }
}

/** Errors are ignored: the chat works without a saved history. */
async function writeHistory(path: string, lines: readonly string[]): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, lines.toReversed().join("\n") + "\n", { mode: 0o600 });
  } catch {
    // On a disk that is read only, for instance.
  }
}
