export { BERT, loadBERT } from "./src/bert.js";
export type {
  BERTEncodeOptions,
  BERTHead,
  BERTInfo,
  Encoding,
  ForwardOptions,
  ForwardOutput,
  IdsInput,
  Matrix,
  TextInput,
  TextPair,
} from "./src/bert.js";
export { CandlewickError } from "./src/errors.js";
export type { ErrorCode } from "./src/errors.js";
export { generate } from "./src/generate.js";
export type { GenerateWithModelOptions } from "./src/generate.js";
export { GPT2, loadGPT2 } from "./src/gpt2.js";
export type { EncodeOptions, GPT2Info, GPT2LoadOptions } from "./src/gpt2.js";
export type { Device, Dtype, LoadOptions, LoadProgress } from "./src/load.js";
export type { DecodeOptions, Model } from "./src/model.js";
export type { ReadableOptions, ResponseOptions, StreamFormat } from "./src/response.js";
export { TokenStream } from "./src/stream.js";
export type {
  FinishReason,
  GeneratedSequence,
  GenerateOptions,
  GenerationResult,
  Prompt,
  Timings,
  Token,
  TokenIds,
  TokenLogprob,
  Usage,
} from "./src/types.js";
