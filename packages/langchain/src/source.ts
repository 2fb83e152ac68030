/** A model that is there already, or that is loaded when it is first used. */
import { BERT, CandlewickError, GPT2, loadBERT, loadGPT2, type GPT2LoadOptions, type LoadOptions } from "candlewick";

/** A loaded GPT-2, or what `loadGPT2` takes, perhaps with its options. */
export type LoadableGPT2 = GPT2 | string | ({ readonly source: string } & Omit<GPT2LoadOptions, "signal">);
/** A loaded BERT, or what `loadBERT` takes, perhaps with its options. */
export type LoadableBERT = BERT | string | ({ readonly source: string } & Omit<LoadOptions, "signal">);

/** What a class of this package runs on. */
export class Source<Model extends GPT2 | BERT> {
  /** What the model is, or will be, loaded from. */
  readonly name: string;
  readonly #load: () => Promise<Model>;
  /** Whether a model that is loaded is closed here. */
  readonly #owned: boolean;
  #model: Promise<Model> | undefined;
  #closed = false;

  private constructor(name: string, load: () => Promise<Model>, owned: boolean) {
    this.name = name;
    this.#load = load;
    this.#owned = owned;
  }

  static ofGPT2(given: LoadableGPT2): Source<GPT2> {
    return given instanceof GPT2 ? Source.#ofLoaded(given) : Source.#ofPlace(given, "GPT-2", loadGPT2);
  }

  static ofBERT(given: LoadableBERT): Source<BERT> {
    return given instanceof BERT ? Source.#ofLoaded(given) : Source.#ofPlace(given, "BERT", loadBERT);
  }

  static #ofLoaded<Model extends GPT2 | BERT>(model: Model): Source<Model> {
    return new Source(model.source, async () => model, false);
  }

  static #ofPlace<Model extends GPT2 | BERT>(given: unknown, kind: string, load: (source: string, options: object) => Promise<Model>): Source<Model> {
    const { source, ...options } = (typeof given === "string" ? { source: given } : (given ?? {})) as { source?: unknown };
    if (typeof source !== "string" || given instanceof GPT2 || given instanceof BERT) {
      throw new CandlewickError("OPTION_INVALID", `model must be a loaded ${kind}, or what one is loaded from`);
    }
    return new Source(source, () => load(source, options), true);
  }

  get(): Promise<Model> {
    if (this.#closed) return Promise.reject(new CandlewickError("MODEL_CLOSED", `The model ${this.name} is closed`));
    if (!this.#model) {
      this.#model = this.#load();
      // A load that has failed is tried again by the next call: what was missing may be there then.
      this.#model.catch(() => (this.#model = undefined));
    }
    return this.#model;
  }

  async close(): Promise<void> {
    if (!this.#owned) return;
    this.#closed = true;
    const model = await this.#model?.catch(() => undefined);
    await model?.close();
  }
}
