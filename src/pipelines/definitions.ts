/** BERT's tasks by name: what `pipeline()` and the methods of a `BERT` have in common. Nothing here loads a model. */
import type { BERT } from "../bert.js";
import { answering, type AnswerOptions, type AnswerTask } from "./answer.js";
import { classification, type ClassifyOptions, type ClassifyTask } from "./classify.js";
import { embedding, type EmbedOptions, type EmbedTask } from "./embed.js";
import { entities, type EntitiesOptions, type EntitiesTask } from "./entities.js";
import { fillMask, type FillMaskOptions, type FillMaskTask } from "./fill-mask.js";
import { reranking, type RerankOptions, type RerankTask } from "./rerank.js";
import { createTask, type TaskDefinition } from "./task.js";
import { zeroShot, type ZeroShotOptions, type ZeroShotTask } from "./zero-shot.js";

/** BERT's tasks, each as a function. */
export interface BERTTasks {
  "feature-extraction": EmbedTask;
  "text-classification": ClassifyTask;
  /** The same as `"text-classification"`. */
  "sentiment-analysis": ClassifyTask;
  "zero-shot-classification": ZeroShotTask;
  "fill-mask": FillMaskTask;
  "token-classification": EntitiesTask;
  /** The same as `"token-classification"`. */
  ner: EntitiesTask;
  "question-answering": AnswerTask;
  rerank: RerankTask;
}

/** The options of each task's calls. */
export interface BERTTaskOptions {
  "feature-extraction": EmbedOptions;
  "text-classification": ClassifyOptions;
  "sentiment-analysis": ClassifyOptions;
  "zero-shot-classification": ZeroShotOptions;
  "fill-mask": FillMaskOptions;
  "token-classification": EntitiesOptions;
  ner: EntitiesOptions;
  "question-answering": AnswerOptions;
  rerank: RerankOptions;
}

/** The tasks that a BERT does; each is also a method of it. */
export type BERTTask = keyof BERTTasks;

/** Each definition has types of its own, which {@link BERTTasks} names. */
export type AnyDefinition = TaskDefinition<any, any, any>;

export const definitions: Record<BERTTask, AnyDefinition> = {
  "feature-extraction": embedding,
  "text-classification": classification,
  "sentiment-analysis": classification,
  "zero-shot-classification": zeroShot,
  "fill-mask": fillMask,
  "token-classification": entities,
  ner: entities,
  "question-answering": answering,
  rerank: reranking,
};

/** The task of a model's method. */
export function taskOf<Name extends BERTTask>(name: Name, model: BERT): BERTTasks[Name] {
  return createTask(definitions[name], model) as unknown as BERTTasks[Name];
}
