/** What a language, an embedding and a reranking model have in common. */
import type { Source } from "candlewick/loadable";
import { PROVIDER, type Version } from "./specification.js";

export abstract class CandlewickModel<V extends Version, Model> implements AsyncDisposable {
  readonly provider = PROVIDER;
  readonly modelId: string;
  /** @internal */
  protected readonly source: Source<Model>;

  /** @internal */
  constructor(
    readonly specificationVersion: V,
    source: Source<Model>,
  ) {
    this.modelId = source.modelId;
    this.source = source;
  }

  /** Closes the model, if it was loaded for this alone. */
  close(): Promise<void> {
    return this.source.close();
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
