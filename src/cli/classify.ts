// `candlewick classify`: labels of texts, those that the model was trained on or those that are given.
// `candlewick sentiment`: the same for positive and negative texts.
import { Option, type Command } from "commander";
import type { TextPair } from "../bert.js";
import type { Classification, ScoreFunction } from "../pipelines/classify.js";
import type { ZeroShotResult } from "../pipelines/zero-shot.js";
import { number, several } from "./arguments.js";
import type { ShippedTask } from "../default-models.js";
import { textOf, type InputRow } from "./input.js";
import { runRows, withRowOptions, type RowArguments } from "./rows.js";

interface Arguments extends RowArguments {
  topK?: number;
  function?: ScoreFunction;
  language?: string;
  label?: string[];
  template?: string;
  multiLabel?: boolean;
  entailmentLabel?: string;
}

export function addClassify(program: Command): void {
  const command = program
    .command("classify")
    .summary("labels of texts")
    .description(
      "Writes the best label of each text and its score, or the best few. With --label, the labels are those that are given, for models of entailment or of embeddings.",
    )
    .argument("[text...]", "texts, if they are not read from files or standard input")
    .option("-k, --top-k <n>", "how many labels (default: 1)", number)
    .addOption(new Option("--function <name>", "what makes scores of logits (default: what the model's configuration asks for)").choices(["softmax", "sigmoid", "none"]))
    .option("-l, --label <name>", "a label that a text may have; may be repeated", several(String))
    .option("--template <text>", 'with --label: a sentence with {} for the label (default: "This example is {}.")')
    .option("--multi-label", "with --label: several labels may hold")
    .option("--entailment-label <name>", 'with --label: which of the model\'s own labels means that the sentence holds (default: the one that begins with "entail")')
    .addHelpText("after", '\nJSON lines may hold pairs: {"text": …, "textPair": …}.\nFor instance: candlewick classify -m ./my-bert "I loved it" --top-k 2');
  withRowOptions(command, "text-classification").action((texts: string[], options: Arguments) => {
    if (options.label) return zeroShot(texts, options);
    if (options.template !== undefined || options.multiLabel || options.entailmentLabel !== undefined) {
      command.error("error: --template, --multi-label and --entailment-label need --label");
    }
    return classify(texts, options, "text-classification");
  });
}

export function addSentiment(program: Command): void {
  const command = program
    .command("sentiment")
    .summary("what texts feel")
    .description("Writes whether each text is positive or negative, and the score.")
    .argument("[text...]", "texts, if they are not read from files or standard input")
    .addOption(new Option("-l, --language <language>", "of the texts (default: en)").choices(["en", "zh"]))
    .option("-k, --top-k <n>", "how many labels (default: 1)", number)
    .addHelpText("after", '\nFor instance: candlewick sentiment --language zh "这家店的服务很好"');
  withRowOptions(command, "sentiment-analysis").action((texts: string[], options: Arguments) => classify(texts, options, "sentiment-analysis"));
}

function classify(texts: string[], options: Arguments, shipped: ShippedTask): Promise<void> {
  const { topK = 1, function: functionToApply, language } = options;
  return runRows<string | TextPair, Classification[]>({
    texts,
    options,
    read: textOrPairOf,
    shipped,
    language,
    task: (model) => ({ stream: (inputs, call) => model.classify.stream(inputs, { ...call, topK, functionToApply }) }),
    text: (labels, input) => line(typeof input === "string" ? input : `${input.text}\t${input.textPair}`, labels),
    json: (labels, input) => ({ ...(typeof input === "string" ? { text: input } : input), labels }),
  });
}

function zeroShot(texts: string[], options: Arguments): Promise<void> {
  const { topK = 1, label: candidateLabels = [], template: hypothesisTemplate, multiLabel, entailmentLabel } = options;
  const labelsOf = ({ labels, scores }: ZeroShotResult) => labels.slice(0, topK).map((label, i) => ({ label, score: scores[i]! }));
  return runRows<string, ZeroShotResult>({
    texts,
    options,
    read: textOf,
    shipped: "zero-shot-classification",
    task: (model) => ({ stream: (inputs, call) => model.zeroShot.stream(inputs, { ...call, candidateLabels, hypothesisTemplate, multiLabel, entailmentLabel }) }),
    text: (result, text) => line(text, labelsOf(result)),
    json: (result, text) => ({ text, labels: labelsOf(result), method: result.method }),
  });
}

const line = (text: string, labels: readonly Classification[]): string =>
  [...labels.map(({ label, score }) => `${label} ${score.toFixed(4)}`), text].join("\t");

function textOrPairOf(row: InputRow): string | TextPair {
  const { textPair } = (row.value ?? {}) as { textPair?: unknown };
  return textPair === undefined ? textOf(row) : { text: textOf(row), textPair: textPair as string };
}
