/** A contender's process: kept alive, asked for one thing at a time. workers/protocol.mjs is the other end. */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

export class Child {
  readonly #process: ChildProcess;
  #waiting: { resolve(result: unknown): void; reject(error: Error): void } | undefined;
  #ended: Error | undefined;
  #errors = "";

  /** `log`: hears what the child writes to standard error. */
  constructor(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}, log?: (text: string) => void) {
    this.#process = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["pipe", "pipe", "pipe"] });
    createInterface({ input: this.#process.stdout! }).on("line", (line) => this.#answer(line));
    this.#process.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#errors = (this.#errors + text).slice(-2000);
      log?.(text);
    });
    this.#process.stdin!.on("error", () => {});
    this.#process.on("error", (error) => this.#end(error));
    this.#process.on("close", (code, signal) => this.#end(new Error(`ended with ${signal ?? code}${this.#lastWords()}`)));
  }

  /** @throws What went wrong in the child, a child that has ended, or a child that takes more than `seconds`. */
  async ask<T>(op: string, args: object = {}, seconds = 300): Promise<T> {
    if (this.#ended) throw this.#ended;
    const timer = setTimeout(() => {
      this.#end(new Error(`no answer to ${op} in ${seconds} s`));
      this.kill();
    }, seconds * 1000);
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#waiting = { resolve: resolve as (result: unknown) => void, reject };
        this.#process.stdin!.write(`${JSON.stringify({ op, args })}\n`);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether it has ended, or was given up. */
  get ended(): boolean {
    return this.#ended !== undefined;
  }

  kill(): void {
    this.#process.kill("SIGKILL");
  }

  #answer(line: string): void {
    if (!line.startsWith('{"result"') && !line.startsWith('{"error"')) return;
    const answer = JSON.parse(line) as { result?: unknown; error?: string };
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (answer.error === undefined) waiting?.resolve(answer.result);
    else waiting?.reject(new Error(answer.error));
  }

  #end(error: Error): void {
    this.#ended ??= error;
    this.#waiting?.reject(this.#ended);
    this.#waiting = undefined;
  }

  #lastWords(): string {
    const last = this.#errors.trim().split("\n").findLast((line) => /error|cannot|no module/i.test(line));
    return last ? `: ${last.trim()}` : "";
  }
}
