export { mergeAdapter, unmergeAdapter } from "./src/adapter-merging.js";
export type { MergeAdapterOptions, MergedAdapter, UnmergeAdapterOptions } from "./src/adapter-merging.js";
export { BERT, loadBERT } from "./src/bert.js";
export type {
  BERTEncodeOptions,
  BERTHead,
  BERTInfo,
  Encoding,
  ForwardOptions,
  ForwardOutput,
  IdPairInput,
  IdsInput,
  Matrix,
  PoolingName,
  SentenceInfo,
  TextInput,
  TextPair,
  TextToken,
} from "./src/bert.js";
export type { ChatKind, ChatOptions, ChatPromptOptions } from "./src/chat/chat.js";
export type { Conversation, Message } from "./src/chat/messages.js";
export type { DataFormat, DataOptions, ProblemType, Task as DataTask } from "./src/data/options.js";
export type { DataRow, DataSource } from "./src/data/source.js";
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
export type { GenerationDefaults } from "./src/generation-defaults.js";
export { GPT2, loadGPT2 } from "./src/gpt2.js";
export type { EncodeOptions, GPT2Info, GPT2LoadOptions } from "./src/gpt2.js";
export type { Device, Dtype, LoadOptions, LoadProgress } from "./src/load.js";
export type { DecodeOptions, Model } from "./src/model.js";
export type { Language } from "./src/default-models.js";
export type { ReadableOptions, ResponseOptions, StreamFormat } from "./src/response.js";
export type { ScoredToken, ScoreOptions, TextScore } from "./src/score.js";
export type { BERTStats, GPT2Stats, StepStats } from "./src/stats.js";
export { TokenStream } from "./src/stream.js";
export type {
  CheckpointEvent,
  DoneEvent,
  EvaluationEvent,
  StartEvent,
  StepEvent,
  FinetuneEvent,
} from "./src/train/events.js";
export { finetune } from "./src/train/finetune.js";
export type { FinetuneOptions, LoraOptions } from "./src/train/options.js";
export { TrainingRun } from "./src/train/run.js";
export { trainTokenizer } from "./src/tokenizer-training.js";
export type { TokenizerType, TrainedTokenizer, TrainTokenizerOptions } from "./src/tokenizer-training.js";
export type {
  Accepted,
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
export type { Answer, AnswerOptions, AnswerTask, Question } from "./src/pipelines/answer.js";
export type { Classification, ClassifyOptions, ClassifyTask, ScoreFunction } from "./src/pipelines/classify.js";
export type { DialogueOptions, DialogueTask, Reply, SessionOptions } from "./src/pipelines/dialogue.js";
export type { Embedding, EmbedOptions, EmbedTask } from "./src/pipelines/embed.js";
export type { AggregationStrategy, EntitiesOptions, EntitiesTask, EntityGroup, TokenEntity } from "./src/pipelines/entities.js";
export type { Fill, FillMaskOptions, FillMaskResult, FillMaskTask } from "./src/pipelines/fill-mask.js";
export type { GeneratedText, TextGenerationOptions, TextGenerationTask } from "./src/pipelines/generate-text.js";
export { pipeline } from "./src/pipelines/pipeline.js";
export type { BERTTask } from "./src/pipelines/definitions.js";
export type { PipelineModel, PipelineOptions, Pipelines, PipelineTask, PipelineTaskOptions } from "./src/pipelines/pipeline.js";
export type { Precision, Ranges } from "./src/pipelines/precision.js";
export type { RankedDocument, RerankInput, RerankOptions, RerankTask } from "./src/pipelines/rerank.js";
export { DialogueSession } from "./src/pipelines/session.js";
export type { ReplyOptions } from "./src/pipelines/responder.js";
export type { FailedRow, Inputs, Row, StreamOptions } from "./src/pipelines/stream.js";
export type { SimpleTask, Task, TaskOptions } from "./src/pipelines/task.js";
export type { Translated, Translation, TranslationOptions, TranslationTask } from "./src/pipelines/translate.js";
export type { ZeroShotOptions, ZeroShotResult, ZeroShotTask } from "./src/pipelines/zero-shot.js";
export type { Progress } from "./src/slices.js";
export type { Vocabulary } from "./src/vocabulary.js";
export type { FieldFilter, VectorFilter } from "./src/vectors/filter.js";
export type { Metadata, MetadataValue, VectorId } from "./src/vectors/metadata.js";
export { similarity } from "./src/vectors/similarity.js";
export type { SimilarityName } from "./src/vectors/similarity.js";
export type { Vector } from "./src/vectors/vector.js";
export { VectorIndex } from "./src/vectors/vector-index.js";
export type { AddOptions, Hit, LoadIndexOptions, SaveOptions, SearchOptions, VectorIndexOptions, VectorPrecision } from "./src/vectors/vector-index.js";
