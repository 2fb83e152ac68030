/** `POST /tokenize` and `/detokenize`; `GET /v1/models`. */
import { tokenText } from "candlewick/openai";
import type { Call, Core } from "../core.js";
import { invalid, unsupported } from "../errors.js";
import { plainMessages } from "../generation.js";
import type { Json } from "../json.js";
import { type Entry, isGenerator, type ServedModel } from "../models.js";
import { detokenizeSchema, parseRequest, tokenizeSchema } from "../schemas.js";

export async function tokenize(core: Core, call: Call, json: Json): Promise<Response> {
  const { model: id, prompt, messages, return_token_strs = false } = parseRequest(tokenizeSchema, json);
  if ((prompt === undefined) === (messages === undefined)) throw invalid('Give either "prompt" or "messages".', "prompt");
  const { entry, model } = core.models.any(id);
  if (messages && !isGenerator(model)) throw unsupported("messages", "is for models that generate");
  const work = core.begin(call, "tokenize", entry);
  try {
    const ids = await work.run(async (signal) => {
      if (!isGenerator(model)) return (await model.encode(prompt!, { signal, truncate: false })).ids;
      return messages ? model.chatPrompt(plainMessages(messages, "messages"), { signal }) : model.encode(prompt!, { signal });
    });
    const strings = return_token_strs ? await tokenStrings(model, ids) : undefined;
    work.complete();
    const tokens = Array.from(ids);
    return Response.json({ count: tokens.length, max_model_len: model.info.positions, tokens, ...(strings ? { token_strs: strings } : {}) });
  } catch (error) {
    throw work.failure(error, messages ? "messages" : "prompt");
  }
}

async function tokenStrings(model: ServedModel, ids: Uint32Array): Promise<string[]> {
  if (!isGenerator(model)) return model.decode(Array.from(ids, (token) => [token]), { skipSpecialTokens: false });
  const vocabulary = await model.vocabulary();
  return Array.from(ids, (id) => tokenText(vocabulary.bytes(id)));
}

export async function detokenize(core: Core, call: Call, json: Json): Promise<Response> {
  const { model: id, tokens } = parseRequest(detokenizeSchema, json);
  const { entry, model } = core.models.any(id);
  const odd = tokens.findIndex((token) => token >= model.info.vocabularySize);
  if (odd !== -1) throw invalid(`The token id ${tokens[odd]} is beyond the vocabulary of ${model.info.vocabularySize}.`, `tokens[${odd}]`);
  const work = core.begin(call, "detokenize", entry);
  try {
    const prompt = tokens.length === 0 ? "" : await work.run(() => model.decode(tokens, { skipSpecialTokens: false }));
    work.complete();
    return Response.json({ prompt });
  } catch (error) {
    throw work.failure(error, "tokens");
  }
}

export const listModels = (core: Core): object => ({ object: "list", data: core.models.entries.map((entry) => modelObject(core, entry)) });

export const oneModel = (core: Core, id: string): object => modelObject(core, core.models.entry(id));

function modelObject(core: Core, { id, base, adapter }: Entry): object {
  const model = core.models.find(base);
  const common = { id, object: "model", created: core.models.created, owned_by: "candlewick", parent: adapter === undefined ? null : base, root: base };
  if (!model) return { ...common, status: "loading" };
  const { positions, dtype, device, parameters } = model.info;
  const can = isGenerator(model)
    ? { kind: "generator", chat: model.info.chat ?? null }
    : { kind: "encoder", head: model.info.head ?? null, labels: model.info.labels, dimensions: model.info.hiddenSize };
  return { ...common, status: "ready", max_model_len: positions, dtype, device, parameters, ...can };
}
