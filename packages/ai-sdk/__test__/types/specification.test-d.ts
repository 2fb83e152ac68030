/** That the models are what the AI SDK's interfaces say. */
import type { EmbeddingModelV4, LanguageModelV4, ProviderV4, RerankingModelV4 } from "@ai-sdk/provider" with { "resolution-mode": "import" };
import type { EmbeddingModelV3, LanguageModelV3, ProviderV3, RerankingModelV3 } from "@ai-sdk/provider-v3";
import { expectTypeOf, test } from "vitest";
import type * as v4 from "../../index.js";
import type * as v3 from "../../v3.js";

type Made<Exports extends { createCandlewick: (...options: never[]) => unknown }> = ReturnType<Exports["createCandlewick"]>;

test("version 7 of ai gets models of v4", () => {
  expectTypeOf<Made<typeof v4>>().toExtend<ProviderV4>();
  expectTypeOf<ReturnType<typeof v4.languageModel>>().toExtend<LanguageModelV4>();
  expectTypeOf<ReturnType<typeof v4.embeddingModel>>().toExtend<EmbeddingModelV4>();
  expectTypeOf<ReturnType<typeof v4.rerankingModel>>().toExtend<RerankingModelV4>();
  expectTypeOf<ReturnType<typeof v4.languageModel>>().not.toExtend<LanguageModelV3>();
});

test("version 6 of ai gets models of v3", () => {
  expectTypeOf<Made<typeof v3>>().toExtend<ProviderV3>();
  expectTypeOf<ReturnType<typeof v3.languageModel>>().toExtend<LanguageModelV3>();
  expectTypeOf<ReturnType<typeof v3.embeddingModel>>().toExtend<EmbeddingModelV3>();
  expectTypeOf<ReturnType<typeof v3.rerankingModel>>().toExtend<RerankingModelV3>();
});

test("an option of its own is checked", () => {
  expectTypeOf<v4.LanguageOptions>().toHaveProperty("minP");
  expectTypeOf<v4.LanguageOptions>().not.toHaveProperty("temperature");
  expectTypeOf<v4.EmbeddingOptions>().not.toHaveProperty("precision");
});
