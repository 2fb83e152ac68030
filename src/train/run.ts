import { abortError, CandlewickError } from "../errors.js";
import { EventStream } from "../event-stream.js";
import type { NativeFinetune } from "../native.js";
import { call, mailbox } from "../runtime.js";
import { warnOfSlowBf16 } from "../slow-bf16.js";
import { warnOfUnknown } from "../unknown-tokens.js";
import type { DoneEvent, FinetuneEvent } from "./events.js";

/** What runs: the native side, and what to let go of when it has ended. */
export interface Opened {
  readonly native: NativeFinetune;
  close(): Promise<void>;
}

export interface Beginning {
  readonly opened: Promise<Opened>;
  /** Ends the download and the reading of rows that come before a run. */
  readonly opening: AbortController;
  readonly output: string;
  /** The user's. */
  readonly signal: AbortSignal | undefined;
}

/**
 * A training run, which has begun. Iterate its events once, or await {@link result}.
 *
 * The run is some 250 events ahead of its reader at most, then it waits. {@link cancel} has it write a checkpoint and
 * end by the next layer; the events that say so still come. Leaving the loop cancels, and waits for the checkpoint. An
 * aborted signal cancels, and then ends the iteration with code `ABORTED`. A failure is thrown at the reader once and
 * rejects `result`, which is never unhandled.
 */
export class TrainingRun extends EventStream<FinetuneEvent, DoneEvent> {
  readonly #opened: Promise<Opened>;
  readonly #opening: AbortController;
  readonly #output: string;
  readonly #signal: AbortSignal | undefined;
  #done: DoneEvent | undefined;

  /** @internal */
  constructor({ opened, opening, output, signal }: Beginning) {
    super(opened.then(({ native }) => ({ next: () => nextEvents(native) })));
    this.#opened = opened;
    this.#opening = opening;
    this.#output = output;
    this.#signal = signal;
    // Not weak: a run goes on when nobody holds this object, and must still end with the signal.
    if (signal) this.listen(signal, () => this.cancel());
  }

  /**
   * The run writes a checkpoint and ends, with `finishReason: "cancelled"`; one that has not begun, because a model is
   * downloaded or rows are read, never does. Harmless when it has ended.
   */
  cancel(): void {
    this.#opening.abort();
    this.#opened.then(({ native }) => native.cancel()).catch(() => {});
  }

  /**
   * The last event. Asking for it runs on to the end, with or without a reader; a reader that iterates sets the pace
   * again as soon as it reads on. Events of a run that nobody reads are not kept.
   */
  override get result(): Promise<DoneEvent> {
    return super.result;
  }

  protected override arrived(events: readonly FinetuneEvent[]): readonly FinetuneEvent[] {
    this.#done = events.find((event) => event.type === "done") ?? this.#done;
    for (const event of events) {
      if (event.type !== "start") continue;
      warnOfUnknown("finetune", event.unknownTokens);
      if (event.precision === "bf16") warnOfSlowBf16("precision", event.instructionSet);
    }
    return this.isRead ? events : [];
  }

  protected override exhausted(): void {
    const cancelled = (this.#done?.finishReason ?? "cancelled") === "cancelled";
    this.end(this.#signal?.aborted && cancelled ? abortError(this.#signal) : undefined);
  }

  protected override end(failure?: CandlewickError): void {
    if (failure?.code !== "ABORTED" || this.#signal?.aborted || this.ended) return super.end(failure);
    // Cancelled before it began, by `cancel()`, which is quiet.
    this.#done = this.#nothing();
    super.end(undefined, { last: this.isRead ? [this.#done] : [] });
  }

  /** The end of a run that was cancelled before it began. */
  #nothing(): DoneEvent {
    const nothing = { loss: null, bestStep: null, bestMetric: null, tokens: 0, seconds: 0 };
    return { type: "done", step: 0, epoch: 0, finishReason: "cancelled", output: this.#output, ...nothing };
  }

  protected async finish(failure: CandlewickError | undefined): Promise<DoneEvent> {
    const opened = await this.#opened.catch(() => undefined);
    await opened?.close();
    if (failure) throw failure;
    return this.#done!;
  }
}

async function nextEvents(native: NativeFinetune): Promise<FinetuneEvent[] | null> {
  const text = await call<string | null | undefined>((id) => native.next(mailbox, id));
  return typeof text === "string" ? (JSON.parse(text) as FinetuneEvent[]) : null;
}
