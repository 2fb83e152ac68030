/** What all commands share of the process: output, colours, and Ctrl-C. */

const colours = process.stdout.isTTY && process.stdout.hasColors() && !process.env["NO_COLOR"];
const style = (code: number) => (text: string) => (colours ? `\x1b[${code}m${text}\x1b[0m` : text);
export const [bold, dim] = [style(1), style(2)];

/** A line for the person at the terminal, on standard error: nothing of it gets into a pipe or a file. */
export const note = (text: string): void => void process.stderr.write(`${text}\n`);

/** Writes to standard output, and waits while the terminal or the pipe is full. */
export function write(text: string): Promise<void> | undefined {
  if (process.stdout.write(text)) return undefined;
  return new Promise((resolve) => process.stdout.once("drain", resolve));
}

const abort = new AbortController();
/** Aborted by Ctrl-C; every command passes it on to what it calls. */
export const signal: AbortSignal = abort.signal;
export const interrupt = (): void => abort.abort();
