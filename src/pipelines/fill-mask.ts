/** Fill-mask, as transformers' `FillMaskPipeline`; the search through the vocabulary is native. */
import type { PackedFills } from "../native.js";
import { checks, type OptionTable } from "../options.js";
import { mailbox } from "../runtime.js";
import { columns, inCalls, weighText } from "./native-calls.js";
import { readText } from "./input-checks.js";
import { taskOptions, unfit, type SimpleTask, type TaskDefinition, type TaskOptions } from "./task.js";

export interface FillMaskOptions extends TaskOptions {
  /** Tokens for each mask. Default 5. */
  topK?: number;
  /** Only these words are looked at. Of one that the vocabulary lacks, the first token: its `tokenText` shows which. */
  targets?: readonly string[];
}

/** A token for a mask. */
export interface Fill {
  /** A probability among the whole vocabulary. */
  readonly score: number;
  readonly token: number;
  readonly tokenText: string;
  /** The whole text with it. */
  readonly sequence: string;
}

/** For one mask its tokens, best first; for several masks such a list for each. */
export type FillMaskResult = Fill[] | Fill[][];
export type FillMaskTask = SimpleTask<string, FillMaskOptions, FillMaskResult>;

const targetsCheck = (value: unknown) =>
  Array.isArray(value) && value.length > 0 && value.every((target) => typeof target === "string" && target !== "")
    ? undefined
    : "must be an array of words, at least one";

export const fillMask: TaskDefinition<string, FillMaskOptions, FillMaskResult> = {
  name: "fillMask",
  options: { ...taskOptions, topK: checks.integer(1, 1 << 20), targets: targetsCheck } satisfies OptionTable<FillMaskOptions>,
  fits(model) {
    if (model.info.head !== "masked-lm") throw unfit(model, "fill-mask", "a masked-lm head");
  },
  read: readText("fillMask"),
  run(model, texts, options) {
    const { topK = 5, targets = [] } = options;
    return inCalls<string, PackedFills, FillMaskResult>(
      model,
      texts,
      { options, maxLength: model.info.maxLength, size: 64, weigh: weighText },
      (slice) => {
        const given = columns(slice);
        return (native, id, limits, cancel) => native.fill(mailbox, id, given, limits, topK, [...targets], cancel);
      },
      unpackFills,
    );
  },
};

function unpackFills({ masks, lengths, tokens, scores, texts, sequences }: PackedFills): FillMaskResult[] {
  let mask = 0;
  let at = 0;
  return Array.from(masks, (count) => {
    const lists = Array.from({ length: count }, () =>
      Array.from({ length: lengths[mask++]! }, () => {
        const fill = { score: scores[at]!, token: tokens[at]!, tokenText: texts[at]!, sequence: sequences[at]! };
        at++;
        return fill;
      }),
    );
    return count === 1 ? lists[0]! : lists;
  });
}
