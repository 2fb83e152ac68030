/**
 * The AI SDK's interfaces of models. Its version 7 reads `"v4"`, its version 6 `"v3"`. What Candlewick's models take
 * and give is the same in both.
 */
import type {
  EmbeddingModelV4CallOptions,
  LanguageModelV4CallOptions,
  LanguageModelV4Prompt,
  RerankingModelV4CallOptions,
} from "@ai-sdk/provider" with { "resolution-mode": "import" };
import type {
  EmbeddingModelV3CallOptions,
  JSONObject,
  LanguageModelV3CallOptions,
  LanguageModelV3Prompt,
  RerankingModelV3CallOptions,
} from "@ai-sdk/provider-v3";

export type Version = "v3" | "v4";

export type LanguageCall = LanguageModelV3CallOptions | LanguageModelV4CallOptions;
export type Prompt = LanguageModelV3Prompt | LanguageModelV4Prompt;
export type EmbeddingCall = EmbeddingModelV3CallOptions | EmbeddingModelV4CallOptions;
export type RerankingCall = RerankingModelV3CallOptions | RerankingModelV4CallOptions;

export type Json = JSONObject;

/** What a call asked for and does not get, where the answer means the same without it. */
export type Warning =
  | { readonly type: "unsupported"; readonly feature: string; readonly details?: string }
  | { readonly type: "compatibility"; readonly feature: string; readonly details?: string };

/** By which the AI SDK names options and metadata of a provider's own. */
export const PROVIDER = "candlewick";
