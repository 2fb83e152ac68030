/** What the programs print: what a user of a client saw, case by case, in the same form for every client. */

/** An error as the client's own classes tell it. */
export interface Failure {
  /** Names of its classes, from its own to the most general one. */
  readonly classes: readonly string[];
  readonly message: string;
  readonly status?: number | null;
  readonly code?: string | null;
  readonly param?: string | null;
  readonly type?: string | null;
  /** The header `retry-after`. */
  readonly retryAfter?: string | null;
}

export interface Usage {
  readonly prompt: number;
  readonly completion: number;
  readonly total: number;
}

/** One question, asked twice: with and without `stream`. */
export interface Answered {
  readonly text: string;
  readonly finish: string;
  readonly usage: Usage;
  readonly deltas: readonly string[];
  readonly streamedFinish: string;
  readonly streamedUsage: Usage;
}

export interface Retried {
  readonly text: string;
  readonly requests: number;
  readonly ms: number;
}

/** An answer that was left in the middle. */
export interface Left {
  /** Sequences that ran before, and milliseconds until none did. */
  readonly before: number;
  readonly ms: number;
}

/** Of all programs. Records are by route: `completions`, `chat`, `responses`, those that the client has. */
export interface Outcome {
  readonly answered: Readonly<Record<string, Answered>>;
  /** Of the model that recites. */
  readonly recited: Readonly<Record<string, Answered>>;
  readonly length: Readonly<Record<string, string>>;
  readonly stopped: Readonly<Record<string, { text: string; joined: string; finish: string }>>;
  readonly embeddings: { vectors: number[][]; one: number[]; asked: string | null };
  /** By what was wrong. */
  readonly errors: Readonly<Record<string, Failure | null>>;
  /** Of a stream that the server ended in its middle: what came before, and the error. */
  readonly torn: Readonly<Record<string, { pieces: number; error: Failure | null }>>;
  readonly timeout: { error: Failure | null; ms: number };
  readonly left: Readonly<Record<string, Left>>;
  readonly retried: Retried;
}

/** Of OpenAI's own clients, beside that. */
export interface OfficialOutcome extends Outcome {
  readonly models: { ids: string[]; one: string };
  /** A stream in two parts: places of a cut, and those where the client did not read what it reads of the whole. */
  readonly cuts: { places: number; wrong: number[]; text: string };
  /** Chunks of a stream without `include_usage` that had a `usage`, or no choices. */
  readonly unasked: number;
  /** With it: the `usage` of each chunk but the last, which are null, and the choices of the last. */
  readonly asked: { nulls: boolean; lastChoices: number };
  /** By route: of a model that writes, and of the one that recites. */
  readonly logprobs: Readonly<Record<string, Readonly<Record<"written" | "recited", { whole: any; streamed: any }>>>>;
  readonly samples: { whole: string[]; streamed: string[] };
  /** With `encoding_format: "float"`. */
  readonly floats: number[][];
}
