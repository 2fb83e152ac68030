/** What little of language the desk itself must know. */

export type Language = "en" | "zh";

const HAN = /\p{Script=Han}/gu;

/**
 * Chinese if it has as many Chinese characters as words of other scripts: programs and brands have Latin names in any
 * language.
 */
export function languageOf(text: string): Language {
  const characters = text.match(HAN)?.length ?? 0;
  const words = text.replace(HAN, " ").match(/\p{L}+/gu)?.length ?? 0;
  return characters > 0 && characters >= words ? "zh" : "en";
}

const segmenter = new Intl.Segmenter("en", { granularity: "sentence" });

/** Sentences, and of those longer than `longest` characters pieces of whole words, where there are words. */
export function sentencesOf(text: string, longest: number): string[] {
  const pieces = new RegExp(`\\S(?:.{0,${longest - 2}}\\S)?(?!\\S)|\\S{${longest}}`, "gsu");
  return [...segmenter.segment(text)].flatMap(({ segment }) => segment.match(pieces) ?? []);
}

/** The last sentences of a text, of at most `longest` characters together. */
export function lastSentences(text: string, longest: number): string {
  const sentences = sentencesOf(text, longest);
  let from = sentences.length - 1;
  for (let length = sentences[from]?.length ?? 0; from > 0; from--) {
    length += sentences[from - 1]!.length + 1;
    if (length > longest) break;
  }
  return sentences.slice(Math.max(0, from)).join(" ");
}

/** The letters of a text and their neighbouring pairs: words, for a script that does not divide them. */
export function grams(text: string): Set<string> {
  const found = new Set<string>();
  for (const run of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []) {
    const letters = [...run];
    letters.forEach((letter, i) => {
      found.add(letter);
      if (i > 0) found.add(letters[i - 1]! + letter);
    });
  }
  return found;
}
