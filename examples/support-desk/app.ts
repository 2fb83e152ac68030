/**
 * The desk over HTTP. Answers are JSON, or server-sent events where they come in parts; errors are JSON,
 * `{error: {code, message}}`.
 *
 *   POST /api/analysis  {message}           → events `language`, `topic`, `sentiment`, `similar`, `translation`, each
 *                                             when it is there; `failed`; `done`
 *   POST /api/reply     {message, seed?}    → events as OpenAI's completions API sends them
 *   POST /api/answers   {question, answer}  → 201 {id}
 *   GET  /health                            → {status, answers, requests}
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { HttpBindings } from "@hono/node-server";
import { CandlewickError } from "candlewick";
import { type Context, Hono, type MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { secureHeaders } from "hono/secure-headers";
import { streamSSE } from "hono/streaming";
import * as v from "valibot";
import { type Desk, STAGES } from "./desk.js";
import { languageOf } from "./language.js";

/** In bytes: the longest message and the longest answer, in Chinese. */
const LARGEST_BODY = 32 * 1024;
const LONGEST_TEXT = 4000;
const text = v.pipe(v.string(), v.trim(), v.nonEmpty("must not be empty"), v.maxLength(LONGEST_TEXT));
const seed = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));
const messageBody = v.strictObject({ message: text });
const replyBody = v.strictObject({ message: text, seed: v.optional(seed) });
const answerBody = v.strictObject({ question: text, answer: text });

/** What is wrong with a request. */
class RequestError extends Error {
  constructor(
    readonly status: 400 | 404 | 413 | 415 | 503,
    readonly code: "REQUEST_INVALID" | "NOT_FOUND" | "BODY_TOO_LARGE" | "NOT_JSON" | "BUSY",
    message: string,
  ) {
    super(message);
  }
}

type Server = { Bindings: HttpBindings };

async function read<Schema extends v.GenericSchema>(c: Context<Server>, schema: Schema): Promise<v.InferOutput<Schema>> {
  // Other types can be sent by a form on any page, without a question to the browser's user.
  if (!/^application\/json\b/i.test(c.req.header("content-type") ?? "")) throw new RequestError(415, "NOT_JSON", "Send application/json");
  const body = await c.req.json().catch((error: unknown) => {
    if (error instanceof SyntaxError) throw new RequestError(400, "REQUEST_INVALID", "The body is not JSON");
    throw error;
  });
  const { success, output, issues } = v.safeParse(schema, body);
  if (success) return output;
  const [{ message }] = issues;
  throw new RequestError(400, "REQUEST_INVALID", [v.getDotPath(issues[0]), message].filter(Boolean).join(": "));
}

/** What is said to the caller: our own failures name files, and are for the log. */
function described(error: unknown): { status: number; code: string; message: string } {
  if (error instanceof RequestError) return error;
  if (error instanceof CandlewickError) {
    const { httpStatus: status, code, message } = error;
    return { status, code, message: status === 400 || status === 413 ? message : code };
  }
  return { status: 500, code: "INTERNAL", message: "INTERNAL" };
}

const page: Record<string, [file: string, type: string]> = {
  "/": ["index.html", "text/html; charset=utf-8"],
  "/style.css": ["style.css", "text/css; charset=utf-8"],
  "/desk.js": ["desk.js", "text/javascript; charset=utf-8"],
  "/icon.svg": ["icon.svg", "image/svg+xml"],
};

export interface AppOptions {
  /** Requests at work at one time; more would only wait for the same processor. Default 128. */
  mostRequests?: number;
}

export function createApp(desk: Desk, { mostRequests = 128 }: AppOptions = {}): Hono<Server> {
  const app = new Hono<Server>();
  let requests = 0;

  const limited: MiddlewareHandler<Server> = async (c, next) => {
    if (requests >= mostRequests) throw new RequestError(503, "BUSY", "The desk has too much to do; try again in a moment");
    requests++;
    // A response that streams is at work until its last byte, or until the client has gone.
    c.env.outgoing.once("close", () => requests--);
    await next();
  };

  app.use(
    secureHeaders({
      contentSecurityPolicy: { defaultSrc: ["'self'"], baseUri: ["'none'"], formAction: ["'none'"], frameAncestors: ["'none'"], objectSrc: ["'none'"] },
    }),
  );
  for (const [path, [file, type]] of Object.entries(page)) {
    const content = readFileSync(join(__dirname, "page", file));
    app.get(path, (c) => c.body(content, 200, { "content-type": type, "cache-control": "no-cache" }));
  }

  app.get("/health", async (c) => c.json({ status: "ok", answers: await desk.countAnswers(), requests }));

  app.use("/api/*", limited, bodyLimit({
    maxSize: LARGEST_BODY,
    onError: () => {
      throw new RequestError(413, "BODY_TOO_LARGE", `A body may have ${LARGEST_BODY} bytes`);
    },
  }));

  app.post("/api/analysis", async (c) => {
    const { message } = await read(c, messageBody);
    c.header("x-accel-buffering", "no");
    return streamSSE(c, async (stream) => {
      const gone = new AbortController();
      stream.onAbort(() => gone.abort());
      const send = (event: string, data: object) => stream.writeSSE({ event, data: JSON.stringify(data) });
      await send("language", { language: languageOf(message) });
      await Promise.all(
        STAGES.map(async (stage) => {
          const started = performance.now();
          try {
            const found = await desk.find(stage, message, gone.signal);
            await send(stage, { ...found, milliseconds: performance.now() - started });
          } catch (error) {
            if (gone.signal.aborted) return;
            const { status, code, message } = described(error);
            if (status >= 500) console.error(error);
            await send("failed", { stage, error: { code, message } });
          }
        }),
      );
      await send("done", {});
    });
  });

  app.post("/api/reply", async (c) => {
    const { message, seed } = await read(c, replyBody);
    // When the client goes away the body is cancelled, and the compute with it.
    return (await desk.reply(message, seed)).toResponse({ format: "sse" });
  });

  app.post("/api/answers", async (c) => {
    const { question, answer } = await read(c, answerBody);
    return c.json({ id: await desk.keep(question, answer) }, 201);
  });

  app.notFound(() => {
    throw new RequestError(404, "NOT_FOUND", "There is nothing here");
  });
  app.onError((error, c) => {
    const { status, code, message } = described(error);
    if (status === 500) console.error(error);
    if (status === 503 || status === 429) c.header("retry-after", "1");
    return c.json({ error: { code, message } }, status as 400);
  });
  return app;
}
