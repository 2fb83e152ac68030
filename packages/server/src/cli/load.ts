/** Loads a model of either kind, whatever its files say it is. */
import { type BERT, CandlewickError, type GPT2, loadBERT, loadGPT2 } from "candlewick";
import type { ModelConfig } from "./config.js";

/** Tokens of texts that may wait for a BERT, and prompts for a GPT-2: seconds of work, not the library's hours. */
const MAX_QUEUED_TOKENS = 262_144;
const MAX_QUEUED_REQUESTS = 1_024;

/** `generatorBytes`: of a GPT-2 that does not say itself how many bytes it has for keys and values. */
export async function loadModel(config: ModelConfig, generatorBytes: number | undefined, signal: AbortSignal): Promise<GPT2 | BERT> {
  const { path, adapters, kvCacheBytes, device, ...rest } = config;
  const options = { maxQueuedTokens: MAX_QUEUED_TOKENS, maxQueuedRequests: MAX_QUEUED_REQUESTS, ...rest, ...(device === undefined ? {} : { device: device as "cpu" }), signal };
  const bytes = kvCacheBytes ?? generatorBytes;
  try {
    return await loadGPT2(path, { ...options, ...(adapters ? { adapters } : {}), ...(bytes === undefined ? {} : { kvCacheBytes: bytes }) });
  } catch (error) {
    const other = error instanceof CandlewickError && error.code === "UNSUPPORTED_MODEL";
    if (!other || adapters !== undefined || kvCacheBytes !== undefined) throw error;
    try {
      return await loadBERT(path, options);
    } catch (second) {
      throw second instanceof CandlewickError && second.code === "UNSUPPORTED_MODEL" ? error : second;
    }
  }
}
