/**
 * Named entities, as transformers' `TokenClassificationPipeline`; putting tokens together is native, it grows with the
 * text.
 */
import type { PackedEntities } from "../native.js";
import { checks, invalid, type OptionTable } from "../options.js";
import { mailbox } from "../runtime.js";
import { inCalls } from "./native-calls.js";
import { readText } from "./input-checks.js";
import type { FailedRow, Inputs, Row, StreamOptions } from "./stream.js";
import { taskOptions, unfit, type Task, type TaskDefinition, type TaskOptions } from "./task.js";

/**
 * How tokens become entities: `"none"`, they do not; `"simple"`, neighbours with the same label are one; the others do
 * that too, and give a word the label of its first token, of the mean of its tokens, or of its surest token.
 */
export type AggregationStrategy = "none" | "simple" | "first" | "average" | "max";

export interface EntitiesOptions extends TaskOptions {
  /** Default `"none"`. */
  aggregationStrategy?: AggregationStrategy;
  /** Labels that are left out. Default `["O"]`. */
  ignoreLabels?: readonly string[];
  /**
   * Reads long texts in windows of `maxLength` tokens that overlap by so many. Default: long texts are cut. Not with an
   * aggregation of `"none"`.
   */
  stride?: number;
}

/** Where an entity stands: `text` is `input.slice(start, end)`. */
interface Span {
  /** A probability. */
  readonly score: number;
  /** What the tokens spell; lower case if the tokenizer makes it so. */
  readonly word: string;
  /** What is written there. */
  readonly text: string;
  /** UTF-16 code units, as JavaScript counts. */
  readonly start: number;
  readonly end: number;
}

/** A token. */
export interface TokenEntity extends Span {
  /** As the head has it, `"B-PER"`. */
  readonly entity: string;
  /** Among the text's tokens, `[CLS]` being 0. */
  readonly index: number;
}

/** Tokens that are one entity. */
export interface EntityGroup extends Span {
  /** Without `B-` and `I-`: `"PER"`. */
  readonly entityGroup: string;
}

export type EntityOf<O> = O extends { aggregationStrategy: "simple" | "first" | "average" | "max" } ? EntityGroup : TokenEntity;

export interface EntitiesTask extends Task {
  <O extends EntitiesOptions = EntitiesOptions>(text: string, options?: O): Promise<EntityOf<O>[]>;
  <O extends EntitiesOptions = EntitiesOptions>(texts: readonly string[], options?: O): Promise<EntityOf<O>[][]>;
  stream<O extends EntitiesOptions = EntitiesOptions>(
    texts: Inputs<string>,
    options?: O & StreamOptions<"throw">,
  ): AsyncIterableIterator<Row<string, EntityOf<O>[]>>;
  stream<O extends EntitiesOptions = EntitiesOptions>(
    texts: Inputs<string>,
    options: O & StreamOptions,
  ): AsyncIterableIterator<Row<string, EntityOf<O>[]> | FailedRow<string>>;
}

type AnyEntity = TokenEntity | EntityGroup;

const options: OptionTable<EntitiesOptions> = {
  ...taskOptions,
  aggregationStrategy: checks.oneOf("none", "simple", "first", "average", "max"),
  ignoreLabels: (value) =>
    Array.isArray(value) && value.every((label) => typeof label === "string") ? undefined : "must be an array of labels",
  stride: checks.integer(0, 0xffff_ffff),
};

export const entities: TaskDefinition<string, EntitiesOptions, AnyEntity[]> = {
  name: "entities",
  options,
  fits(model) {
    if (model.info.head !== "token-classification") throw unfit(model, "token classification", "a token-classification head");
  },
  check(model, { aggregationStrategy = "none", ignoreLabels = [], stride }) {
    if (stride !== undefined && aggregationStrategy === "none") {
      throw invalid("entities", "stride", 'needs an aggregationStrategy other than "none"', stride);
    }
    const { labels } = model.info;
    const known = [...labels, ...labels.map((label) => label.replace(/^[^-]*-/, "")), "O"];
    const strange = ignoreLabels.find((label) => !known.includes(label));
    if (strange !== undefined) throw invalid("entities", "ignoreLabels", `must be labels of the model (${labels.join(", ")})`, strange);
  },
  read: readText("entities"),
  run(model, texts, options) {
    const { aggregationStrategy = "none", ignoreLabels = ["O"], stride } = options;
    return inCalls<string, PackedEntities, AnyEntity[]>(
      model,
      texts,
      { options, maxLength: model.info.maxLength, size: 64, weigh: (text) => text.length },
      (slice) => (native, id, limits, cancel) =>
        native.entities(mailbox, id, slice.slice(), limits, aggregationStrategy, [...ignoreLabels], stride, cancel),
      unpackEntities,
    );
  },
};

function unpackEntities(packed: PackedEntities, texts: readonly string[]): AnyEntity[][] {
  const { lengths, labelNames, labels, scores, indices, words, starts, ends } = packed;
  let at = 0;
  return texts.map((input, index) =>
    Array.from({ length: lengths[index]! }, () => {
      const [start, end] = [starts[at]!, ends[at]!];
      const label = labelNames[labels[at]!]!;
      const token = indices[at];
      const span = { score: scores[at]!, word: words[at]!, text: input.slice(start, end), start, end };
      at++;
      return token === undefined ? { entityGroup: label, ...span } : { entity: label, index: token, ...span };
    }),
  );
}
