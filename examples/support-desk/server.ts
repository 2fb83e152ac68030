/** The desk as a server with a beginning and an end. */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type { Server, ServerResponse } from "node:http";
import { serve } from "@hono/node-server";
import { type AppOptions, createApp } from "./app.js";
import { Desk, type DeskOptions } from "./desk.js";

/** How long replies that are being written may take once the server is to end. */
const GRACE = 5000;

export interface ServerOptions extends DeskOptions, AppOptions {
  /** Default 3000; 0 takes one that is free. */
  port?: number;
  /** Default `"127.0.0.1"`: this machine alone, since the desk asks nobody who they are. */
  host?: string;
}

export interface RunningServer {
  desk: Desk;
  url: string;
  /** Takes no more requests, lets those at work end for up to five seconds, then closes models and database. */
  close(): Promise<void>;
}

export async function startServer({ port = 3000, host = "127.0.0.1", mostRequests, ...options }: ServerOptions): Promise<RunningServer> {
  const desk = await Desk.open(options);
  const atWork = new Set<ServerResponse>();
  let server: Server;
  try {
    server = await listen(createApp(desk, { mostRequests }), port, host);
    server.on("request", (_request, response) => {
      atWork.add(response);
      response.once("close", () => atWork.delete(response));
    });
  } catch (error) {
    await desk.close();
    throw error;
  }
  let closing: Promise<void> | undefined;
  const close = async () => {
    const closed = once(server, "close");
    server.close();
    // Browsers open connections in advance, which would be waited for: what counts is the requests.
    const patience = AbortSignal.timeout(GRACE);
    while (atWork.size > 0 && !patience.aborted) await Promise.race([once(atWork.values().next().value!, "close"), once(patience, "abort")]);
    server.closeAllConnections();
    await closed;
    await desk.close();
  };
  const shown = host.includes(":") ? `[${host}]` : host;
  return { desk, url: `http://${shown}:${(server.address() as AddressInfo).port}`, close: () => (closing ??= close()) };
}

function listen({ fetch }: ReturnType<typeof createApp>, port: number, hostname: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch, port, hostname }, () => resolve(server)) as Server;
    server.once("error", reject);
  });
}
