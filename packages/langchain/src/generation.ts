/** What the text model and the chat model have in common: settings, calls, and what is said of a generation. */
import type { AsyncCaller } from "@langchain/core/utils/async_caller";
import { CandlewickError, type GenerateOptions, type GenerationResult, type TokenStream } from "candlewick";

/** A call has one answer, and its signal and stop strings are LangChain's. */
type Elsewhere = "signal" | "stop" | "n" | "numReturnSequences" | "continueFrom";
const REFUSED: readonly string[] = ["n", "numReturnSequences", "continueFrom"] satisfies Elsewhere[];

/** How text is generated, of all calls or of one: `generate()`'s options. */
export type CallSettings = Omit<GenerateOptions, Elsewhere>;
export interface GenerationSettings extends CallSettings {
  /** The text ends before the first of these. A call's `stop` takes their place. */
  stop?: readonly string[];
}

/** LangChain's own fields of a model, which are no settings. */
const FIELDS = [
  "cache",
  "callbackManager",
  "callbacks",
  "disableStreaming",
  "maxConcurrency",
  "maxRetries",
  "metadata",
  "model",
  "onFailedAttempt",
  "outputVersion",
  "streaming",
  "tags",
  "verbose",
];

/** The settings among a model's fields; `generate()` checks them. */
export function settingsOf(fields: object): GenerateOptions {
  return one(Object.entries(fields).filter(([name]) => !FIELDS.includes(name)));
}

/** LangChain's own options of a call, beside those that it takes out itself. */
const CALL_OPTIONS = ["maxConcurrency", "maxRetries", "outputVersion", "promptIndex", "stream", "timeout"];
const TOOLS = ["tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "response_format"];
/** Settings whose values are objects. */
const OBJECTS = ["badWords", "beginSuppressTokens", "logitBias", "signal", "speculation", "stop", "stopTokenIds", "suppressTokens"];

/**
 * The settings among a call's options. What frameworks put beside them (a store, a writer) is left out: these are
 * objects and functions. A number, a string or a truth value that is no setting is a mistake, which `generate()` names.
 */
export function callSettingsOf(options: object): GenerateOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const tool = given.find(([name, value]) => TOOLS.includes(name) && !(Array.isArray(value) && value.length === 0));
  if (tool) throw unable(tool[0]);
  return one(
    given.filter(([name, value]) => {
      if (CALL_OPTIONS.includes(name) || TOOLS.includes(name) || name.startsWith("ls_")) return false;
      return OBJECTS.includes(name) || (typeof value !== "object" && typeof value !== "function");
    }),
  );
}

/** What traces show of a call: the model and its settings, without what is no value. */
export function invocationOf(model: string, settings: object, options: object = {}): Record<string, unknown> {
  const { signal: _signal, speculation: _speculation, ...shown } = { ...settings, ...callSettingsOf(options) };
  return { model, ...shown };
}

function one(entries: [string, unknown][]): GenerateOptions {
  const several = entries.find(([name]) => REFUSED.includes(name));
  if (several) throw new CandlewickError("OPTION_INVALID", `${several[0]} cannot be given here: a call has one answer`);
  return Object.fromEntries(entries) as GenerateOptions;
}

/** Of one that a GPT-2 has not learned. */
export function unable(what: string): CandlewickError {
  return new CandlewickError("TASK_UNSUPPORTED", `${what}: the model answers in text, and knows no tools and no schemas`);
}

/** A stream whose prompt was accepted; a full queue is asked again, as often as the model's `maxRetries` says. */
export function accepted(caller: AsyncCaller, options: { signal?: AbortSignal; maxRetries?: number }, begin: () => TokenStream): Promise<TokenStream> {
  const { signal, maxRetries } = options;
  return caller.callWithOptions({ signal, maxRetries }, async () => {
    const stream = begin();
    await stream.accepted;
    return stream;
  });
}

/** The result of all of `works`; when one fails the others are ended, and waited for, before it is thrown. */
export async function allOrNone<T>(signal: AbortSignal | undefined, works: readonly ((signal: AbortSignal) => Promise<T>)[]): Promise<T[]> {
  const failed = new AbortController();
  const either = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal;
  const begun = works.map((work) => work(either));
  try {
    return await Promise.all(begun);
  } catch (error) {
    failed.abort(error);
    await Promise.allSettled(begun);
    throw error;
  }
}

/** What LangChain's tracers and cost counters read. */
export function tokenUsage(results: readonly GenerationResult[]) {
  const sum = (name: "promptTokens" | "completionTokens" | "totalTokens") => results.reduce((total, { usage }) => total + usage[name], 0);
  return { promptTokens: sum("promptTokens"), completionTokens: sum("completionTokens"), totalTokens: sum("totalTokens") };
}

/** How a generation ended and what it took. */
export function infoOf({ finishReason, stopSequence, stopTokenId, seed, timings, tokens }: GenerationResult): Record<string, unknown> {
  const reported = tokens.some(({ topLogprobs }) => topLogprobs !== undefined);
  const logprobs = tokens.map(({ id, text, logprob, topLogprobs }) => ({ id, text, logprob, topLogprobs }));
  return {
    finish_reason: finishReason,
    ...(stopSequence !== undefined && { stop_sequence: stopSequence }),
    ...(stopTokenId !== undefined && { stop_token_id: stopTokenId }),
    seed,
    timings,
    ...(reported && { logprobs }),
  };
}
