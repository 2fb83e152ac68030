/**
 * How a GPT-2 generates unless a call says otherwise: `generation_config.json`, else the generation keys of
 * `config.json`, read as transformers reads them (`GenerationConfig`); and how a call's options go over them.
 */
import { CandlewickError } from "./errors.js";
import { generateOptions, type ResolvedOptions } from "./generation-options.js";
import type { GenerateOptions } from "./types.js";

type Json = Readonly<Record<string, unknown>>;

/**
 * Defaults of a model, in the names of the options. What is absent has the default that the option's comment states.
 */
export interface GenerationDefaults
  extends Pick<
    GenerateOptions,
    | "maxNewTokens"
    | "minNewTokens"
    | "temperature"
    | "topK"
    | "topP"
    | "minP"
    | "repetitionPenalty"
    | "noRepeatNgramSize"
    | "badWords"
    | "suppressTokens"
    | "beginSuppressTokens"
    | "stop"
    | "n"
    | "numBeams"
    | "numReturnSequences"
    | "lengthPenalty"
    | "earlyStopping"
  > {
  /** Most tokens of prompt and continuation together. `maxNewTokens` comes before it. */
  maxLength?: number;
}

/** transformers' name → ours, where the values mean the same. */
const NAMES = {
  max_new_tokens: "maxNewTokens",
  min_new_tokens: "minNewTokens",
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  repetition_penalty: "repetitionPenalty",
  no_repeat_ngram_size: "noRepeatNgramSize",
  num_beams: "numBeams",
  num_return_sequences: "numReturnSequences",
  length_penalty: "lengthPenalty",
  early_stopping: "earlyStopping",
  stop_strings: "stop",
  bad_words_ids: "badWords",
  suppress_tokens: "suppressTokens",
  begin_suppress_tokens: "beginSuppressTokens",
} as const satisfies Record<string, keyof GenerateOptions>;

/** What a file may not say although the option may: strings among ids, ids among strings. */
const LISTS: Readonly<Record<string, (value: unknown) => boolean>> = {
  stop_strings: (value) => [value].flat().every((one) => typeof one === "string"),
  bad_words_ids: (value) => Array.isArray(value) && value.every(Array.isArray),
  suppress_tokens: Array.isArray,
  begin_suppress_tokens: Array.isArray,
};

/** Keys that change what is generated and that Candlewick does not have, with the values that change nothing. */
const UNSUPPORTED: Readonly<Record<string, readonly unknown[]>> = {
  min_length: [0],
  max_time: [],
  typical_p: [1],
  top_h: [],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  diversity_penalty: [0],
  num_beam_groups: [1],
  penalty_alpha: [0],
  dola_layers: [],
  encoder_repetition_penalty: [1],
  encoder_no_repeat_ngram_size: [0],
  force_words_ids: [],
  constraints: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  exponential_decay_length_penalty: [],
  remove_invalid_values: [false],
  renormalize_logits: [false],
  sequence_bias: [],
  token_healing: [false],
  guidance_scale: [1],
  watermarking_config: [],
};

/**
 * Sampling and searching keys: where `config.json` has one of them, and there is no `generation_config.json`, it is
 * read for all.
 */
const GENERATION_KEYS = [...Object.keys(NAMES), ...Object.keys(UNSUPPORTED), "do_sample", "max_length"];

/** transformers' default of `top_k`, for a file that says to sample but gives no `top_k`. */
const TOP_K_OF_TRANSFORMERS = 50;

/** The defaults of a file, and its keys that are not supported. */
export interface Converted {
  readonly defaults: GenerationDefaults;
  /** As they stand in the file, with their values. */
  readonly unsupported: readonly string[];
}

/**
 * Reads generation keys as transformers does: without `do_sample` a file means greedy search.
 *
 * @param file Named in errors.
 * @throws {CandlewickError} `CONFIG_INVALID`: a value that cannot be.
 */
export function convertGeneration(file: string, json: Json): Converted {
  const wrong = (name: string, problem: string) => new CandlewickError("CONFIG_INVALID", `${file}: ${name} ${problem}`);
  const given = (name: string): unknown => json[name] ?? undefined;
  const options: Record<string, unknown> = {};
  for (const [theirs, ours] of Object.entries(NAMES)) {
    const value = given(theirs);
    if (value === undefined) continue;
    // A model's file may turn sampling off by a top_k of 0 and a top_p of 1, as transformers does.
    const problem = LISTS[theirs]?.(value) === false ? `must be a list of ${theirs === "stop_strings" ? "strings" : "token ids"}` : generateOptions[ours](value);
    if (problem) throw wrong(theirs, problem);
    // An empty list bans nothing.
    if (!Array.isArray(value) || value.length > 0) options[ours] = value;
  }
  const unsupported = Object.entries(UNSUPPORTED).flatMap(([name, neutral]) => {
    const value = given(name);
    return value === undefined || neutral.includes(value) || (Array.isArray(value) && value.length === 0) ? [] : [show(name, value)];
  });

  const maxLength = given("max_length");
  if (maxLength !== undefined) {
    if (!Number.isInteger(maxLength) || (maxLength as number) < 1) throw wrong("max_length", "must be an integer of at least 1");
    if (options["maxNewTokens"] === undefined) options["maxLength"] = maxLength;
  }

  const samples = given("do_sample") ?? false;
  if (typeof samples !== "boolean") throw wrong("do_sample", "must be true or false");
  const beams = (options["numBeams"] as number | undefined) ?? 1;
  const sequences = (options["numReturnSequences"] as number | undefined) ?? 1;
  if (samples && beams > 1) unsupported.push(show("do_sample", true));
  if (samples && beams === 1) {
    options["temperature"] ??= 1;
    options["topK"] ??= TOP_K_OF_TRANSFORMERS;
    delete options["numReturnSequences"];
    if (sequences > 1) options["n"] = sequences;
  } else {
    // What shapes a distribution has no effect on a search.
    for (const name of SAMPLING) delete options[name];
    options["temperature"] = 0;
    if (sequences > beams) throw wrong("num_return_sequences", `must be at most num_beams (${beams}) where nothing is sampled`);
  }
  if (beams === 1) for (const name of BEAMS) delete options[name];
  return { defaults: options, unsupported };
}

const show = (name: string, value: unknown): string => {
  const text = JSON.stringify(value);
  return `${name} ${text.length > 40 ? `${text.slice(0, 40)}…` : text}`;
};

/**
 * The generation defaults of a model's files; without any generation key there are none. What cannot be taken is named
 * in a warning of Node's (`CANDLEWICK_GENERATION_CONFIG`), once for each model.
 */
export function generationDefaults(source: string, files: GenerationFiles): GenerationDefaults | undefined {
  const json = generationKeys(files);
  if (!json) return undefined;
  const { defaults, unsupported } = convertGeneration(files.generation ? "generation_config.json" : "config.json", json);
  if (unsupported.length > 0) warn(source, unsupported);
  return defaults;
}

/** A model's files that say how it generates. */
export interface GenerationFiles {
  readonly config: Json;
  /** `generation_config.json`; `undefined` where there is none. */
  readonly generation: Json | undefined;
}

/** The keys that count: those of `generation_config.json`; without it those of `config.json`, if it has any. */
export function generationKeys({ config, generation }: GenerationFiles): Json | undefined {
  return generation ?? (GENERATION_KEYS.some((key) => key in config) ? config : undefined);
}

const warned = new Set<string>();

function warn(source: string, unsupported: readonly string[]): void {
  const message = `${source}: not supported, and left out of the generation defaults: ${unsupported.join(", ")}`;
  if (warned.has(message)) return;
  warned.add(message);
  process.emitWarning(message, { type: "CandlewickWarning", code: "CANDLEWICK_GENERATION_CONFIG" });
}

const SAMPLING = ["temperature", "topK", "topP", "minP"] as const;
const BEAMS = ["numBeams", "numReturnSequences", "lengthPenalty", "earlyStopping"] as const;

/**
 * A call's options over the defaults, without those defaults that they leave no room for: a call that asks for a
 * temperature does not want the defaults' beams, and one that asks for beams does not sample.
 */
export function overDefaults(given: GenerateOptions, defaults: GenerationDefaults): ResolvedOptions {
  const samples = SAMPLING.some((name) => given[name] !== undefined && given[name] !== 0) || (given.n ?? 1) > 1;
  const numBeams = given.numBeams ?? (samples || given.temperature === 0 ? 1 : (defaults.numBeams ?? 1));
  const idle = new Set<string>(numBeams > 1 ? [...SAMPLING, "n"] : given.temperature === 0 ? [...SAMPLING, ...BEAMS, "n"] : BEAMS);
  // Greedy by default, a model samples where it is asked to.
  if (samples && defaults.temperature === 0) idle.add("temperature");
  const { maxNewTokens: wishedNewTokens, maxLength: wishedLength, ...rest } = defaults;
  const fitting = Object.fromEntries(Object.entries(rest).filter(([name]) => !idle.has(name)));
  const options: ResolvedOptions = { ...fitting, ...given, numBeams };
  if (given.maxNewTokens === undefined) return { ...options, wishedNewTokens, wishedLength };
  if (given.minNewTokens === undefined && options.minNewTokens !== undefined) {
    options.minNewTokens = Math.min(options.minNewTokens, given.maxNewTokens);
  }
  return options;
}
