/** For version 7 of `ai`; `./v3.js` is for version 6. */
import { forVersion } from "./src/candlewick.js";

export type { Candlewick, CandlewickOptions, ModelOf } from "./src/candlewick.js";
export type { CandlewickEmbeddingModel, EmbeddingOptions } from "./src/embedding-model.js";
export type { CandlewickLanguageModel, LanguageOptions } from "./src/language-model.js";
export type { CandlewickRerankingModel, RerankingOptions } from "./src/reranking-model.js";
export type { LoadableBERT, LoadableGPT2 } from "candlewick/loadable";

export const { createCandlewick, languageModel, embeddingModel, rerankingModel } = forVersion("v4");
