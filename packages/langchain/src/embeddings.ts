/** BERT as embeddings of LangChain. */
import { Embeddings, type EmbeddingsParams } from "@langchain/core/embeddings";
import type { BERT, EmbedOptions } from "candlewick";
import { onlyQueueFull } from "./retries.js";
import { bertSource, type LoadableBERT, type Source } from "candlewick/loadable";

export interface CandlewickEmbeddingsFields extends EmbeddingsParams, Pick<EmbedOptions, "normalize" | "dimensions" | "maxLength" | "truncate"> {
  model: LoadableBERT;
  /** How token vectors become one. Default: what the model's files say, else their mean. */
  pooling?: Exclude<EmbedOptions["pooling"], "none">;
  /** Goes before each query. Default: the model's prompt named `query`, if it has one. */
  queryPrompt?: string;
  /** Goes before each document. Default: the model's prompt named `document`, `passage` or `corpus`, if it has one. */
  documentPrompt?: string;
}

/** `close()` closes the model, if it was loaded here. */
export class CandlewickEmbeddings extends Embeddings implements AsyncDisposable {
  readonly #source: Source<BERT>;
  readonly #options: EmbedOptions;
  readonly #queryPrompt: string | undefined;
  readonly #documentPrompt: string | undefined;

  constructor({ model, queryPrompt, documentPrompt, maxConcurrency, maxRetries, onFailedAttempt = onlyQueueFull, ...options }: CandlewickEmbeddingsFields) {
    super({ maxConcurrency, maxRetries, onFailedAttempt });
    this.#source = bertSource(model);
    this.#options = options;
    this.#queryPrompt = queryPrompt;
    this.#documentPrompt = documentPrompt;
  }

  override async embedQuery(text: string): Promise<number[]> {
    const [vector] = await this.#embed([text], this.#queryPrompt, ["query"]);
    return vector!;
  }

  override embedDocuments(texts: string[]): Promise<number[][]> {
    return this.#embed(texts, this.#documentPrompt, ["document", "passage", "corpus"]);
  }

  async #embed(texts: string[], prompt: string | undefined, names: readonly string[]): Promise<number[][]> {
    if (texts.length === 0) return [];
    const model = await this.#source.get();
    const promptName = prompt === undefined ? names.find((name) => Object.hasOwn(model.info.sentences.prompts, name)) : undefined;
    const rows = await this.caller.call(() => model.embed(texts, { ...this.#options, prompt, promptName }));
    return rows.map((row) => Array.from(row as Float32Array));
  }

  /** Closes the model, if it was loaded here. */
  close(): Promise<void> {
    return this.#source.close();
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
