/** Server-sent events, as OpenAI's API sends them: `data:` lines of JSON, at the reader's pace. */

/** One event. */
export const event = (data: unknown, name?: string): string =>
  `${name === undefined ? "" : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`;

/** What ends a stream of events that nothing went wrong with. */
export const DONE = "data: [DONE]\n\n";

/** Events must pass proxies as they come. */
export const EVENT_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};

export interface EventStreamOptions {
  /** Ends the compute; called once, when the reader goes away. */
  cancel(): unknown;
  /**
   * Milliseconds of silence after which a comment is sent, so that neither a proxy nor a client takes the connection
   * for dead. Default 5,000; 0: never.
   */
  keepAliveMs?: number;
  /** Called when a reader has read nothing for `stallMs` milliseconds. What it reads after that is up to the events. */
  stalled?(): unknown;
  /** Default 0: a reader has all the time it wants. */
  stallMs?: number;
}

/** A reader that always comes just in time is cut off when events have waited for it so many times `stallMs`. */
const STALLS = 5;

const KEEP_ALIVE = ": keep-alive\n\n";
const SILENCE = Symbol("silence");

/**
 * Events as a web stream of UTF-8 bytes. One event is made for each read, none ahead. While a read waits, a comment is
 * sent every `keepAliveMs`.
 */
export function eventStream(events: AsyncIterator<string>, options: EventStreamOptions): ReadableStream<Uint8Array> {
  const { cancel, keepAliveMs = 5_000, stalled, stallMs = 0 } = options;
  const encoder = new TextEncoder();
  let next: Promise<IteratorResult<string>> | undefined;
  let over = false;
  const silence = new Alarm(keepAliveMs);
  const stall = new Alarm(stallMs);
  /** Milliseconds in which the events waited for the reader. */
  let [since, waited] = [performance.now(), 0];
  // A stream that nobody begins to read is not read either.
  stall.start(() => void stalled?.());
  const end = () => {
    over = true;
    silence.stop();
    stall.stop();
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        stall.stop();
        waited += performance.now() - since;
        if (stallMs > 0 && waited > STALLS * stallMs) stalled?.();
        next ??= events.next();
        const result = await Promise.race([next, new Promise<typeof SILENCE>((resolve) => silence.start(() => resolve(SILENCE)))]);
        silence.stop();
        if (over) return;
        if (result === SILENCE) return controller.enqueue(encoder.encode(KEEP_ALIVE));
        next = undefined;
        if (result.done) {
          end();
          return controller.close();
        }
        since = performance.now();
        stall.start(() => void stalled?.());
        controller.enqueue(encoder.encode(result.value));
      },
      async cancel() {
        end();
        // Not `events.return()`: that would wait for the token that a pending read waits for.
        await cancel();
      },
    },
    // Nothing is pulled before the first read.
    { highWaterMark: 0 },
  );
}

/** One timer for all waits of a stream: a new one for each token would cost more than the token's event. */
class Alarm {
  readonly #milliseconds: number;
  #timer: NodeJS.Timeout | undefined;
  #ring: (() => void) | undefined;

  /** 0: it never rings. */
  constructor(milliseconds: number) {
    this.#milliseconds = milliseconds;
  }

  start(ring: () => void): void {
    if (this.#milliseconds === 0) return;
    this.#ring = ring;
    // A timer that has run out can be started again, until it is cleared.
    if (this.#timer) this.#timer.refresh();
    else this.#timer = setTimeout(() => this.#ring?.(), this.#milliseconds).unref();
  }

  /** It does not ring; the timer may run out. */
  stop(): void {
    this.#ring = undefined;
  }
}
