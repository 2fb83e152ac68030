/** What a model is doing, for those who serve it: what `stats()` returns. */

/** The steps of a model: passes over its weights, each for all who take part in it. */
export interface StepStats {
  /** Steps since the load. */
  readonly count: number;
  /** Tokens computed a second, prompts included, over the last seconds of computing. */
  readonly tokensPerSecond: number;
  /** Tokens computed since the load, prompts included: what one reads twice to know the speed in between. */
  readonly totalTokens: number;
  /** Milliseconds that the steps since the load took together. */
  readonly totalMs: number;
  /**
   * Sequences that took part, summed over all steps since the load: divided by `count`, how many share a step. Of a
   * BERT they are its inputs.
   */
  readonly totalSequences: number;
  /** Tokens of the last step. */
  readonly lastTokens: number;
  /** Milliseconds that the last step took. */
  readonly lastMs: number;
  /** Since the end of the last step, or the load. Grows while a model that has something to do stands still. */
  readonly secondsSinceLast: number;
}

/** Of a GPT-2. */
export interface GPT2Stats {
  /** Sequences that run, those that are scored among them. */
  readonly running: number;
  /** Prompts that have not started, and sequences that wait for memory. */
  readonly waiting: number;
  /** Tokens of prompts that have not started: what `maxQueuedTokens` bounds. */
  readonly queuedTokens: number;
  /** Blocks of memory for keys and values: what `kvCacheBytes` bounds. */
  readonly blocks: number;
  /** Blocks that nothing is in. */
  readonly freeBlocks: number;
  /** Blocks that prompts to come may share, those of running sequences among them. Given up when memory is needed. */
  readonly prefixBlocks: number;
  /** Positions of a block. */
  readonly blockPositions: number;
  /** Bytes of a block. */
  readonly blockBytes: number;
  /** Tokens of all prompts that have started. */
  readonly promptTokens: number;
  /** Those of them that earlier sequences with the same beginning had computed. */
  readonly cachedTokens: number;
  /** Tokens that were guessed, and those of them that were right. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  /** How often a sequence was made to wait for memory. */
  readonly pauses: number;
  readonly steps: StepStats;
}

/** Of a BERT. */
export interface BERTStats {
  /** Calls that run. */
  readonly running: number;
  /** Their texts that have not run. */
  readonly waiting: number;
  /** Tokens of texts that have not run: what `maxQueuedTokens` bounds. */
  readonly queuedTokens: number;
  readonly steps: StepStats;
}
