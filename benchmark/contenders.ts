/** Who takes part, how their processes start, and which ones can't. */
import { join } from "node:path";
import { Child } from "./child.js";
import { here, mustExist, nativeBinary, peers, python } from "./paths.js";
import type { ContenderName } from "./types.js";

/** `name`: its package in the folder of `group`, as prepare.ts installs them. */
const peer = (worker: string, group: string, name: string) => () => {
  mustExist(join(peers, group, "node_modules", name));
  return new Child(process.execPath, [here("workers", worker), join(peers, group)]);
};

const starters: Record<ContenderName, (threads: number) => Child> = {
  candlewick: () => new Child(process.execPath, [here("workers", "candlewick.mjs")]),
  before: () => new Child(process.execPath, [mustExist(join(beforeFolder, "benchmark", "workers", "candlewick.mjs"))]),
  // Candle takes its threads from here.
  candle: (threads) => new Child(mustExist(nativeBinary("bench-candle")), [], { RAYON_NUM_THREADS: String(threads) }),
  "node-llama-cpp": peer("llama.mjs", "llama", "node-llama-cpp"),
  "onnxruntime-node": peer("onnx.mjs", "onnx", "onnxruntime-node"),
  "transformers.js": peer("transformers.mjs", "onnx", "@huggingface/transformers"),
  fastembed: peer("fastembed.mjs", "fastembed", "fastembed"),
  openvino: () => new Child(mustExist(python), ["-B", here("workers", "openvino_peer.py")]),
  ctranslate2: () => new Child(mustExist(python), ["-B", here("workers", "ctranslate2_peer.py")]),
  faiss: (threads) => new Child(mustExist(python), ["-B", here("workers", "faiss_peer.py")], { OMP_NUM_THREADS: String(threads) }),
  pytorch: (threads) => new Child(mustExist(python), ["-B", here("workers", "pytorch.py")], { OMP_NUM_THREADS: String(threads) }),
};

let beforeFolder = "";

/** Another checkout, built, which takes part as `before`: the same work, asked in turns with this one's. */
export function compareWith(folder: string): void {
  beforeFolder = folder;
}

export const contenderNames = Object.keys(starters) as ContenderName[];

export interface Contender {
  name: ContenderName;
  version: string;
  child: Child;
}

export class Contenders {
  readonly #running = new Map<ContenderName, Promise<Contender | undefined>>();

  constructor(
    readonly threads: number,
    readonly only: ReadonlySet<string>,
    readonly onSkipped: (what: string, reason: string) => void,
  ) {}

  wanted(name: ContenderName): boolean {
    if (name === "before") return beforeFolder !== "";
    return this.only.size === 0 || this.only.has(name);
  }

  /**
   * The contender's process, started when it is first needed; undefined if it is not wanted or can't run, which is told
   * once.
   */
  get(name: ContenderName): Promise<Contender | undefined> {
    if (!this.wanted(name)) return Promise.resolve(undefined);
    let running = this.#running.get(name);
    if (!running) this.#running.set(name, (running = this.#start(name)));
    return running;
  }

  /** A process of its own, for what only a fresh one shows. The caller ends it. */
  async fresh(name: ContenderName): Promise<Contender | undefined> {
    const known = await this.get(name);
    if (!known) return undefined;
    const child = starters[name](this.threads);
    await child.ask("hello");
    return { ...known, child };
  }

  async #start(name: ContenderName): Promise<Contender | undefined> {
    try {
      const child = starters[name](this.threads);
      const { version } = await child.ask<{ version: string }>("hello");
      return { name, version, child };
    } catch (error) {
      this.onSkipped(name, (error as Error).message);
      return undefined;
    }
  }

  async end(): Promise<void> {
    for (const contender of await Promise.all(this.#running.values())) contender?.child.kill();
  }
}

/** The process that measures the machine. Without it no share of a limit can be said, so a run does not begin. */
export function limitsProcess(threads: number): Child {
  return new Child(mustExist(nativeBinary("bench-limits")), [String(threads)]);
}
