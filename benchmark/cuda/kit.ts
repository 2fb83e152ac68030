/** What the steps of the kit work with: processes, time, the report. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { Child } from "../child.js";
import { spread } from "../stats.js";
import type { Check, Figure, KitDtype, KitReport, Who } from "./types.js";

/** The kit's root, or the checkout's: both have package.json, dist, benchmark and tools. */
export const root = join(__dirname, "..", "..");

const ADDON = join(root, "npm", "linux-x64-gnu-cuda", "candlewick.linux-x64-gnu-cuda.node");

/** A log is for reading; a file that comes back from another machine has a limit. */
const LOG_BYTES = 1 << 20;

/** A step, or the whole kit, has no time left. */
export class OutOfTime extends Error {
  constructor() {
    super("the time is up");
  }
}

/** What an `nvidia-smi` query says of the first GPU; undefined where there is no driver. */
function nvidia(query: string): string | undefined {
  const { status, stdout } = spawnSync("nvidia-smi", [`--query-gpu=${query}`, "--format=csv,noheader"], { encoding: "utf8", timeout: 20_000 });
  return status === 0 ? stdout.split("\n")[0]!.trim() : undefined;
}

/** Python with PyTorch, unless `CANDLEWICK_PYTHON` names another one; an empty name means none. */
const python = process.env["CANDLEWICK_PYTHON"] ?? "python3";

export class Kit {
  readonly report: KitReport;
  /** For models and what steps hand to each other; gone at the end. */
  readonly work = mkdtempSync(join(tmpdir(), "candlewick-kit-"));
  /** As `performance.now()` says it. */
  readonly #begin = performance.now();
  #stepEnds = Infinity;
  #log = "";
  #peer: Child | undefined;
  #noPeer: string | undefined;
  readonly #children = new Set<Child>();
  readonly #env: NodeJS.ProcessEnv;

  constructor(
    readonly out: string,
    /** When all must be over, as `performance.now()`. */
    readonly ends: number,
    /** Default: the GPU, where there is one. */
    wanted?: "cpu",
  ) {
    mkdirSync(out, { recursive: true });
    const driver = wanted === "cpu" ? undefined : nvidia("driver_version");
    const device = wanted !== "cpu" && (driver !== undefined || existsSync("/proc/driver/nvidia/version")) ? "cuda" : "cpu";
    const ours = existsSync(ADDON) && (device === "cuda" || !existsSync(join(root, "native", "binding.cjs")));
    this.#env = { ...(ours && { CANDLEWICK_NATIVE: ADDON }), CUDA_VISIBLE_DEVICES: device === "cpu" ? "" : (process.env["CUDA_VISIBLE_DEVICES"] ?? "0") };
    this.report = {
      format: 1,
      date: new Date().toISOString().slice(0, 10),
      device,
      gpu: driver === undefined ? null : { name: nvidia("name") ?? "?", capability: nvidia("compute_cap") ?? "?", driver, bytes: 0 },
      cpu: cpus()[0]?.model.trim() ?? process.arch,
      cores: availableParallelism(),
      node: process.version,
      candlewick: (JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string }).version,
      addon: ours ? createHash("sha256").update(readFileSync(ADDON)).digest("hex").slice(0, 16) : "native/",
      pytorch: null,
      limits: null,
      steps: [],
      figures: [],
      checks: [],
      skipped: [],
    };
  }

  get gpu(): boolean {
    return this.report.device === "cuda";
  }

  /** Where a model of the kit is, or a file that steps share. */
  at(...parts: string[]): string {
    return join(this.work, ...parts);
  }

  /** Rewrites report.json. */
  write(): void {
    writeFileSync(join(this.out, "report.json"), `${JSON.stringify(this.report, null, 1)}\n`);
  }

  /**
   * Runs a step of `seconds` at most, which leaves `reserve` of the kit's whole time to those after it; its error is
   * its result, and what it leaves running is ended.
   */
  async step(name: string, seconds: number, reserve: number, work: (kit: Kit) => Promise<void>): Promise<void> {
    const begin = performance.now();
    this.#stepEnds = Math.min(this.ends - reserve * (this.ends - this.#begin), begin + 1000 * seconds);
    this.#log = join(this.out, `${name}.log`);
    writeFileSync(this.#log, "");
    let status: KitReport["steps"][number]["status"] = "done";
    let reason: string | undefined;
    try {
      this.left();
      await work(this);
    } catch (error) {
      status = error instanceof OutOfTime ? "out of time" : "failed";
      reason = (error as Error).message;
      this.log(`${(error as Error).stack}\n`);
    }
    for (const child of this.#children) child.kill();
    this.#children.clear();
    const took = Number(((performance.now() - begin) / 1000).toFixed(1));
    this.report.steps.push({ name, status, seconds: took, ...(reason !== undefined && { reason }) });
    this.write();
    console.log(`${name}: ${status} in ${took} s${reason === undefined ? "" : `: ${reason}`}`);
  }

  log(text: string): void {
    if (this.#log === "" || statSync(this.#log).size > LOG_BYTES) return;
    appendFileSync(this.#log, text.slice(0, LOG_BYTES));
  }

  /**
   * Seconds that the step still has.
   *
   * @throws {OutOfTime} when it has none.
   */
  left(): number {
    const left = (this.#stepEnds - performance.now()) / 1000;
    if (left < 1) throw new OutOfTime();
    return left;
  }

  /** A fresh process with Candlewick; it ends with the step. */
  worker(): Child {
    const child = new Child(process.execPath, [join(root, "benchmark", "cuda", "worker.mjs")], this.#env, (text) => this.log(text));
    this.#children.add(child);
    return child;
  }

  end(child: Child): void {
    child.kill();
    this.#children.delete(child);
  }

  /** An answer within `seconds`, and within the step's time. */
  ask<T>(child: Child, op: string, args: object = {}, seconds = 60): Promise<T> {
    return child.ask<T>(op, args, Math.min(seconds, this.left()));
  }

  /** The environment of every process with Candlewick. */
  get env(): NodeJS.ProcessEnv {
    return { ...process.env, ...this.#env };
  }

  /** PyTorch's process, which outlives steps; undefined where it cannot be, which is said once. */
  async peer(): Promise<Child | undefined> {
    if (this.#noPeer !== undefined) return undefined;
    if (this.#peer && !this.#peer.ended) return this.#peer;
    try {
      if (python === "") throw new Error("CANDLEWICK_PYTHON is empty");
      this.#peer = new Child(python, ["-B", join(root, "tools", "cuda", "pytorch.py")], { ...this.#env, PYTHONUNBUFFERED: "1" }, (text) => this.log(text));
      const { torch, transformers, gpu, capability, gpuBytes } = await this.ask<Hello>(this.#peer, "hello", {}, 90);
      if (this.gpu && gpu === null) throw new Error("PyTorch sees no GPU");
      this.report.pytorch = { torch, transformers };
      if (this.report.gpu && gpu !== null) Object.assign(this.report.gpu, { name: gpu, capability, bytes: gpuBytes });
      return this.#peer;
    } catch (error) {
      this.#peer?.kill();
      if (error instanceof OutOfTime) throw error;
      this.#noPeer = (error as Error).message;
      this.skip("PyTorch", this.#noPeer);
      return undefined;
    }
  }

  /** PyTorch's process is in no state to go on: the next one who needs it gets a new one. */
  endPeer(): void {
    this.#peer?.kill();
    this.#peer = undefined;
  }

  /** How a Python program of the kit is started. */
  pythonProgram(...args: string[]): [string, string[]] {
    return [python, ["-B", join(root, "tools", "cuda", "pytorch.py"), ...args]];
  }

  skip(what: string, reason: string): void {
    // Paths are those of this machine, and no use to others.
    this.report.skipped.push({ what, reason: reason.split("\n")[0]!.replaceAll(/\/[^\s:,]*\/(?=[^/\s:,]+)/g, "").slice(0, 300) });
    console.log(`  ${what} skipped: ${reason.split("\n")[0]!.slice(0, 300)}`);
  }

  /** What of PyTorch's may fail without harm: it is told, and the answer undefined. */
  attempt<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
    return this.#unless(work, (reason) => this.skip(what, reason));
  }

  /** A part of a step: its failure is a check that does not hold, and the step goes on. */
  part(what: string, work: () => Promise<void>): Promise<void | undefined> {
    return this.#unless(work, (reason) => this.check(`${what} runs to its end`, false, reason.split("\n")[0]));
  }

  async #unless<T>(work: () => Promise<T>, failed: (reason: string) => void): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof OutOfTime) throw error;
      this.log(`${(error as Error).stack}\n`);
      failed((error as Error).message);
      return undefined;
    }
  }

  check(what: string, passed: boolean | null, detail = "", dtype?: KitDtype): void {
    const check: Check = { what, ...(dtype && { dtype }), passed, detail };
    this.report.checks.push(check);
    console.log(`  ${passed === null ? "no test" : passed ? "ok" : "WRONG"}: ${what}${dtype ? ` ${dtype}` : ""}${detail ? `: ${detail}` : ""}`);
  }

  figure(name: string, dtype: KitDtype, who: Who, unit: Figure["unit"], values: readonly number[], more: Pick<Figure, "share" | "note"> = {}): void {
    if (values.length === 0) return;
    const round = (value: number) => Number(value.toPrecision(5));
    const { median, p10, p90 } = spread(values);
    this.report.figures.push({ case: name, dtype, who, median: round(median), p10: round(p10), p90: round(p90), unit, ...more });
    console.log(`  ${name} ${dtype}, ${who}: ${round(median)} ${unit}${more.share === undefined ? "" : `, ${(100 * more.share).toFixed(1)}% of the limit`}`);
  }

  finish(): void {
    this.endPeer();
    rmSync(this.work, { recursive: true, force: true });
  }
}

interface Hello {
  torch: string;
  transformers: string;
  gpu: string | null;
  capability: string | null;
  gpuBytes: number | null;
}
