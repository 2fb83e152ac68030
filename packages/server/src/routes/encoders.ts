/** `POST /v1/embeddings`, `/v1/rerank` and `/v1/classify`: what a BERT does. */
import type { Call, Core } from "../core.js";
import { type ApiError, contextExceeded, invalid } from "../errors.js";
import type { Json } from "../json.js";
import type { Encoder } from "../models.js";
import { classifySchema, embeddingSchema, type EmbeddingRequest, parseRequest, rerankSchema } from "../schemas.js";
import { newId, now } from "./common.js";

export async function embeddings(core: Core, call: Call, json: Json): Promise<Response> {
  const request = parseRequest(embeddingSchema, json);
  const { entry, model } = core.models.encoder(request.model);
  const { encoding_format = "float", dimensions, truncate = false } = request;
  // A vector for each way of pooling, one after the other.
  const width = model.info.hiddenSize * model.info.sentences.pooling.length;
  if (dimensions !== undefined && dimensions > width) {
    throw invalid(`This model's vectors have ${width} dimensions, of which the first ones may be kept.`, "dimensions", "unsupported_parameter");
  }
  const texts = textsOf(request);
  if (!texts && !core.options.allowTokenIds) {
    throw invalid(
      "Token ids are right only if they are of this model's own tokenizer, which clients seldom have, so that the vectors would be silently wrong. " +
        "Send texts: in Python's LangChain with check_embedding_ctx_length=False.",
      "input",
      "token_ids_not_allowed",
    );
  }
  const work = core.begin(call, "embeddings", entry);
  try {
    const { vectors, promptTokens } = await work.run(async (signal) => {
      const inputs = texts ?? (await textsOfIds(model, request.input as number[] | number[][]));
      const promptTokens = await tokens(model, inputs, model.info.sentences.maxLength, truncate, "input", Array.isArray(request.input));
      await work.take(model, promptTokens);
      return { vectors: await model.embed(inputs, { signal, truncate, dimensions }), promptTokens };
    });
    const data = vectors.map((vector, index) => ({
      object: "embedding",
      index,
      embedding: encoding_format === "base64" ? base64(vector) : Array.from(vector),
    }));
    work.complete();
    return Response.json({ object: "list", data, model: entry.id, usage: { prompt_tokens: promptTokens, total_tokens: promptTokens } });
  } catch (error) {
    throw work.failure(error, "input");
  }
}

/** Little-endian float32, as OpenAI's clients read it. A row is a view of all rows' memory. */
const base64 = (vector: Float32Array): string => Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64");

const emptyText = (param: string): ApiError => invalid("A text is empty.", param);

function textsOf({ input }: EmbeddingRequest): string[] | undefined {
  if (input === "") throw emptyText("input");
  if (typeof input === "string") return [input];
  if (typeof input[0] !== "string") return undefined;
  const empty = (input as string[]).indexOf("");
  if (empty !== -1) throw emptyText(`input[${empty}]`);
  return input as string[];
}

/**
 * The texts that ids are of, with or without what the tokenizer puts around a text.
 *
 * @throws {ApiError} 400 for ids of no text, such as those of unknown words: a vector would be of other ids.
 */
async function textsOfIds(model: Encoder, input: number[] | number[][]): Promise<string[]> {
  const several = typeof input[0] !== "number";
  const lists = several ? (input as number[][]) : [input as number[]];
  const field = (at: number) => (several ? `input[${at}]` : "input");
  const odd = lists.findIndex((ids) => ids.some((id) => id >= model.info.vocabularySize));
  if (odd !== -1) throw invalid(`A token id is beyond the vocabulary of ${model.info.vocabularySize}.`, field(odd));
  const texts = await model.decode(lists);
  const again = await model.encode(texts, { truncate: false });
  const other = lists.findIndex((ids, at) => {
    const own = Array.from(again[at]!.ids);
    return own.join() !== ids.join() && own.slice(1, -1).join() !== ids.join();
  });
  if (other !== -1) throw invalid("No text has these token ids. Send the text.", field(other));
  return texts;
}

/** Tokens of all texts, as they are read. @throws {ApiError} 400 for one that is too long and is not to be cut. */
async function tokens(model: Encoder, texts: readonly string[], most: number, cut: boolean, field: string, several: boolean): Promise<number> {
  const counts = await model.countTokens(texts);
  if (cut) return counts.reduce((sum, count) => sum + Math.min(count, most), 0);
  const long = counts.findIndex((count) => count > most);
  if (long !== -1) throw contextExceeded(counts[long]!, 0, most, several ? `${field}[${long}]` : field);
  return counts.reduce((sum, count) => sum + count, 0);
}

/** As Cohere's and Jina's APIs. */
export async function rerank(core: Core, call: Call, json: Json): Promise<Response> {
  const request = parseRequest(rerankSchema, json);
  const { entry, model } = core.models.encoder(request.model);
  const { query, top_n, return_documents = false, truncate = false } = request;
  const documents = request.documents.map((one) => (typeof one === "string" ? one : one.text));
  const work = core.begin(call, "rerank", entry);
  try {
    const { ranked, count } = await work.run(async (signal) => {
      const { maxLength } = model.info;
      const [own = 0, ...each] = await model.countTokens([query, ...documents]);
      const long = each.findIndex((tokens) => tokens + own > maxLength);
      if (long !== -1 && !truncate) throw contextExceeded(each[long]! + own, 0, maxLength, `documents[${long}]`);
      const count = each.reduce((sum, tokens) => sum + Math.min(tokens + own, maxLength), 0);
      await work.take(model, count);
      return { ranked: await model.rerank({ query, documents }, { topK: top_n, truncate: truncate || undefined, signal }), count };
    });
    const results = ranked.map(({ index, score, document }) => ({
      index,
      relevance_score: score,
      ...(return_documents ? { document: { text: document } } : {}),
    }));
    work.complete();
    return Response.json({ id: newId("rerank"), object: "list", model: entry.id, results, usage: { prompt_tokens: count, total_tokens: count } });
  } catch (error) {
    throw work.failure(error, "documents");
  }
}

export async function classify(core: Core, call: Call, json: Json): Promise<Response> {
  const request = parseRequest(classifySchema, json);
  const { entry, model } = core.models.encoder(request.model);
  const { truncate = false } = request;
  const texts = typeof request.input === "string" ? [request.input] : request.input;
  const work = core.begin(call, "classify", entry);
  try {
    const { classes, count } = await work.run(async (signal) => {
      const count = await tokens(model, texts, model.info.maxLength, truncate, "input", Array.isArray(request.input));
      await work.take(model, count);
      return { classes: await model.classify(texts, { topK: "all", truncate, signal }), count };
    });
    const { labels } = model.info;
    const data = classes.map((all, index) => ({
      index,
      label: all[0]!.label,
      // By the labels' numbers, whose names are beside them.
      probs: labels.map((name) => all.find(({ label }) => label === name)!.score),
      labels,
      num_classes: labels.length,
    }));
    work.complete();
    return Response.json({ id: newId("classify"), object: "list", created: now(), model: entry.id, data, usage: { prompt_tokens: count, total_tokens: count, completion_tokens: 0 } });
  } catch (error) {
    throw work.failure(error, "input");
  }
}
