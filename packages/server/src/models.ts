/** The models of a server by the names that requests give, adapters among them. */
import { createHash } from "node:crypto";
import type { BERT, GPT2 } from "candlewick";
import { modelNotFound, unavailable } from "./errors.js";

/** What generates for the server: a loaded `GPT2`, or what behaves as one. */
export type Generator = Pick<
  GPT2,
  "source" | "info" | "generate" | "chat" | "chatPrompt" | "encode" | "decode" | "countTokens" | "score" | "vocabulary" | "stats"
>;
/** What reads texts for the server: a loaded `BERT`, or what behaves as one. */
export type Encoder = Pick<BERT, "source" | "info" | "embed" | "classify" | "rerank" | "encode" | "decode" | "countTokens" | "stats">;
export type ServedModel = Generator | Encoder;

export const isGenerator = (model: ServedModel): model is Generator => "generate" in model;

/** A name that requests may give. */
export interface Entry {
  readonly id: string;
  /** The model's own name; of an adapter its base's. */
  readonly base: string;
  readonly adapter?: string;
}

interface Slot {
  model?: ServedModel;
  failure?: unknown;
}

/** Models, and those that are still being loaded. */
export class Models {
  /** Seconds since 1970: when the server began. */
  readonly created = Math.floor(Date.now() / 1_000);
  readonly #slots = new Map<string, Slot>();
  readonly #entries = new Map<string, Entry>();
  readonly #fingerprints = new Map<string, string>();

  constructor(models: Readonly<Record<string, ServedModel | Promise<ServedModel>>>) {
    const names = Object.keys(models);
    if (names.length === 0) throw new TypeError("createHandler: there are no models");
    for (const name of names) {
      const slot: Slot = {};
      this.#slots.set(name, slot);
      this.#entries.set(name, { id: name, base: name });
      const given = models[name]!;
      if (!(given instanceof Promise)) this.#add(name, slot, given);
      else {
        given.then((model) => this.#add(name, slot, model)).catch((error: unknown) => (slot.failure = error));
      }
    }
  }

  #add(name: string, slot: Slot, model: ServedModel): void {
    const adapters = isGenerator(model) ? model.info.adapters : [];
    const taken = adapters.find((adapter) => this.#entries.has(adapter));
    if (taken !== undefined) throw new TypeError(`createHandler: two models are named ${JSON.stringify(taken)}; adapters are models by their names`);
    slot.model = model;
    for (const adapter of adapters) this.#entries.set(adapter, { id: adapter, base: name, adapter });
  }

  /** Whether every model is loaded. */
  get ready(): boolean {
    return Array.from(this.#slots.values()).every(({ model }) => model !== undefined);
  }

  /** All that requests may name. */
  get entries(): Entry[] {
    return Array.from(this.#entries.values());
  }

  /** Those that are loaded. */
  *loaded(): IterableIterator<[string, ServedModel]> {
    for (const [name, { model }] of this.#slots) if (model) yield [name, model];
  }

  /** The name under which a request is counted: those that nobody has share one. */
  label(id: unknown): string {
    return (typeof id === "string" ? this.#entries.get(id)?.base : undefined) ?? "unknown";
  }

  entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (!entry) throw modelNotFound(id);
    return entry;
  }

  /** @throws {ApiError} 404 if there is none or it does not generate, 503 while it is being loaded. */
  generator(id: string): { entry: Entry; model: Generator } {
    const { entry, model } = this.any(id);
    if (!isGenerator(model)) throw modelNotFound(id, "does not generate text");
    return { entry, model };
  }

  /** @throws {ApiError} 404 if there is none or it generates, 503 while it is being loaded. */
  encoder(id: string): { entry: Entry; model: Encoder } {
    const { entry, model } = this.any(id);
    if (isGenerator(model)) throw modelNotFound(id, "generates text, and does not read it for this");
    return { entry, model };
  }

  /** The model of a name of its own, once it is loaded. */
  find(name: string): ServedModel | undefined {
    return this.#slots.get(name)?.model;
  }

  /** @throws {ApiError} 404 if there is none, 503 while it is being loaded. */
  any(id: string): { entry: Entry; model: ServedModel } {
    const entry = this.entry(id);
    const { model, failure } = this.#slots.get(entry.base)!;
    if (model) return { entry, model };
    throw failure === undefined
      ? unavailable("The model is being loaded.", "model_loading")
      : unavailable("The model could not be loaded.", "model_unavailable");
  }

  /** Equal where the same seed gives the same text: what computes, and with which instructions. */
  fingerprint(name: string, { info }: ServedModel): string {
    const known = this.#fingerprints.get(name);
    if (known) return known;
    const facts = [VERSION, info.modelType, info.parameters, info.weightBytes, info.dtype, info.device, info.instructionSet];
    const made = `fp_${createHash("sha256").update(JSON.stringify(facts)).digest("hex").slice(0, 12)}`;
    this.#fingerprints.set(name, made);
    return made;
  }
}

const { version: VERSION } = require("candlewick/package.json") as { version: string };
