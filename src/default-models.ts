/** Which package of weights a task takes where no model is named. */
import { CandlewickError } from "./errors.js";
import { modelFolder } from "./package.js";

export type Language = "en" | "zh";

/**
 * Task → language of the input → `candlewick-model-<name>`; `default` is in the main package. The first language is the
 * default one.
 */
const SHIPPED = {
  "text-generation": { en: "default", zh: "default" },
  "feature-extraction": { en: "minilm" },
  "zero-shot-classification": { en: "minilm" },
  rerank: { en: "minilm" },
  "sentiment-analysis": { en: "sentiment-en", zh: "sentiment-zh" },
  "text-classification": { en: "topics" },
  translation: { en: "translation-en-zh" },
  dialogue: { en: "dialogue", zh: "dialogue" },
} satisfies Record<string, Partial<Record<Language, string>>>;

export type ShippedTask = keyof typeof SHIPPED;

export const isShipped = (task: string): task is ShippedTask => Object.hasOwn(SHIPPED, task);

/**
 * The package's short name, for {@link modelFolder}.
 *
 * @throws {CandlewickError} `OPTION_INVALID`: no model for the task in this language.
 */
export function shippedName(task: ShippedTask, language?: string): string {
  const names: Record<string, string> = SHIPPED[task];
  if (language === undefined) return Object.values(names)[0]!;
  if (Object.hasOwn(names, language)) return names[language]!;
  const known = Object.keys(names).map((name) => JSON.stringify(name));
  throw new CandlewickError("OPTION_INVALID", `${task}: language must be ${known.join(" or ")}, got ${JSON.stringify(language)}; for others, name a model`);
}

/** Where it is; throws `MODEL_NOT_FOUND` with the command that installs it. */
export const shippedModel = (task: ShippedTask, language?: string): string => modelFolder(shippedName(task, language));
