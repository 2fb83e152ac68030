/**
 * Streams tokens from Hono, or anything else that takes a web `Response` (Bun, Deno, Next.js, Remix, edge-style
 * handlers):
 *
 *   npm run build && npx tsx examples/hono-stream.ts
 *   curl -N "localhost:3000/sse?prompt=Once"
 *
 * When the client goes away the server cancels the response's body, and with it the compute.
 */
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { CandlewickError, type GPT2, loadGPT2 } from "candlewick";
import { join } from "node:path";

export function createApp(lm: GPT2): Hono {
  const app = new Hono();
  const generate = ({ prompt = "Once upon a time", maxNewTokens = "64" }: Record<string, string>) =>
    lm.generate(prompt, { maxNewTokens: Number(maxNewTokens), temperature: 0.8, topK: 50 });

  // Server-sent events as OpenAI's clients read them.
  app.get("/sse", (c) => generate(c.req.query()).toResponse({ format: "sse" }));
  // Plain text, in a response of Hono's own.
  app.get("/text", (c) => c.body(generate(c.req.query()).toReadable(), 200, { "content-type": "text/plain; charset=utf-8" }));
  // Or all at once.
  app.get("/json", async (c) => {
    const { text, finishReason, usage } = await generate(c.req.query()).result;
    return c.json({ text, finishReason, usage });
  });

  app.onError((error, c) => {
    const [status, code] = error instanceof CandlewickError ? [error.httpStatus, error.code] : [500, "INTERNAL"];
    if (status >= 500) console.error(error);
    // Messages of our own failures name files; they are for the log.
    const message = status === 400 ? error.message : code;
    return c.json({ error: { code, message } }, status as 400);
  });
  return app;
}

if (require.main === module) {
  void (async () => {
    const lm = await loadGPT2(process.env["MODEL"] ?? join(__dirname, "..", "models", "default"));
    serve({ fetch: createApp(lm).fetch, port: Number(process.env["PORT"] ?? 3000) }, ({ port }) => {
      console.log(`http://localhost:${port}/sse?prompt=Once%20upon%20a%20time`);
    });
  })();
}
