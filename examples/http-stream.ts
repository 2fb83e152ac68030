/**
 * Streams tokens over plain node:http, as server-sent events (`/sse`) and as chunked text (`/text`):
 *
 *   npm run build && npx tsx examples/http-stream.ts
 *   curl -N "localhost:3000/text?prompt=Once%20upon%20a%20time"
 *   curl -N "localhost:3000/sse?prompt=Once&maxNewTokens=32"
 *
 * A client that hangs up stops the compute within one token: its `close` event cancels the stream.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { CandlewickError, type GPT2, loadGPT2, type TokenStream } from "candlewick";

export function createExampleServer(lm: GPT2): Server {
  return createServer((request, response) => {
    handle(lm, request, response).catch((error: unknown) => fail(response, error));
  });
}

async function handle(lm: GPT2, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://localhost");
  const send = { "/sse": sendEvents, "/text": sendText }[url.pathname];
  if (!send) {
    response.writeHead(404).end("Try /text?prompt=… or /sse?prompt=…\n");
    return;
  }
  const prompt = url.searchParams.get("prompt") ?? "Once upon a time";
  const maxNewTokens = Number(url.searchParams.get("maxNewTokens") ?? 64);

  const stream = lm.generate(prompt, { maxNewTokens, temperature: 0.8, topK: 50 });
  response.on("close", () => stream.cancel());
  await send(stream, response);
  response.end();
}

async function sendText(stream: TokenStream, response: ServerResponse): Promise<void> {
  response.setHeader("content-type", "text/plain; charset=utf-8");
  for await (const token of stream) await write(response, token.text);
}

async function sendEvents(stream: TokenStream, response: ServerResponse): Promise<void> {
  response.setHeader("content-type", "text/event-stream; charset=utf-8");
  response.setHeader("cache-control", "no-cache");
  for await (const token of stream) await write(response, `data: ${JSON.stringify({ text: token.text })}\n\n`);
  const { finishReason, usage } = await stream.result;
  await write(response, `event: end\ndata: ${JSON.stringify({ finishReason, usage })}\n\n`);
}

/** Waits while the client is slow; then the stream waits with us, and so does the model. */
function write(response: ServerResponse, text: string): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed || response.write(text)) return resolve();
    const goOn = () => {
      response.off("drain", goOn).off("close", goOn);
      resolve();
    };
    response.on("drain", goOn).on("close", goOn);
  });
}

function fail(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  if (!(error instanceof CandlewickError) || error.httpStatus >= 500) console.error(error);
  const [status, code] = error instanceof CandlewickError ? [error.httpStatus, error.code] : [500, "INTERNAL"];
  // Messages of our own failures name files; they are for the log.
  const message = status === 400 || status === 413 ? (error as Error).message : code;
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
