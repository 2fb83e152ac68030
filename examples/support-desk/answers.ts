/** Past answers, and which of them fit a message: English ones by meaning, Chinese ones by characters. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { similarity, VectorIndex } from "candlewick";
import type { Models } from "./models.js";
import { type Draft, type Hit, type Language, openStore, type Store } from "./store.js";

/** How many are shown, and how near one must be to be worth it: MiniLM gives strangers 0.0 to 0.2. */
const SHOWN = 3;
const NEAR: Record<Language, number> = { en: 0.3, zh: 0.15 };

export interface Similar {
  /**
   * `"meaning"`: cosine of the questions' vectors. `"characters"`: cosine of their characters and pairs, where no model
   * is.
   */
  method: "meaning" | "characters";
  answers: Hit[];
}

export class Answers {
  readonly #store: Store;
  readonly #embed: Models["embed"];
  /** By the answers' ids. */
  readonly #index: VectorIndex;

  private constructor(store: Store, embed: Models["embed"], index: VectorIndex) {
    this.#store = store;
    this.#embed = embed;
    this.#index = index;
  }

  /** Opens the database; one that is new gets the answers of answers.json. Vectors of another model are made anew. */
  static async open(file: string, embed: Models["embed"]): Promise<Answers> {
    const store = openStore(file);
    try {
      if ((await store.count()) === 0) await store.add(JSON.parse(readFileSync(join(__dirname, "answers.json"), "utf8")) as Draft[]);
      const english = await store.of("en");
      const questions = english.map(({ question }) => question);
      let vectors = english.map(({ vector }) => vector);
      // The first question again: it tells whether the stored vectors are this model's.
      const probe = await embed(questions[0] ?? "");
      const [first] = vectors;
      const same = first?.length === probe.length && similarity(first, probe) > 0.999;
      if (questions.length > 0 && (!same || vectors.includes(undefined))) {
        vectors = await embed(questions);
        await store.setVectors(english.map(({ id }, i) => ({ id, vector: vectors[i]! })));
      }
      const answers = new Answers(store, embed, new VectorIndex(probe.length));
      await answers.#remember(english.map(({ id }) => id), vectors as Float32Array[]);
      return answers;
    } catch (error) {
      await store.close().catch(() => {});
      throw error;
    }
  }

  async find(text: string, language: Language, signal?: AbortSignal): Promise<Similar> {
    if (language === "zh") {
      const hits = await this.#store.findWords(language, text, SHOWN);
      return { method: "characters", answers: hits.filter(({ score }) => score >= NEAR.zh) };
    }
    const near = await this.#index.search(await this.#embed(text, { signal }), { topK: SHOWN, threshold: NEAR.en, signal });
    const scores = new Map(near.map(({ id, score }) => [id as number, score]));
    const found = await this.#store.get([...scores.keys()]);
    return { method: "meaning", answers: found.map((answer) => ({ ...answer, score: scores.get(answer.id)! })) };
  }

  /** Keeps an answer that was sent; it is found from now on. */
  async add({ language, question, answer }: Omit<Draft, "vector">): Promise<number> {
    const vector = language === "en" ? await this.#embed(question) : undefined;
    const [id] = await this.#store.add([{ language, question, answer, vector }]);
    if (vector) await this.#remember([id!], [vector]);
    return id!;
  }

  count(): Promise<number> {
    return this.#store.count();
  }

  async close(): Promise<void> {
    await this.#index.close();
    await this.#store.close();
  }

  async #remember(ids: readonly number[], vectors: readonly Float32Array[]): Promise<void> {
    if (ids.length > 0) await this.#index.update(vectors, { ids });
  }
}
