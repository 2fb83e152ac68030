/**
 * How much work is taken on for a model. A request costs the tokens that it may have the model compute; those of the
 * requests that are under way may take the model `maxWaitMs` at most, by its speed so far. Who would wait longer is
 * told when to come again, and has a place then: newcomers do not take it.
 */
import { busy, invalid } from "./errors.js";

export interface GateOptions {
  /** Milliseconds of work that may be under way. */
  readonly maxWaitMs: number;
  /** Tokens that may be under way at any speed, so that a model which has just started, or is slow, has a batch. */
  readonly leastTokens: number;
  /** Tokens that one request may ask for. */
  readonly mostOfOne: number;
  /** The model's own tokens a second, until requests have ended and the gate has measured it; 0: not known. */
  readonly modelSpeed?: () => number;
  readonly now?: () => number;
}

/** A promise to one who was refused. */
interface Appointment {
  readonly caller: string;
  readonly from: number;
  readonly until: number;
  readonly tokens: number;
}

/** How long a place is kept for one who comes late. */
const KEPT_MS = 10_000;
/**
 * Who has a place gets in up to so many times the bound, and waits inside: clients heed no wait of a minute or more, so
 * that in a long rush more are told to come than there is room for then.
 */
const OVER = 5;
/** Places that are promised at most: each is some hundred bytes. */
const MOST_APPOINTMENTS = 10_000;
const LONGEST_WAIT_MS = 59_000;
/** Of those who were promised a place not all come. How much the last one counts for the share that does. */
const LAST_COUNTS = 0.02;
const LEAST_SHARE = 0.05;
/** The speed is that of the last so many milliseconds, about. */
const SPEED_WINDOW_MS = 20_000;

export class Gate {
  readonly #options: GateOptions;
  readonly #now: () => number;
  /** Tokens of requests that are under way. */
  #tokens = 0;
  #appointments = new Map<string, Appointment>();
  /** Of each caller that has something under way or a place: tokens under way, and places. */
  readonly #callers = new Map<string, { tokens: number; places: number }>();
  /** Tokens a second that were finished, while there was work; 0: not known yet. */
  #speed = 0;
  #finished = 0;
  /** The share of promises that are kept. */
  #kept = 1;
  #measuredFrom: number | undefined;

  constructor(options: GateOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** Tokens that are under way. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Tokens that may be under way. */
  get bound(): number {
    return Math.max(this.#options.leastTokens, (this.#tokensPerSecond * this.#options.maxWaitMs) / 1_000);
  }

  get #tokensPerSecond(): number {
    // Texts that end early make the gate's own speed the higher one; requests that are left, the model's.
    return Math.max(this.#speed, this.#options.modelSpeed?.() ?? 0);
  }

  /**
   * Lets a request in; returns what must be called when it has ended, with the tokens of it that were done, by default
   * all. `identity` recognises it when it comes again: who asked, and what. What may be under way above the bound, and
   * the places, are shared out among callers: many requests of one leave the others theirs.
   *
   * @throws {ApiError} 429, with when to come again; 400 if it costs more than may ever be under way.
   */
  enter(tokens: number, identity: () => string, caller = ""): (done?: number) => void {
    const now = this.#now();
    const { mostOfOne } = this.#options;
    if (tokens > mostOfOne) {
      throw invalid(`The request asks for ${tokens} tokens in all; at most ${mostOfOne} may be asked for.`, undefined, "too_many_tokens");
    }
    this.#forget(now);
    const name = this.#appointments.size > 0 ? identity() : undefined;
    const own = name === undefined ? undefined : this.#appointments.get(name);
    const due = own !== undefined && now >= own.from;
    // A place that is kept is no reason to stand still: who was promised it gets in above the bound.
    const idle = this.#tokens + tokens <= this.bound / 2;
    const promised = due || idle ? 0 : this.#promised();
    const most = due ? this.bound * OVER : this.bound;
    const full = this.#tokens + promised + tokens > most;
    const above = this.#tokens + tokens > this.bound;
    const part = Math.max(this.bound, most / Math.max(1, this.#callers.size));
    const greedy = due && above && (this.#callers.get(caller)?.tokens ?? 0) + tokens > part;
    if (this.#tokens > 0 && (full || greedy)) {
      throw busy("Too much is asked of this model at present.", this.#appoint(now, tokens, name ?? identity(), caller));
    }
    if (own !== undefined) {
      this.#withdraw(name!, own);
      this.#came(1);
    }
    this.#begin(now);
    this.#tokens += tokens;
    this.#count(caller, tokens, 0);
    let inside = true;
    return (done = tokens) => {
      if (!inside) return;
      inside = false;
      this.#tokens -= tokens;
      this.#count(caller, -tokens, 0);
      this.#finish(Math.min(done, tokens));
    };
  }

  /** Tokens of all who have a place, as far as they will come. */
  #promised(): number {
    let sum = 0;
    for (const { tokens } of this.#appointments.values()) sum += tokens;
    return sum * this.#kept;
  }

  #came(came: 0 | 1): void {
    this.#kept = Math.max(LEAST_SHARE, this.#kept + (came - this.#kept) * LAST_COUNTS);
  }

  #count(caller: string, tokens: number, places: number): void {
    const own = this.#callers.get(caller) ?? { tokens: 0, places: 0 };
    own.tokens += tokens;
    own.places += places;
    if (own.tokens > 0 || own.places > 0) this.#callers.set(caller, own);
    else this.#callers.delete(caller);
  }

  #withdraw(name: string, { caller }: Appointment): void {
    this.#appointments.delete(name);
    this.#count(caller, 0, -1);
  }

  /** Milliseconds after which there will be a place. */
  #appoint(now: number, tokens: number, name: string, caller: string): number {
    const before = this.#appointments.get(name);
    // One who comes too early keeps the place that was promised.
    if (before && now < before.from) return before.from - now;
    if (before) this.#withdraw(name, before);
    const ahead = this.#tokens + this.#promised() + tokens - this.bound;
    const speed = this.#tokensPerSecond || this.#options.leastTokens / 10;
    // Not all who are told the longest wait come at once.
    const longest = LONGEST_WAIT_MS * (0.8 + 0.2 * Math.random());
    const wait = Math.min(Math.max((ahead / speed) * 1_000, 1_000), longest);
    const most = MOST_APPOINTMENTS / Math.max(1, this.#callers.size);
    if ((this.#callers.get(caller)?.places ?? 0) < most) {
      this.#appointments.set(name, { caller, from: now + wait, until: now + wait * 1.2 + KEPT_MS, tokens });
      this.#count(caller, 0, 1);
    }
    return wait;
  }

  #forget(now: number): void {
    for (const [name, appointment] of this.#appointments) {
      if (appointment.until >= now) continue;
      this.#withdraw(name, appointment);
      this.#came(0);
    }
  }

  /** The clock runs while there is work. */
  #begin(now: number): void {
    if (this.#tokens === 0) this.#measuredFrom = now;
  }

  #finish(tokens: number): void {
    this.#finished += tokens;
    const now = this.#now();
    const elapsed = now - (this.#measuredFrom ?? now);
    if (elapsed < 1_000) return;
    const speed = (this.#finished * 1_000) / elapsed;
    const weight = this.#speed === 0 ? 1 : Math.min(1, elapsed / SPEED_WINDOW_MS);
    this.#speed += (speed - this.#speed) * weight;
    this.#finished = 0;
    this.#measuredFrom = now;
  }
}
