/**
 * Duplicates go before the split, and the split is a hash of the text: it does not move when a source grows, and no
 * text stands on two sides. `__test__/recipes.test.ts` holds it.
 */
import { createHash } from "node:crypto";

export type Split = "train" | "validation" | "heldout";
export const SPLITS: readonly Split[] = ["train", "validation", "heldout"];

/** What a text is when case, spaces and punctuation are gone: two texts with the same letters are the same. */
export const letters = (text: string): string => text.normalize("NFKC").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "");

/** A number below `count`, a function of the text alone. */
export function bucket(text: string, count: number): number {
  const hash = createHash("sha256").update(`split\0${text}`).digest();
  return Number(hash.readBigUInt64BE() % BigInt(count));
}

export interface Shares {
  /** One in so many groups; 0: none. */
  heldout: number;
  validation: number;
}

export interface Keys<R> {
  /**
   * Rows of one group are on one side: a row's own text, or what several rows share (a prompt with several answers).
   */
  group(row: R): string;
  /** Texts that must not be on two sides. */
  texts(row: R): readonly string[];
}

export interface Counts {
  rows: number;
  duplicates: number;
  /** Rows that were left out because a text of theirs stands on another side. */
  shared: number;
}

/**
 * Of rows with the same texts the first stays. A row that shares a text with a side of higher rank (held-out,
 * validation, train) is left out.
 */
export function split<R>(rows: Iterable<R>, keys: Keys<R>, shares: Shares): { splits: Record<Split, R[]>; counts: Counts } {
  const counts: Counts = { rows: 0, duplicates: 0, shared: 0 };
  const seen = new Set<string>();
  const sides: Record<Split, { row: R; texts: string[] }[]> = { train: [], validation: [], heldout: [] };
  for (const row of rows) {
    counts.rows++;
    const texts = keys.texts(row).map(letters);
    const whole = texts.join("\0");
    if (seen.has(whole)) {
      counts.duplicates++;
      continue;
    }
    seen.add(whole);
    sides[sideOf(letters(keys.group(row)), shares)].push({ row, texts });
  }
  const taken = new Set<string>();
  const splits: Record<Split, R[]> = { train: [], validation: [], heldout: [] };
  for (const side of ["heldout", "validation", "train"] as const) {
    const kept = sides[side].filter(({ texts }) => !texts.some((text) => taken.has(text)));
    counts.shared += sides[side].length - kept.length;
    for (const { texts } of kept) for (const text of texts) taken.add(text);
    splits[side] = kept.map(({ row }) => row);
  }
  return { splits, counts };
}

function sideOf(group: string, { heldout, validation }: Shares): Split {
  if (heldout > 0 && bucket(group, heldout) === 0) return "heldout";
  if (validation > 0 && bucket(`validation\0${group}`, validation) === 0) return "validation";
  return "train";
}
