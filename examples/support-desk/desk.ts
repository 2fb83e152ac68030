/** What the desk knows of a message: the models and the past answers behind one object. */
import type { TokenStream } from "candlewick";
import { Answers, type Similar } from "./answers.js";
import { languageOf, lastSentences, sentencesOf } from "./language.js";
import { loadModels, type ModelNames, type Models } from "./models.js";

/** What the models say of a message, by the name under which the page gets it. */
export interface Findings {
  /** The best three; none for a language that the topics are not known in. */
  topic: { topics: { label: string; score: number }[] };
  /** `score`: how sure the model is of its label, 0 to 1. */
  sentiment: { label: string; score: number };
  similar: Similar;
  /** In Chinese; `null` of a message that is Chinese already. */
  translation: { text: string | null };
}
export type Stage = keyof Findings;
export const STAGES = ["topic", "sentiment", "similar", "translation"] as const satisfies readonly Stage[];

/** In characters: the longest texts that the translator was taught with, and the longest turns of the conversations. */
const TRANSLATED_AT_ONCE = 200;
const ANSWERED_AT_ONCE = 400;

export interface DeskOptions {
  /** The database's file, or `":memory:"`. */
  database: string;
  models?: Partial<ModelNames>;
}

export class Desk {
  readonly #models: Models;
  readonly #answers: Answers;

  private constructor(models: Models, answers: Answers) {
    this.#models = models;
    this.#answers = answers;
  }

  static async open({ database, models: names }: DeskOptions): Promise<Desk> {
    const models = await loadModels(names);
    try {
      return new Desk(models, await Answers.open(database, models.embed));
    } catch (error) {
      await models.close();
      throw error;
    }
  }

  /** One stage of the analysis. The stages of a message run at once, each on its model's own threads. */
  find<Name extends Stage>(stage: Name, message: string, signal?: AbortSignal): Promise<Findings[Name]> {
    const language = languageOf(message);
    const stages: { [Name in Stage]: () => Promise<Findings[Name]> } = {
      topic: async () => ({ topics: language === "en" ? await this.#models.topic(message, { topK: 3, signal }) : [] }),
      sentiment: () => this.#models.sentiment[language](message, { signal }),
      similar: () => this.#answers.find(message, language, signal),
      translation: async () => ({ text: language === "en" ? await this.#translate(message, signal) : null }),
    };
    return stages[stage]() as Promise<Findings[Name]>;
  }

  async #translate(message: string, signal?: AbortSignal): Promise<string> {
    const { translate } = this.#models;
    const sentences = sentencesOf(message, Math.min(TRANSLATED_AT_ONCE, translate.model.info.positions >> 1));
    const translated = await translate(sentences, { signal, truncate: "left", noRepeatNgramSize: 3 });
    return translated.map(({ translationText }) => translationText).join("");
  }

  /** A reply to the message's end, as it is written. Another `seed` gives another one. */
  async reply(message: string, seed?: number): Promise<TokenStream> {
    const { converse } = this.#models;
    let end = lastSentences(message, ANSWERED_AT_ONCE);
    // Half of the positions for the message, the rest for the reply. A character is at most a few tokens.
    while (end.length > 1 && (await converse.model.countTokens(end)) > converse.model.info.positions / 2) {
      end = lastSentences(end, end.length >> 1);
    }
    return converse.stream(end, { seed });
  }

  /** Keeps an answer that was sent. */
  keep(question: string, answer: string): Promise<number> {
    return this.#answers.add({ language: languageOf(question), question, answer });
  }

  countAnswers(): Promise<number> {
    return this.#answers.count();
  }

  async close(): Promise<void> {
    await Promise.all([this.#models.close(), this.#answers.close()]);
  }
}
