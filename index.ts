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
export type { DataFormat, DataOptions, ProblemType, Task } from "./src/data/options.js";
export type { DataSource, Row } from "./src/data/source.js";
export { CandlewickError } from "./src/errors.js";
export type { ErrorCode } from "./src/errors.js";
export { evaluate } from "./src/evaluate/evaluate.js";
export type { EvaluateOptions, EvaluationGeneration, EvaluationProgress } from "./src/evaluate/evaluate.js";
export type {
  AnswerMetrics,
  AnswerScores,
  Bleu,
  ClassificationMetrics,
  ClassScores,
  CompletionMetrics,
  EntityMetrics,
  LanguageMetrics,
  MaskedMetrics,
  Metrics,
  MetricsByTask,
  RegressionMetrics,
  Sample,
  Scores,
  SimilarityMetrics,
} from "./src/evaluate/metrics.js";
export { generate } from "./src/generate.js";
export type { GenerateWithModelOptions } from "./src/generate.js";
export { GPT2, loadGPT2 } from "./src/gpt2.js";
export type { EncodeOptions, GPT2Info } from "./src/gpt2.js";
export type { Device, Dtype, LoadOptions, LoadProgress } from "./src/load.js";
export type { DecodeOptions, Model } from "./src/model.js";
export type { ReadableOptions, ResponseOptions, StreamFormat } from "./src/response.js";
export { TokenStream } from "./src/stream.js";
export { trainTokenizer } from "./src/tokenizer-training.js";
export type { TokenizerType, TrainedTokenizer, TrainTokenizerOptions } from "./src/tokenizer-training.js";
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
