/** BERT as a reranking model of the AI SDK. */
import { randomUUID } from "node:crypto";
import type { BERT, RerankOptions } from "candlewick";
import { callErrors } from "./errors.js";
import { ownOptions } from "./options.js";
import { CandlewickModel } from "./model.js";
import { PROVIDER, type Json, type RerankingCall, type Version, type Warning } from "./specification.js";

/** `providerOptions.candlewick` of a reranking model. */
export type RerankingOptions = Omit<RerankOptions, keyof typeof ELSEWHERE>;

const ELSEWHERE = {
  topK: "the AI SDK's setting for it is topN",
  signal: "the AI SDK's setting for it is abortSignal",
  onProgress: "call the model's own rerank() for it",
};

interface RerankResult {
  ranking: { index: number; relevanceScore: number }[];
  providerMetadata: Record<typeof PROVIDER, Json>;
  warnings: Warning[];
  response: { id: string; timestamp: Date; modelId: string };
}

/**
 * A BERT as `rerank` calls it: a cross-encoder, which reads query and document together, or a model of embeddings,
 * whose vectors of both are compared.
 */
export class CandlewickRerankingModel<V extends Version> extends CandlewickModel<V, BERT> {
  doRerank(call: RerankingCall): Promise<RerankResult> {
    const { modelId } = this;
    return callErrors(modelId, async () => {
      const { documents, query, topN, abortSignal: signal } = call;
      const options: RerankOptions = {
        ...ownOptions(call.providerOptions, ELSEWHERE),
        ...(topN !== undefined && { topK: topN }),
        ...(signal && { signal }),
      };
      const warnings: Warning[] = [];
      if (documents.type === "object") {
        warnings.push({ type: "compatibility", feature: "object documents", details: "The model reads them as JSON." });
      }
      const texts = documents.type === "text" ? documents.values : documents.values.map((value) => JSON.stringify(value));
      const model = await this.source.get(signal);
      const response = { id: `${PROVIDER}-${randomUUID()}`, timestamp: new Date(), modelId };
      const ranked = await model.rerank({ query, documents: texts }, options);
      const [first] = ranked;
      return {
        ranking: ranked.map(({ index, score }) => ({ index, relevanceScore: score })),
        providerMetadata: { [PROVIDER]: first ? { method: first.method } : {} },
        warnings,
        response,
      };
    });
  }
}
