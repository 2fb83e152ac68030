/** `POST /v1/completions`. */
import type { GenerationResult, TextScore } from "candlewick";
import {
  type ApiUsage,
  apiUsage,
  completionEvents,
  type CompletionLogprobs,
  CompletionReport,
  DONE,
  event,
  type Reported,
  type TokenSource,
  wholePiece,
} from "candlewick/openai";
import type { Call, Core } from "../core.js";
import { contextExceeded, invalid } from "../errors.js";
import { type CommonOptions, samplingOptions, streamUsage } from "../generation.js";
import type { Json } from "../json.js";
import type { Generator } from "../models.js";
import { completionSchema, type CompletionRequest, parseRequest } from "../schemas.js";
import type { Work } from "../work.js";
import { answerHead, checkChoices, checkReported, tokensOf } from "./common.js";

/** OpenAI's default. */
const MAX_TOKENS = 16;

export async function completions(core: Core, call: Call, json: Json): Promise<Response> {
  const request = parseRequest(completionSchema, json);
  const { entry, model } = core.models.generator(request.model);
  const { stream = false, n = 1, best_of = n, max_tokens = MAX_TOKENS, echo = false, logprobs } = request;
  if (best_of < n) throw invalid('"best_of" must be at least "n".', "best_of");
  if (best_of > n && stream) throw invalid('"best_of" above "n" cannot be streamed: the best are known at the end.', "best_of");
  const usage = streamUsage(request);
  const prompts = promptsOf(request.prompt);
  const work = core.begin(call, "text_completion", entry, { max_tokens, temperature: request.temperature, top_p: request.top_p });
  try {
    const head = answerHead("cmpl", "text_completion", entry, core.models.fingerprint(entry.base, model));
    const read = tokensOf(prompts);
    const made = prompts.length * best_of * max_tokens;
    checkChoices(prompts.length * best_of);
    checkReported((echo ? read * n : 0) + (stream ? 0 : made), logprobs);
    // The prompts of an echo with log-probabilities are read once more, to be scored.
    const tokens = read * (echo && logprobs !== undefined ? 2 : 1) + made;
    const answer = { work, model, request, prompts, head };
    await work.admit(model, tokens);
    if (max_tokens === 0) return await withoutTokens(answer);
    const options: CommonOptions = {
      ...samplingOptions(request),
      n: best_of,
      maxNewTokens: max_tokens,
      // The best of several are those whose tokens are likeliest.
      logprobs: logprobs ?? (best_of > n ? 0 : undefined),
    };
    const source = await work.start((standing) => model.generate(request.prompt, { ...options, ...standing }));
    if (stream) return work.events(streamed(answer, source, usage));
    const answered = await whole(answer, source);
    work.complete();
    return Response.json(answered);
  } catch (error) {
    throw work.failure(error, "prompt");
  }
}

interface Answer {
  readonly work: Work;
  readonly model: Generator;
  readonly request: CompletionRequest;
  readonly prompts: readonly (string | readonly number[])[];
  readonly head: ReturnType<typeof answerHead>;
}

function promptsOf(prompt: CompletionRequest["prompt"]): readonly (string | readonly number[])[] {
  if (typeof prompt === "string") return [prompt];
  return typeof prompt[0] === "number" ? [prompt as readonly number[]] : (prompt as readonly (string | readonly number[])[]);
}

/** What is said of each prompt beside its completion. */
interface Prompts {
  readonly texts: readonly string[];
  /** Of `echo` with `logprobs`. */
  readonly scores?: readonly TextScore[];
}

async function readPrompts({ model, prompts, request, work }: Answer): Promise<Prompts> {
  const { echo = false, logprobs } = request;
  if (!echo && logprobs === undefined) return { texts: [] };
  const texts = await Promise.all(prompts.map((prompt) => (typeof prompt === "string" ? prompt : model.decode(prompt, { skipSpecialTokens: false }))));
  if (!echo || logprobs === undefined) return { texts };
  const { speculation: _, ...standing } = work.standing;
  const scores = await model.score(prompts as string[], { ...standing, topLogprobs: logprobs });
  return { texts, scores };
}

const points = (text: string): number => Array.from(text).length;

/** Makes the reports of choices: of a prompt's tokens, if it is echoed, and of the tokens that follow it. */
async function reporter({ model, request }: Answer, { texts, scores }: Prompts, perPrompt: number) {
  const vocabulary = await model.vocabulary();
  const reports = new Map<number, CompletionReport>();
  const report = (sequence: number, tokens: readonly Reported[]): CompletionLogprobs => {
    let own = reports.get(sequence);
    if (!own) {
      const prompt = Math.floor(sequence / perPrompt);
      reports.set(sequence, (own = new CompletionReport(vocabulary, scores ? 0 : points(texts[prompt]!))));
    }
    return own.of(tokens);
  };
  return request.logprobs === undefined ? undefined : report;
}

async function* streamed(answer: Answer, source: TokenSource, usage: boolean): AsyncGenerator<string, void> {
  const { request, head } = answer;
  const { n = 1, echo = false, logprobs } = request;
  const prompts = await readPrompts(answer);
  const report = logprobs === undefined ? undefined : await reporter(answer, prompts, n);
  if (echo) {
    for (let index = 0; index < answer.prompts.length * n; index++) {
      const prompt = Math.floor(index / n);
      const choice = { index, text: prompts.texts[prompt], logprobs: report?.(index, prompts.scores![prompt]!.tokens) ?? null, finish_reason: null };
      yield event({ ...head, ...(usage ? { usage: null } : {}), choices: [choice] });
    }
  }
  yield* completionEvents(source, { head, usage, report });
  yield DONE;
}

async function whole(answer: Answer, source: TokenSource): Promise<object> {
  const { request, head } = answer;
  const { n = 1, best_of = n, echo = false, logprobs } = request;
  const [result, prompts] = await Promise.all([source.result, readPrompts(answer)]);
  const report = logprobs === undefined ? undefined : await reporter(answer, prompts, n);
  const choices = chosen(result, best_of, n).map(({ text, tokens, finishReason, prompt }, index) => {
    const own = wholePiece(tokens, index, finishReason).tokens;
    const before = prompts.scores?.[prompt]?.tokens ?? [];
    return {
      index,
      text: (echo ? prompts.texts[prompt] : "") + text,
      logprobs: report?.(index, [...before, ...own]) ?? null,
      finish_reason: finishReason,
    };
  });
  return { ...head, choices, usage: apiUsage(result.usage) };
}

/** Of each prompt's samples the `n` whose tokens are likeliest on average, best first; if all stay, in their order. */
function chosen({ sequences }: GenerationResult, bestOf: number, n: number): GenerationResult["sequences"][number][] {
  if (bestOf === n) return Array.from(sequences);
  const mean = ({ tokens }: GenerationResult["sequences"][number]) => tokens.reduce((sum, { logprob = 0 }) => sum + logprob, 0) / Math.max(1, tokens.length);
  const best = [];
  for (let from = 0; from < sequences.length; from += bestOf) {
    best.push(...sequences.slice(from, from + bestOf).sort((a, b) => mean(b) - mean(a)).slice(0, n));
  }
  return best;
}

/** With `max_tokens: 0` there is the prompt alone. */
async function withoutTokens(answer: Answer): Promise<Response> {
  const { request, head, model, work } = answer;
  const { n = 1, echo = false, logprobs, stream = false } = request;
  const counts = await work.run(() => Promise.all(answer.prompts.map((prompt) => (typeof prompt === "string" ? model.countTokens(prompt) : prompt.length))));
  const { positions } = model.info;
  const long = counts.findIndex((count) => count > positions);
  if (long !== -1) throw contextExceeded(counts[long]!, 0, positions, answer.prompts.length > 1 ? `prompt[${long}]` : "prompt");
  const prompts = await work.run(() => readPrompts(answer));
  const report = logprobs === undefined ? undefined : await reporter(answer, prompts, n);
  const choices = Array.from({ length: answer.prompts.length * n }, (_, index) => {
    const prompt = Math.floor(index / n);
    return { index, text: echo ? prompts.texts[prompt] : "", logprobs: report?.(index, prompts.scores?.[prompt]?.tokens ?? []) ?? null, finish_reason: "length" };
  });
  const total = counts.reduce((sum, count) => sum + count, 0);
  const usage: ApiUsage = { prompt_tokens: total, completion_tokens: 0, total_tokens: total, prompt_tokens_details: { cached_tokens: 0 } };
  work.read(total);
  if (!stream) {
    work.complete();
    return Response.json({ ...head, choices, usage });
  }
  const withUsage = streamUsage(request);
  return work.events(
    (async function* () {
      for (const choice of choices) yield event({ ...head, ...(withUsage ? { usage: null } : {}), choices: [choice] });
      if (withUsage) yield event({ ...head, choices: [], usage });
      yield DONE;
    })(),
  );
}
