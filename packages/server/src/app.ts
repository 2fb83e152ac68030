/** The routes, and what every request goes through: its id, its key, its line in the log. */
import { createHash } from "node:crypto";
import { type Context, Hono } from "hono";
import { describeRoute, openAPIRouteHandler, resolver } from "hono-openapi";
import type { GenericSchema } from "valibot";
import type { Call, Core } from "./core.js";
import { ApiError, apiError, newRequestId, unavailable } from "./errors.js";
import { type Json, readJson } from "./json.js";
import { addPage } from "./page.js";
import { chatCompletions } from "./routes/chat.js";
import { completions } from "./routes/completions.js";
import { classify, embeddings, rerank } from "./routes/encoders.js";
import { responses } from "./routes/responses.js";
import { detokenize, listModels, oneModel, tokenize } from "./routes/texts.js";
import {
  chatSchema,
  classifySchema,
  completionSchema,
  detokenizeSchema,
  embeddingSchema,
  rerankSchema,
  responseSchema,
  tokenizeSchema,
} from "./schemas.js";

export interface Variables {
  id: string;
  started: number;
  notes: Record<string, unknown>;
  /** It is no line in the log. */
  quiet: boolean;
}
export type App = Hono<{ Variables: Variables }>;
type Ctx = Context<{ Variables: Variables }>;

interface Route {
  readonly path: string;
  readonly summary: string;
  readonly schema: GenericSchema;
  readonly streams?: boolean;
  run(core: Core, call: Call, json: Json): Promise<Response>;
}

const ROUTES: readonly Route[] = [
  { path: "/v1/completions", summary: "Continues prompts.", schema: completionSchema, streams: true, run: completions },
  { path: "/v1/chat/completions", summary: "Answers a conversation.", schema: chatSchema, streams: true, run: chatCompletions },
  { path: "/v1/responses", summary: "Answers a conversation; nothing is kept.", schema: responseSchema, streams: true, run: responses },
  { path: "/v1/embeddings", summary: "Vectors of texts.", schema: embeddingSchema, run: embeddings },
  { path: "/v1/rerank", summary: "Orders documents by how well they answer a query.", schema: rerankSchema, run: rerank },
  { path: "/v1/classify", summary: "Labels of texts, with probabilities.", schema: classifySchema, run: classify },
  { path: "/tokenize", summary: "Token ids of a text or a conversation.", schema: tokenizeSchema, run: tokenize },
  { path: "/detokenize", summary: "The text of token ids.", schema: detokenizeSchema, run: detokenize },
];

export function createApp(core: Core, basePath: string): App {
  const app = new Hono<{ Variables: Variables }>().basePath(basePath);

  app.use(async (c, next) => {
    const given = c.req.header("x-request-id");
    c.set("id", given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : newRequestId());
    c.set("started", performance.now());
    c.set("notes", {});
    c.set("quiet", false);
    await next();
    c.res.headers.set("x-request-id", c.get("id"));
    c.res.headers.set("x-content-type-options", "nosniff");
    if (!c.res.headers.has("cache-control")) c.res.headers.set("cache-control", "no-store");
    record(core, c);
  });

  addOperations(app, core);
  for (const route of ROUTES) addRoute(app, core, route);
  addGet(app, core, "/v1/models", "The models, adapters among them.", (c) => c.json(listModels(check(core, c))));
  addGet(app, core, "/v1/models/:id{.+}", "One model.", (c) => c.json(oneModel(check(core, c), c.req.param("id")!)));
  app.get("/openapi.json", async (c, next) => {
    core.access.caller(c.req.raw.headers);
    return openAPIRouteHandler(app, { documentation: { info: { title: "Candlewick", version: "1", description: "OpenAI's API over Candlewick's models." } } })(c, next);
  });
  onlyMethod(app, core, "/openapi.json", "GET");
  if (core.options.page !== false) addPage(app, (headers) => core.access.caller(headers));

  app.notFound((c) => respond(core, c, new ApiError(404, "There is no such route.", { code: "unknown_route" })));
  app.onError((error, c) => {
    const failure = apiError(error);
    if (failure.status >= 500 && !(error instanceof ApiError)) core.options.log?.error({ request_id: c.get("id"), err: error }, "failed");
    return respond(core, c, failure);
  });
  return app;
}

/** The core, for one who has a key. */
function check(core: Core, c: Ctx): Core {
  c.get("notes")["key"] = core.access.caller(c.req.raw.headers).name;
  return core;
}

function respond(core: Core, c: Ctx, { status, body, headers }: ApiError): Response {
  c.get("notes")["error"] = body.error.code;
  core.metrics.rejected(status);
  return c.json(body, status as 400, headers as Record<string, string>);
}

function addRoute(app: App, core: Core, { path, summary, schema, streams = false, run }: Route): void {
  const content = { "application/json": { schema: resolver(schema) } };
  const answers = { "application/json": {}, ...(streams ? { "text/event-stream": {} } : {}) };
  app.post(
    path,
    describeRoute({ summary, requestBody: { required: true, content: content as never }, responses: { 200: { description: "The answer.", content: answers }, default: { description: "{error: {message, type, param, code}}" } } }),
    async (c) => {
      const { raw } = c.req;
      const caller = core.access.caller(raw.headers);
      const notes = c.get("notes");
      notes["key"] = caller.name;
      if (core.draining) throw unavailable("The server is ending.", "server_draining");
      await core.access.count(caller);
      const { maxBodyBytes: maxBytes, bodyTimeoutMs: timeoutMs } = core.options;
      const json = await readJson(raw, { budget: core.bodies, maxBytes, timeoutMs });
      notes["model"] = core.models.label(json["model"]);
      const identity = () => createHash("sha256").update(`${caller.name ?? ""}\n${JSON.stringify(json)}`).digest("base64url");
      return run(core, { id: c.get("id"), headers: raw.headers, left: raw.signal, caller, started: c.get("started"), notes, identity }, json);
    },
  );
  onlyMethod(app, core, path, "POST");
}

function addGet(app: App, core: Core, path: string, summary: string, answer: (c: Ctx) => Response | Promise<Response>): void {
  app.get(path, describeRoute({ summary, responses: { 200: { description: "The answer." } } }), answer);
  onlyMethod(app, core, path, "GET");
}

function onlyMethod(app: App, core: Core, path: string, allow: string): void {
  app.all(path, (c) => respond(core, c, new ApiError(405, `This route takes ${allow} alone.`, { code: "method_not_allowed", headers: { allow } })));
}

function addOperations(app: App, core: Core): void {
  addGet(app, core, "/livez", "Whether the models' threads go on.", (c) => {
    c.set("quiet", true);
    const stuck = core.stuck();
    return stuck.length === 0 ? c.json({ status: "alive" }) : c.json({ status: "stuck", models: stuck }, 503);
  });
  addGet(app, core, "/readyz", "Whether requests are taken on.", (c) => {
    c.set("quiet", true);
    const status = core.draining ? "draining" : core.models.ready ? "ready" : "loading";
    return c.json({ status }, status === "ready" ? 200 : 503);
  });
  addGet(app, core, "/metrics", "Prometheus' text format.", async (c) => {
    c.set("quiet", true);
    return c.body(await core.metrics.text(), 200, { "content-type": core.metrics.contentType });
  });
}

/** One line for each request when its answer begins; what watches the server is not worth one. */
function record(core: Core, c: Ctx): void {
  const { log } = core.options;
  if (!log || c.get("quiet")) return;
  const { path, method } = c.req;
  const line = { request_id: c.get("id"), method, path: path.slice(0, 200), status: c.res.status, ms: Math.round(performance.now() - c.get("started")), ...c.get("notes") };
  if (c.res.status >= 500) log.warn(line, "request");
  else log.info(line, "request");
}
