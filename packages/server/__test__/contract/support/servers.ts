/**
 * What the programs of clients talk to: `candlewick-server` as its command starts it, and servers of this process that
 * a program starts, with options of its own, and ends in the middle of what it does.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type BERT, type GPT2, loadBERT, loadGPT2 } from "candlewick";
import { createHandler, listen, type CreateHandlerOptions, type Handler, type Listening } from "../../../index.js";
import { loadShipped, shipped } from "../../support/server.js";
import { cases } from "./cases.js";
import { talkingReciter } from "./reciter.js";

export interface Servers extends AsyncDisposable {
  /** Of the started command. */
  readonly url: string;
  /**
   * `POST /start` with options of `createHandler` makes a server over the same models: `{url}`. `POST /drain` with
   * `{url}` ends it, at once.
   */
  readonly control: string;
  /** The models, loaded once more in this process: what is compared with, and what `control` serves. */
  readonly models: { readonly default: GPT2; readonly dialogue: GPT2; readonly reciter: GPT2; readonly minilm: BERT };
}

const root = join(__dirname, "..", "..", "..", "..", "..");

/** Clients are given this key; a server without keys takes no notice of it. */
export const KEY = "sk-the-key-of-all-tests";

export async function startServers(): Promise<Servers> {
  const reciterFolder = talkingReciter(cases.recited);
  const folders = { default: shipped("default"), dialogue: shipped("dialogue"), minilm: shipped("minilm"), reciter: reciterFolder };
  const [started, dialogue, reciter, minilm, standard] = await Promise.all([
    startCommand(folders),
    loadShipped("dialogue"),
    loadGPT2(reciterFolder, { threads: 1 }),
    loadBERT(folders.minilm, { threads: 1 }),
    loadShipped("default"),
  ]);
  const models = { default: standard, dialogue, reciter, minilm };
  const control = await startControl(models);
  const end = async () => {
    await control.close();
    started.child.kill();
    await Promise.all(Object.values(models).map((model) => model.close()));
  };
  return { url: started.url, control: control.url, models, [Symbol.asyncDispose]: end };
}

async function startCommand(folders: Readonly<Record<string, string>>): Promise<{ url: string; child: ChildProcess }> {
  const named = Object.entries(folders).flatMap(([name, path]) => ["--model", `${name}=${path}`]);
  const command = join(root, "packages", "server", "dist", "src", "cli", "main.js");
  const args = [command, ...named, "--port", "0", "--json", "--log-level", "silent", "--threads", "1"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  process.once("exit", () => child.kill("SIGKILL"));
  const url = await new Promise<string>((resolve, reject) => {
    let text = "";
    child.stdout!.on("data", (bytes) => {
      text += String(bytes);
      if (text.includes("\n")) resolve((JSON.parse(text) as { url: string }).url);
    });
    child.once("exit", (code) => reject(new Error(`The server has ended with ${code}`)));
  });
  return { url, child };
}

async function startControl(models: CreateHandlerOptions["models"]): Promise<{ url: string; close(): Promise<void> }> {
  const started = new Map<string, { handler: Handler; listening: Listening }>();
  const act = async (path: string, body: any): Promise<object> => {
    if (path === "/drain") {
      await started.get(body.url)!.handler.drain(0);
      return {};
    }
    const handler = createHandler({ models, page: false, ...body });
    const listening = await listen(handler, { port: 0 });
    started.set(listening.url, { handler, listening });
    return { url: listening.url };
  };
  const server = createServer((request, response) => {
    void bodyOf(request)
      .then((body) => act(request.url!, body))
      .then((answer) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer)))
      .catch((error: unknown) => response.writeHead(500).end(String(error)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    await Promise.all(Array.from(started.values(), ({ listening }) => listening.close(0)));
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const parts = [];
  for await (const part of request) parts.push(part as Buffer);
  return JSON.parse(Buffer.concat(parts).toString() || "{}");
}
