/** The past answers, kept in SQLite by a worker (store-worker.ts). */
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import type { Language } from "./language.js";

export type { Language } from "./language.js";

/** An answer to be kept. */
export interface Draft {
  language: Language;
  question: string;
  answer: string;
  /** Of the question, where the language has a model for it. */
  vector?: Float32Array;
}

export interface Answer {
  id: number;
  question: string;
  answer: string;
  /** ISO 8601. */
  created: string;
}

/** An answer that was found, and how near its question is: 0 to 1. */
export interface Hit extends Answer {
  score: number;
}

export interface Store {
  /** Their ids. An answer that is there already is not there twice. */
  add(drafts: readonly Draft[]): Promise<number[]>;
  /** In the order of `ids`. */
  get(ids: readonly number[]): Promise<Answer[]>;
  count(): Promise<number>;
  /** All of a language, in the order of their ids. */
  of(language: Language): Promise<{ id: number; question: string; vector: Float32Array | undefined }[]>;
  setVectors(vectors: readonly { id: number; vector: Float32Array }[]): Promise<void>;
  /** Best first: answers whose questions have characters and pairs of characters of the text. */
  findWords(language: Language, text: string, limit: number): Promise<Hit[]>;
  close(): Promise<void>;
}

/** @param file of the database; it is made if it is not there. `":memory:"` is one that ends with the store. */
export function openStore(file: string): Store {
  // Of the ways to have TypeScript in a worker this one works on every Node.
  const script = JSON.stringify(join(__dirname, "store-worker.ts"));
  const worker = new Worker(`require("tsx/cjs"); require(${script});`, { eval: true, execArgv: [], workerData: file });
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let calls = 0;
  let ended: Error | undefined;
  const end = (error: Error) => {
    ended ??= error;
    for (const { reject } of waiting.values()) reject(ended);
    waiting.clear();
    worker.unref();
  };
  worker.on("message", ({ call, value, error }: { call: number; value?: unknown; error?: string }) => {
    const caller = waiting.get(call);
    waiting.delete(call);
    if (error === undefined) caller?.resolve(value);
    else caller?.reject(new Error(error));
  });
  worker.on("error", end);
  worker.on("exit", () => end(new Error("the store is closed")));

  const ask = (name: string, given: unknown[]) =>
    new Promise<unknown>((resolve, reject) => {
      if (ended) return reject(ended);
      waiting.set(++calls, { resolve, reject });
      worker.postMessage({ call: calls, name, given });
    });
  const names = ["add", "get", "count", "of", "setVectors", "findWords", "close"] satisfies (keyof Store)[];
  return Object.fromEntries(names.map((name) => [name, (...given: unknown[]) => ask(name, given)])) as unknown as Store;
}
