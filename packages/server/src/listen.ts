/** The handler on a port, with bounds on what connections may do. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { getRequestListener } from "@hono/node-server";
import { ApiError, invalid, newRequestId } from "./errors.js";
import type { Handler } from "./handler.js";

export interface ListenOptions {
  /** Default 8000; 0: any that is free. */
  readonly port?: number;
  /** Default `127.0.0.1`: this machine alone. */
  readonly host?: string;
  /**
   * Names that requests may give as their host, beside the address itself. Default: on a loopback address its names,
   * elsewhere all.
   */
  readonly allowedHosts?: readonly string[];
  /** Connections at once. Default 4,096. */
  readonly maxConnections?: number;
  /** Milliseconds after which a connection that nothing moves through is closed; 0: never. Default 180,000. */
  readonly idleMs?: number;
}

export interface Listening extends AsyncDisposable {
  readonly url: string;
  readonly server: Server;
  /** Ends as {@link Handler.drain} does, and then all connections. */
  close(graceMs?: number): Promise<void>;
}

const LOOPBACK = /^(127\.|::1$|localhost$)/i;

const STATUS: Readonly<Record<string, readonly [number, string, string]>> = {
  HPE_HEADER_OVERFLOW: [431, "Request Header Fields Too Large", "headers_too_large"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "Request Timeout", "request_timeout"],
};

/** What comes is no HTTP, or does not come in time. */
function refuseBytes(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const [status, text, code] = STATUS[error.code ?? ""] ?? [400, "Bad Request", "malformed_request"];
  const body = JSON.stringify(new ApiError(status, `${text}.`, { code }).body);
  const head = [`HTTP/1.1 ${status} ${text}`, "connection: close", "content-type: application/json", `content-length: ${Buffer.byteLength(body)}`, `x-request-id: ${newRequestId()}`];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}

/** Resolves when requests are taken. */
export async function listen(handler: Handler, options: ListenOptions = {}): Promise<Listening> {
  const { port = 8_000, host = "127.0.0.1", maxConnections = 4_096, idleMs = 180_000 } = options;
  // A page of another site may have its name point here: such requests name that site as their host.
  const hosts = (options.allowedHosts ?? (LOOPBACK.test(host) ? ["localhost", "127.0.0.1", "[::1]", host] : undefined))?.map((name) => name.toLowerCase());
  // A request that is none, such as one without a host.
  const errorHandler = () => Response.json(invalid("The request is malformed.", undefined, "malformed_request").body, { status: 400, headers: { "x-request-id": newRequestId() } });
  const listener = getRequestListener(handler, { overrideGlobalObjects: false, errorHandler });
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 65_000, maxHeaderSize: 16_384 }, (request, response) => {
    const named = (request.headers.host ?? "").replace(/:\d+$/, "").toLowerCase();
    if (hosts && !hosts.includes(named)) {
      const body = JSON.stringify(new ApiError(421, "This server does not answer to that name.", { code: "unknown_host" }).body);
      return void response.writeHead(421, { "content-type": "application/json", "x-request-id": newRequestId() }).end(body);
    }
    // Tokens are small, and each is waited for.
    response.socket?.setNoDelay(true);
    void listener(request, response);
  });
  server.on("clientError", refuseBytes);
  server.maxHeadersCount = 100;
  // Of a socket that nothing moves through: a stream has comments, so only one whose client does not read.
  server.timeout = idleMs;
  server.maxConnections = maxConnections;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
  const { address, family, port: taken } = server.address() as AddressInfo;
  const url = `http://${family === "IPv6" ? `[${address}]` : address}:${taken}`;
  const close = async (graceMs?: number): Promise<void> => {
    await handler.drain(graceMs);
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeIdleConnections();
    // What was just answered is still on its way.
    setTimeout(() => server.closeAllConnections(), 1_000).unref();
    await closed;
  };
  return { url, server, close, [Symbol.asyncDispose]: () => close(0) };
}
