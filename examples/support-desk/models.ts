/** Which models the desk runs, in one table. */
import { pipeline, type Pipelines } from "candlewick";

/**
 * For each use a model: what `pipeline()` takes, or `null` for the package of weights that Candlewick knows for the
 * task and language.
 */
export const SHIPPED = {
  /** What the message is about. There is none for Chinese. */
  topic: null,
  sentimentEnglish: null,
  sentimentChinese: null,
  /** Vectors of English questions; Chinese ones are found by their characters (store-worker.ts). */
  similar: null,
  /** From English to Chinese. */
  translation: null,
  reply: null,
} satisfies Record<string, string | null>;

export type ModelNames = Record<keyof typeof SHIPPED, string | null>;

export interface Models {
  topic: Pipelines["text-classification"];
  sentiment: { en: Pipelines["sentiment-analysis"]; zh: Pipelines["sentiment-analysis"] };
  embed: Pipelines["feature-extraction"];
  translate: Pipelines["translation"];
  converse: Pipelines["dialogue"];
  close(): Promise<void>;
}

/** Loads all at once; if one can't be had, none stays open. */
export async function loadModels(names: Partial<ModelNames> = {}): Promise<Models> {
  const { topic, sentimentEnglish, sentimentChinese, similar, translation, reply } = { ...SHIPPED, ...names };
  const sentiment = (name: string | null, language: "en" | "zh") =>
    name === null ? pipeline("sentiment-analysis", { language }) : pipeline("sentiment-analysis", name);
  const loading = [
    pipeline("text-classification", topic ?? undefined),
    sentiment(sentimentEnglish, "en"),
    sentiment(sentimentChinese, "zh"),
    pipeline("feature-extraction", similar ?? undefined),
    pipeline("translation", translation ?? undefined),
    pipeline("dialogue", reply ?? undefined),
  ] as const;
  const close = async () => {
    const loaded = await Promise.allSettled(loading);
    await Promise.all(loaded.map((task) => task.status === "fulfilled" && task.value.close()));
  };
  try {
    const [topics, english, chinese, embed, translate, converse] = await Promise.all(loading);
    return { topic: topics, sentiment: { en: english, zh: chinese }, embed, translate, converse, close };
  } catch (error) {
    await close();
    throw error;
  }
}
