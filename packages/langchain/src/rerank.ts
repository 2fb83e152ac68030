/** BERT as a document compressor of LangChain: documents in the order of how well they answer a query. */
import { Document, type DocumentInterface } from "@langchain/core/documents";
import { BaseDocumentCompressor } from "@langchain/core/retrievers/document_compressors";
import type { BERT, RerankOptions } from "candlewick";
import { bertSource, type LoadableBERT, type Source } from "candlewick/loadable";

export interface CandlewickRerankFields extends Pick<RerankOptions, "maxLength" | "truncate" | "functionToApply"> {
  /** A cross-encoder (a classifier with one label), or a model of embeddings. */
  model: LoadableBERT;
  /** How many documents come back. Default: all of them. */
  topN?: number;
}

export interface RerankedDocument {
  /** Among the documents that were given. */
  readonly index: number;
  /** Larger is better. */
  readonly relevanceScore: number;
}

/** `close()` closes the model, if it was loaded here. */
export class CandlewickRerank extends BaseDocumentCompressor implements AsyncDisposable {
  readonly topN: number | undefined;
  readonly #source: Source<BERT>;
  readonly #options: RerankOptions;

  constructor({ model, topN, ...options }: CandlewickRerankFields) {
    super();
    this.#source = bertSource(model);
    this.topN = topN;
    this.#options = options;
  }

  /** The best documents, best first, each a copy with `relevanceScore` in its metadata. */
  override async compressDocuments(documents: DocumentInterface[], query: string): Promise<DocumentInterface[]> {
    const ranked = await this.rerank(documents, query);
    return ranked.map(({ index, relevanceScore }) => {
      const { pageContent, metadata, id } = documents[index]!;
      return new Document({ pageContent, metadata: { ...metadata, relevanceScore }, id });
    });
  }

  /** The places of the best documents, best first. */
  async rerank(
    documents: readonly (string | DocumentInterface)[],
    query: string,
    { topN = this.topN, signal }: { topN?: number; signal?: AbortSignal } = {},
  ): Promise<RerankedDocument[]> {
    if (documents.length === 0) return [];
    const model = await this.#source.get();
    const texts = documents.map((document) => (typeof document === "string" ? document : document.pageContent));
    const ranked = await model.rerank({ query, documents: texts }, { ...this.#options, topK: topN, signal });
    return ranked.map(({ index, score }) => ({ index, relevanceScore: score }));
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
