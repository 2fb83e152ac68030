/**
 * Streams tokens over plain node:http, as server-sent events (`/sse`) and as chunked text (`/text`):
 *
 *   npm run build && npx tsx examples/http-stream.ts
 *   curl -N "localhost:3000/text?prompt=Once%20upon%20a%20time"
 *   curl -N "localhost:3000/sse?prompt=Once&maxNewTokens=32"
 *
 * In Express 5 a handler is `async (request, response) => void (await lm.generate(…).pipeTo(response))`; in Fastify 5
 * the same with `reply.raw`, after `reply.hijack()`.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { CandlewickError, type GPT2, loadGPT2 } from "candlewick";

export function createExampleServer(lm: GPT2): Server {
  return createServer((request, response) => {
    handle(lm, request, response).catch((error: unknown) => fail(response, error));
  });
}

async function handle(lm: GPT2, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://localhost");
  const format = ({ "/sse": "sse", "/text": "text" } as const)[url.pathname];
  if (!format) {
    response.writeHead(404).end("Try /text?prompt=… or /sse?prompt=…\n");
    return;
  }
  const prompt = url.searchParams.get("prompt") ?? "Once upon a time";
  const maxNewTokens = Number(url.searchParams.get("maxNewTokens") ?? 64);
  // Sends the status when the prompt is known to fit, waits while the client is slow, and stops computing when it hangs
  // up.
  await lm.generate(prompt, { maxNewTokens, temperature: 0.8, topK: 50 }).pipeTo(response, { format });
}

function fail(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  if (!(error instanceof CandlewickError) || error.httpStatus >= 500) console.error(error);
  const [status, code] = error instanceof CandlewickError ? [error.httpStatus, error.code] : [500, "INTERNAL"];
  // Messages of our own failures name files; they are for the log.
  const message = status === 400 ? (error as Error).message : code;
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error: { code, message } }));
}

if (require.main === module) {
  void (async () => {
    const lm = await loadGPT2(process.env["MODEL"] ?? join(__dirname, "..", "models", "default"));
    const server = createExampleServer(lm).listen(Number(process.env["PORT"] ?? 3000), () => {
      const { port } = server.address() as AddressInfo;
      console.log(`http://localhost:${port}/text?prompt=Once%20upon%20a%20time`);
    });
  })();
}
