import { chat, chatKind, chatPrompt, type ChatKind, type ChatOptions, type ChatPromptOptions } from "./chat/chat.js";
import type { Conversation, Message } from "./chat/messages.js";
import { abortError, CandlewickError } from "./errors.js";
import { generationDefaults, type GenerationDefaults, overDefaults } from "./generation-defaults.js";
import { generateOptions, nativeOptions, type ResolvedOptions } from "./generation-options.js";
import { isSeveral, nativePrompts, nativeTexts, unpack } from "./inputs.js";
import { load, loadOptions, type LoadOptions } from "./load.js";
import { Model } from "./model.js";
import {
  native,
  type NativeGenerator,
  type NativePrompts,
  type NativeTokenStream,
  type PackedBytes,
  type PackedIds,
} from "./native.js";
import { type Check, checkOptions, checks, isPlainObject, type OptionTable } from "./options.js";
import { abortable, call, callSync, mailbox } from "./runtime.js";
import { type ScoreOptions, scoreOptions, scorePrompts, type TextScore } from "./score.js";
import { inSlices } from "./slices.js";
import type { GPT2Stats } from "./stats.js";
import { TokenStream } from "./stream.js";
import { readTaskParameters, type TaskParameters } from "./task-parameters.js";
import type { GenerateOptions, Prompt, TokenIds } from "./types.js";
import { Vocabulary } from "./vocabulary.js";
import { warnIfSlow } from "./slow-bf16.js";

/** What is known about a loaded GPT-2. */
export interface GPT2Info {
  readonly modelType: string;
  /** Rows of the embedding: ids are below it. */
  readonly vocabularySize: number;
  /** Entries of the tokenizer; absent for a model without one, which takes and gives ids alone. */
  readonly tokenizerSize?: number;
  /** Tokens that prompt and continuation together may have. */
  readonly positions: number;
  readonly layers: number;
  readonly hiddenSize: number;
  readonly heads: number;
  /** Number of weights. */
  readonly parameters: number;
  /** Bytes of weights in memory. */
  readonly weightBytes: number;
  readonly bosTokenId?: number;
  readonly eosTokenIds: readonly number[];
  readonly dtype: string;
  /** `"cpu"`, `"cuda"`, or another GPU than the first, such as `"cuda:1"`. */
  readonly device: string;
  /** A GPU's name, such as `"NVIDIA H100 80GB HBM3"`. */
  readonly deviceName?: string;
  /** Threads that compute. */
  readonly threads: number;
  /**
   * What products are computed with: `"avx512bf16"`, `"avx512vnni"`, `"avx512"`, `"avx2"`, `"neondotprod"`, `"neon"` or
   * `"portable"`, which differ in speed alone; on a GPU its compute capability, such as `"9.0"`.
   */
  readonly instructionSet: string;
  /** Names of the adapters that `generate` may be asked for. */
  readonly adapters: readonly string[];
  /**
   * What `generate` does where a call does not say: the model's `generation_config.json`, else the generation keys of
   * its `config.json`, as transformers reads them. Empty where the files say nothing.
   */
  readonly generationDefaults: GenerationDefaults;
  /**
   * How {@link GPT2.chat} makes ids of a conversation: by the chat template in the model's files, or as the turns of a
   * dialogue that `finetune()` has taught it. Absent: the files say nothing of conversations.
   */
  readonly chat?: ChatKind;
}

export interface EncodeOptions {
  /** Aborting it ends the call before the next text, with code `ABORTED`. */
  signal?: AbortSignal;
}

const encodeOptions: OptionTable<EncodeOptions> = { signal: checks.signal };

/**
 * Characters of a token, more than any vocabulary has (GPT-2's longest: 128). A megabyte need not be tokenised to know
 * that it does not fit.
 */
const LONGEST_TOKEN = 512;

/** @internal What a generation starts from. */
export interface Making {
  readonly prompts: readonly Uint32Array[];
  readonly options: ResolvedOptions;
}

/**
 * A GPT-2 in memory, with threads of its own; {@link loadGPT2} makes it. Any number of generations may run on it at
 * once; they are computed together, and each gets the tokens that it would get alone. An idle model does not keep the
 * process alive. `close()` frees it, as does the end of an `await using` block and, at some time, the garbage
 * collector.
 */
export class GPT2 extends Model {
  readonly info: GPT2Info;
  /** @internal What the model's files say of how it is used. */
  readonly tasks: TaskParameters;
  readonly #native: NativeGenerator;
  #vocabulary: Promise<Vocabulary> | undefined;
  #templateEnd: Promise<number | null> | undefined;

  private constructor(source: string, generator: NativeGenerator, tasks: TaskParameters) {
    super(source, generator);
    this.#native = generator;
    const defaults = generationDefaults(source, tasks);
    const { chatTemplate, ...info } = generator.info;
    const chat = chatKind(chatTemplate, tasks);
    this.info = Object.freeze({ ...info, generationDefaults: Object.freeze(defaults ?? {}), ...(chat && { chat }) });
    this.tasks = tasks;
  }

  /** @internal */
  static of(source: string, generator: NativeGenerator, tasks: TaskParameters): GPT2 {
    return new GPT2(source, generator, tasks);
  }

  /**
   * Starts to continue `prompt` and streams what comes.
   *
   * @throws {CandlewickError} At once: `OPTION_UNKNOWN`, `OPTION_INVALID`, `PROMPT_EMPTY`, `MODEL_CLOSED`,
   *   `TOKENIZER_MISSING` (stop strings without a tokenizer). Through the stream: `CONTEXT_OVERFLOW`, `INPUT_INVALID`
   *   (an id outside the vocabulary), `TOKENIZER_MISSING` (a text), `QUEUE_FULL`, `OUT_OF_MEMORY` (more beams than
   *   `kvCacheBytes` holds), `DEADLINE_EXCEEDED`, `ABORTED`, `MODEL_CLOSED` (closed meanwhile).
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): TokenStream {
    return this.generateWith(prompt, checkOptions("generate", options, generateOptions), this.info.generationDefaults);
  }

  /**
   * Answers a conversation: `generate()` on the ids that {@link chatPrompt} gives. A string is one turn, the user's.
   *
   * @throws {CandlewickError} At once: `CHAT_TEMPLATE_MISSING`, `INPUT_INVALID` (no messages, or ones that do not end
   *   with a turn to be answered, or that the model's form of a conversation cannot say), `PROMPT_EMPTY`,
   *   `OPTION_UNKNOWN`, `OPTION_INVALID`, `MODEL_CLOSED`. Through the stream: `CONTEXT_OVERFLOW`,
   *   `CHAT_TEMPLATE_INVALID`, `INPUT_INVALID` (what the template refuses), and what a generation ends with.
   */
  chat(messages: Conversation, options: ChatOptions = {}): TokenStream {
    return chat(this, messages, options);
  }

  /**
   * The ids of a conversation, as {@link chat} would continue them. The name of a special token in a message is text.
   *
   * @throws {CandlewickError} As {@link chat}, all of it by the promise.
   */
  chatPrompt(messages: Conversation, options: ChatPromptOptions = {}): Promise<Uint32Array> {
    return chatPrompt(this, messages, options);
  }

  /** @internal As {@link generate}, with options that were checked and other defaults than the model's general ones. */
  generateWith(prompt: Prompt, options: GenerateOptions, defaults: GenerationDefaults): TokenStream {
    const resolved = overDefaults(options, defaults);
    const prompts = nativePrompts("generate", prompt);
    const { signal } = options;
    this.checkOpen();
    const stream = signal?.aborted ? Promise.reject(abortError(signal)) : this.begin(prompts, resolved);
    return TokenStream.of(this.source, stream, signal, () => this.vocabulary());
  }

  /**
   * @internal Starts a generation from ids and options that are still being made; what is wrong with them comes through
   * the stream.
   */
  generateFrom(make: () => Promise<Making>, signal?: AbortSignal): TokenStream {
    this.checkOpen();
    const begin = async () => {
      if (signal?.aborted) throw abortError(signal);
      const { prompts, options } = await make();
      if (signal?.aborted) throw abortError(signal);
      return this.begin(nativePrompts("generate", prompts), options);
    };
    return TokenStream.of(this.source, begin(), signal, () => this.vocabulary());
  }

  /**
   * @internal The ids of each text by itself, as training sees it: nothing is put around it. Of one that cannot fit,
   * `CONTEXT_OVERFLOW` at once.
   */
  async plainIds(texts: readonly string[], signal?: AbortSignal): Promise<Uint32Array[]> {
    this.checkOpen();
    this.#checkLength(texts);
    const packed = await abortable<PackedIds>(signal, (id, cancel) => this.#native.encode(mailbox, id, texts.slice(), false, cancel));
    return unpack(packed);
  }

  /** @internal The ids of a conversation by the model's chat template. */
  async templateIds(messages: readonly Message[], addGenerationPrompt: boolean, signal?: AbortSignal): Promise<Uint32Array> {
    this.checkOpen();
    // All together, so that a long conversation does not hold up the text thread either.
    this.#checkLength([{ length: messages.reduce((sum, { content }) => sum + content.length, 0) }]);
    const conversation = {
      roles: messages.map(({ role }) => role),
      contents: messages.map(({ content }) => content),
      addGenerationPrompt,
      now: Date.now() - new Date().getTimezoneOffset() * 60_000,
    };
    const packed = await abortable<PackedIds>(signal, (id, cancel) => this.#native.chatPrompt(mailbox, id, conversation, cancel));
    return unpack(packed)[0]!;
  }

  /** @internal The token that ends the assistant's turn in the model's chat template, if one does. */
  async templateEnd(): Promise<number | undefined> {
    this.checkOpen();
    const find = () => call<number | null>((id) => this.#native.chatEnd(mailbox, id));
    return (await (this.#templateEnd ??= find())) ?? undefined;
  }

  #checkLength(texts: readonly { readonly length: number }[]): void {
    const most = this.info.positions * LONGEST_TOKEN;
    const long = texts.find((text) => text.length > most);
    if (long !== undefined) {
      throw new CandlewickError("CONTEXT_OVERFLOW", `A text of ${long.length} characters does not fit in the model's ${this.info.positions} positions`);
    }
  }

  /** @internal */
  begin(prompts: NativePrompts, options: ResolvedOptions): NativeTokenStream {
    this.checkOpen();
    const { speculation } = options;
    const draft = typeof speculation === "object" ? speculation.draft.#native : undefined;
    return callSync(() => this.#native.generate(prompts, nativeOptions(options), draft));
  }

  /**
   * What the model thinks of tokens that exist: the log-probability of each token of a text, or of each of several,
   * after those before it. Nothing is generated; texts share the model's steps with what else runs, and their scores do
   * not depend on it.
   *
   * @throws {CandlewickError} By the promise: `OPTION_UNKNOWN`, `OPTION_INVALID`, `PROMPT_EMPTY`, `CONTEXT_OVERFLOW` (a
   *   text of more tokens than the model has positions), `INPUT_INVALID` (an id outside the vocabulary),
   *   `TOKENIZER_MISSING` (a text), `QUEUE_FULL`, `ABORTED`, `MODEL_CLOSED`. Of several texts, `index` says which.
   */
  score(input: string | TokenIds, options?: ScoreOptions): Promise<TextScore>;
  score(inputs: readonly string[] | readonly TokenIds[], options?: ScoreOptions): Promise<TextScore[]>;
  score(input: Prompt, options?: ScoreOptions): Promise<TextScore | TextScore[]>;
  async score(input: Prompt, options: ScoreOptions = {}): Promise<TextScore | TextScore[]> {
    const checked = checkOptions("score", options, scoreOptions);
    const prompts = nativePrompts("score", input);
    this.checkOpen();
    const vocabulary = this.info.tokenizerSize === undefined ? undefined : this.vocabulary();
    const scores = await scorePrompts(this.#native, prompts, checked, vocabulary);
    return isSeveral(input) ? scores : scores[0]!;
  }

  /**
   * The bytes of every token, for those who look at ids one by one. Made once; a call after the first costs nothing.
   *
   * @throws {CandlewickError} By the promise: `TOKENIZER_MISSING`, `MODEL_CLOSED`.
   */
  async vocabulary(): Promise<Vocabulary> {
    this.checkOpen();
    const make = () => call<PackedBytes>((id) => this.#native.vocabulary(mailbox, id)).then(Vocabulary.of);
    return (this.#vocabulary ??= make());
  }

  /** What the model is doing: what runs and waits, its memory, its speed. Costs microseconds, and never waits. */
  stats(): GPT2Stats {
    this.checkOpen();
    return this.#native.stats();
  }

  /** The ids of a text, or of each of several. A special token that stands in the text becomes its id. */
  encode(text: string, options?: EncodeOptions): Promise<Uint32Array>;
  encode(texts: readonly string[], options?: EncodeOptions): Promise<Uint32Array[]>;
  async encode(text: string | readonly string[], options: EncodeOptions = {}): Promise<Uint32Array | Uint32Array[]> {
    const { signal } = checkOptions("encode", options, encodeOptions);
    const texts = nativeTexts("encode", text);
    this.checkOpen();
    const ids = await inSlices(texts, async (slice) => {
      const packed = await abortable<PackedIds>(signal, (id, cancel) =>
        this.#native.encode(mailbox, id, slice.slice(), true, cancel),
      );
      return unpack(packed);
    });
    return typeof text === "string" ? ids[0]! : ids;
  }
}

export interface GPT2LoadOptions extends LoadOptions {
  /**
   * LoRA adapters in PEFT's files (`adapter_config.json`, `adapter_model.safetensors`): a folder by name. Each
   * generation may ask for one (`adapter`), and generations with different ones run together. They add up to the
   * weights without being merged, so they may lie over weights of any dtype; on the CPU only.
   */
  adapters?: Readonly<Record<string, string>>;
  /**
   * Bytes for the keys and values of all sequences together, and of prefixes that are kept. Taken as they are needed.
   * When they are all in use, the youngest sequence waits, and its past is computed again. Less than one sequence of
   * all positions needs, or more than this process may use, is `OPTION_INVALID`. Default: a quarter of what this
   * process may use, at most 2 GiB; on a GPU what 64 sequences of all positions need, at most half of its free
   * memory.
   */
  kvCacheBytes?: number;
}

const adapters: Check = (value) => {
  if (!isPlainObject(value)) return "must be a plain object of folders by name";
  return Object.values(value).some((folder) => checks.string(folder) !== undefined) ? "must have paths of folders as values" : undefined;
};

const gpt2LoadOptions: OptionTable<GPT2LoadOptions> = { ...loadOptions, adapters, kvCacheBytes: checks.integer(1) };

/**
 * Loads a GPT-2: a folder in Hugging Face's layout (`config.json`, `*.safetensors` or a shard index, `tokenizer.json`
 * or `vocab.json` and `merges.txt`), a package of weights, or a hub id, whose files are looked up in the hub's own
 * cache on this machine and downloaded if they are not there. Any of these may be a LoRA adapter in PEFT's layout
 * (`adapter_config.json`, `adapter_model.safetensors`): it is merged into its base, which `base_model_name_or_path`
 * names: a path from the adapter's folder, a package, a path from the working directory or a hub id.
 *
 * @throws {CandlewickError} `OPTION_UNKNOWN`, `OPTION_INVALID`, `ABORTED`, and what can be wrong with a model's files:
 *   `MODEL_NOT_FOUND`, `CONFIG_INVALID`, `WEIGHTS_CORRUPT` and the others in `docs/errors.md`. Of a
 *   `generation_config.json`, a value that cannot be is `CONFIG_INVALID`, and what is not supported is named in one
 *   warning (`CANDLEWICK_GENERATION_CONFIG`).
 */
export async function loadGPT2(source: string, options: GPT2LoadOptions = {}): Promise<GPT2> {
  const table = gpt2LoadOptions;
  const { model, folders } = await load<NativeGenerator, GPT2LoadOptions>("loadGPT2", native.loadGenerator, source, options, table);
  try {
    const lm = GPT2.of(source, model, await readTaskParameters(folders));
    warnIfSlow(lm.info);
    return lm;
  } catch (error) {
    await call<void>((id) => model.close(mailbox, id));
    throw error;
  }
}
