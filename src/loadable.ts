/**
 * `candlewick/loadable`: a model that is there already, or that is loaded when it is first used. For packages that give
 * models to other libraries.
 */
import { BERT, loadBERT } from "./bert.js";
import { CandlewickError } from "./errors.js";
import { GPT2, loadGPT2, type GPT2LoadOptions } from "./gpt2.js";
import type { LoadOptions } from "./load.js";
import { publicName } from "./public-name.js";

/** A loaded GPT-2, or what `loadGPT2` takes, perhaps with its options. */
export type LoadableGPT2 = GPT2 | string | ({ readonly source: string } & Omit<GPT2LoadOptions, "signal">);
/** A loaded BERT, or what `loadBERT` takes, perhaps with its options. */
export type LoadableBERT = BERT | string | ({ readonly source: string } & Omit<LoadOptions, "signal">);

export interface Source<Model> {
  /** By which logs and responses name the model; no path of this machine. */
  readonly modelId: string;
  /** What the model is, or will be, loaded from. */
  readonly source: string;
  /** The model. Aborting the signal ends the wait alone: others may wait for the same model. */
  get(signal?: AbortSignal): Promise<Model>;
  /** Closes the model, if it was loaded here. */
  close(): Promise<void>;
}

export const gpt2Source = (given: LoadableGPT2, modelId?: string): Source<GPT2> =>
  given instanceof GPT2 ? existing(given, modelId) : new Lazy(placeOf(given, "GPT-2"), loadGPT2, modelId);

export const bertSource = (given: LoadableBERT, modelId?: string): Source<BERT> =>
  given instanceof BERT ? existing(given, modelId) : new Lazy(placeOf(given, "BERT"), loadBERT, modelId);

/** Where a model is loaded from, and its options. */
function placeOf<Options extends object>(given: string | ({ readonly source: string } & Options), kind: string) {
  const place = typeof given === "string" ? { source: given } : given;
  if (typeof place?.source !== "string" || place instanceof GPT2 || place instanceof BERT) {
    throw new CandlewickError("OPTION_INVALID", `Expected a loaded ${kind}, or what one is loaded from`);
  }
  return place as { readonly source: string } & Options;
}

/** The same model, which someone else closes. */
export const borrowed = <Model>(lent: Source<Model>): Source<Model> => ({
  modelId: lent.modelId,
  source: lent.source,
  get: (signal) => lent.get(signal),
  close: async () => {},
});

const existing = <Model extends GPT2 | BERT>(model: Model, modelId = publicName(model.source)): Source<Model> => ({
  modelId,
  source: model.source,
  get: async () => model,
  close: async () => {},
});

class Lazy<Model extends AsyncDisposable, Options extends object> implements Source<Model> {
  readonly modelId: string;
  readonly source: string;
  readonly #options: Options;
  readonly #load: (source: string, options: Options) => Promise<Model>;
  #model: Promise<Model> | undefined;
  #closed = false;

  constructor(place: { readonly source: string } & Options, load: (source: string, options: Options) => Promise<Model>, modelId?: string) {
    const { source, ...options } = place;
    this.source = source;
    this.#options = options as unknown as Options;
    this.#load = load;
    this.modelId = modelId ?? publicName(source);
  }

  async get(signal?: AbortSignal): Promise<Model> {
    if (this.#closed) throw new CandlewickError("MODEL_CLOSED", `The model ${this.source} is closed`);
    return unlessAborted((this.#model ??= this.#begin()), signal);
  }

  #begin(): Promise<Model> {
    const model = this.#load(this.source, this.#options);
    // A load that has failed is tried again by the next call: what was missing may be there then.
    model.catch(() => (this.#model = undefined));
    return model;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const model = await this.#model?.catch(() => undefined);
    await model?.[Symbol.asyncDispose]();
  }
}

/** Rejects with `ABORTED` as soon as the signal is aborted. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  const aborted = () => new CandlewickError("ABORTED", "The operation was aborted", { cause: signal.reason });
  if (signal.aborted) throw aborted();
  let listener = () => {};
  const abort = new Promise<never>((_, reject) => signal.addEventListener("abort", (listener = () => reject(aborted()))));
  try {
    return await Promise.race([work, abort]);
  } finally {
    signal.removeEventListener("abort", listener);
  }
}
