import { resolve } from "node:path";
import { dataOptions, type DataFormat } from "./data/options.js";
import { openData, spool } from "./data/source.js";
import { CandlewickError } from "./errors.js";
import { required } from "./evaluate/evaluate.js";
import { native } from "./native.js";
import { checkOptions, checks, invalid, type OptionTable } from "./options.js";
import { abortable, mailbox } from "./runtime.js";

/**
 * - `"byte-level-bpe"`: GPT-2's. Any text, no unknown tokens.
 * - `"wordpiece"`: BERT's.
 * - `"characters"`: WordPiece whose pieces are characters, for a Chinese BERT.
 */
export type TokenizerType = "byte-level-bpe" | "wordpiece" | "characters";

export interface TrainTokenizerOptions {
  type: TokenizerType;
  /** Text files, or JSON lines, CSV or TSV with a column of texts. Either these or `texts`. */
  files?: string | readonly string[];
  /** Texts, as many as there are: they need not fit in memory. */
  texts?: Iterable<string> | AsyncIterable<string>;
  /** A folder; files of a tokenizer that are there are overwritten. */
  output: string;
  /** Entries at the most, special tokens included. Default 8192; of characters as many as there are. */
  vocabularySize?: number;
  /** What is rarer is not merged, and a rarer character not kept. Default 2. */
  minFrequency?: number;
  /** Lower case, without accents; not of a byte-level BPE. Default false. */
  lowercase?: boolean;
  /**
   * How many characters are kept, the most frequent ones; not of a byte-level BPE. Default: as many as there is room
   * for.
   */
  alphabet?: number;
  /**
   * Beside the model's own (`<|endoftext|>`; `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`), which have the first ids.
   */
  specialTokens?: readonly string[];
  /** Of `files`: see {@link DataOptions}. */
  format?: DataFormat;
  /** Of `files`: which column the text is. Default: `text`, `sentence` or `content`. */
  column?: string;
  /**
   * Aborting it ends the reading at the next text, with `ABORTED`. Once the pairs are being merged, which takes seconds
   * for a vocabulary of some thousands, the abort takes effect when they are (the tokenizers library does it in one
   * call that cannot be ended); nothing is written.
   */
  signal?: AbortSignal;
  /** In bytes of text that are read; the merging comes after. */
  onProgress?: (progress: { readonly loaded: number; readonly total: number }) => void;
}

export interface TrainedTokenizer {
  /** Absolute. */
  readonly output: string;
  /** Entries; fewer than asked for if the texts have no more. */
  readonly vocabularySize: number;
  /** Names of the files that were written. */
  readonly files: readonly string[];
  readonly distinctWords: number;
  readonly words: number;
  /** Of text. */
  readonly bytes: number;
}

const TYPES = ["byte-level-bpe", "wordpiece", "characters"] as const;

const trainTokenizerOptions: OptionTable<TrainTokenizerOptions> = {
  type: checks.oneOf(...TYPES),
  files: checks.oneOrMore(checks.string),
  // Looked at when they are read.
  texts: () => undefined,
  output: checks.string,
  vocabularySize: checks.integer(1, 0xff_ffff),
  minFrequency: checks.integer(1),
  lowercase: checks.boolean,
  alphabet: checks.integer(1),
  specialTokens: (value) => (Array.isArray(value) ? checks.oneOrMore(checks.string)(value) : "must be an array of strings"),
  format: dataOptions.format,
  column: checks.string,
  signal: checks.signal,
  onProgress: checks.function,
};

/** Every character there is. */
const ALL = 0xff_ffff;

/**
 * Trains a tokenizer and writes it where {@link loadGPT2} or {@link loadBERT}, and transformers, find it:
 * `tokenizer.json`, `tokenizer_config.json`, and `vocab.json` with `merges.txt`, or `vocab.txt`. The same texts and
 * options give the same files. Nothing computes on the JavaScript thread.
 *
 * ```ts
 * await trainTokenizer({ type: "byte-level-bpe", files: "prose.txt", output: "./my-gpt2", vocabularySize: 8192 });
 * ```
 *
 * @throws {CandlewickError} `OPTION_UNKNOWN`, `OPTION_INVALID`, `DATA_NOT_FOUND`, `DATA_EMPTY`, `DATA_INVALID` (no
 *   UTF-8, a row that is none, with file and line), `COLUMN_UNKNOWN`, `IO` (the output, known before the reading),
 *   `ABORTED`.
 */
export async function trainTokenizer(options: TrainTokenizerOptions): Promise<TrainedTokenizer> {
  const where = "trainTokenizer";
  const checked = checkOptions(where, options, trainTokenizerOptions);
  required(where, checked, ["type", "output"]);
  const { type, files, texts, signal, onProgress, format, column } = checked;
  if ((files === undefined) === (texts === undefined)) throw invalid(where, "files", "or texts, one of the two, must be given", files);
  const useless = [
    ...(type === "byte-level-bpe" ? (["lowercase", "alphabet"] as const) : []),
    ...(texts === undefined ? [] : (["format", "column"] as const)),
  ];
  for (const name of useless) {
    if (checked[name] !== undefined) throw invalid(where, name, `has no effect on ${texts === undefined ? type : "texts"}`, checked[name]);
  }
  await using data =
    texts === undefined ? await openData(where, files!, checked) : await spool(where, texts, "jsonl", textLine, signal);
  const request = JSON.stringify({
    kind: type,
    data: data.paths,
    output: resolve(checked.output),
    vocabularySize: checked.vocabularySize ?? (type === "characters" ? ALL : 8192),
    minFrequency: checked.minFrequency,
    lowercase: checked.lowercase,
    alphabet: checked.alphabet,
    specialTokens: checked.specialTokens,
    options: { format, columns: column === undefined ? undefined : { text: column } },
  });
  const report = onProgress && ((loaded: number, total: number) => onProgress({ loaded, total }));
  const trained = await abortable<string>(
    signal,
    (id, cancel) => native.trainTokenizer(mailbox, id, request, cancel, report !== undefined),
    report,
  );
  return JSON.parse(trained);
}

function textLine(text: unknown, index: number): string {
  if (typeof text !== "string") throw new CandlewickError("DATA_INVALID", `text ${index + 1} must be a string`);
  return JSON.stringify({ text });
}
