/** Progress bars: on a terminal, and never in a pipe. */
import { MultiBar, Presets, type SingleBar } from "cli-progress";
import type { LoadProgress } from "../load.js";
import { write } from "./terminal.js";

/** The terminal that bars are drawn on; rows share it if standard output is one. */
const terminal = [process.stdout, process.stderr].find((stream) => stream.isTTY);

const open = (stream: NodeJS.WriteStream, format: string): MultiBar =>
  new MultiBar({ stream, format, clearOnComplete: true, hideCursor: true, barsize: 24, etaBuffer: 50 }, Presets.shades_classic);

/** How far a command is, and the rows that it writes meanwhile. */
export class Progress {
  readonly #bars: MultiBar | undefined;
  readonly #bar: SingleBar | undefined;

  /**
   * `total` in whatever is counted (rows, bytes, steps); 0 if nobody knows. `unit` names the count that is shown;
   * `details` go behind it, with `{names}` of what `update` is given.
   */
  constructor(total: number, unit: string, details = "{duration_formatted}") {
    if (!terminal) return;
    const known = total > 0;
    this.#bars = open(terminal, `${known ? "{bar} {percentage}%  " : ""}{count} ${unit}  ${details}`);
    this.#bar = this.#bars.create(total, 0, { count: 0 });
  }

  /** `value` is out of `total`; `count` is what is shown. */
  update(value: number, count: number | string = value, details: object = {}): void {
    this.#bar?.update(value, { count, ...details });
  }

  /** A line of the command's output; goes above the bar where both are on one terminal. */
  row(text: string): Promise<void> | undefined {
    if (this.#bars && terminal === process.stdout) return void this.#bars.log(`${text}\n`);
    return write(`${text}\n`);
  }

  /** A line for the person at the terminal: above the bar, or on standard error. */
  note(text: string): void {
    if (this.#bars) this.#bars.log(`${text}\n`);
    else console.error(text);
  }

  stop(): void {
    // What was logged since the last frame is drawn with this one.
    this.#bars?.update();
    this.#bars?.stop();
  }
}

/** A listener for `onProgress` of a load; none without a terminal. */
export function loading(): ((progress: LoadProgress) => void) | undefined {
  if (!terminal) return undefined;
  let bars: MultiBar | undefined;
  const files = new Map<string, SingleBar>();
  return (progress) => {
    const name = progress.stage === "download" ? progress.file : "weights";
    bars ??= open(terminal, "{name} {bar} {percentage}%");
    let bar = files.get(name);
    if (!bar) files.set(name, (bar = bars.create(progress.total, 0, { name })));
    bar.update(progress.loaded, { name });
    const over = [...files.values()].every((one) => one.getProgress() >= 1);
    if (over) {
      bars.stop();
      bars = undefined;
      files.clear();
    }
  };
}
