import type * as Binding from "#binding";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { addonAdvice, lookAround } from "./addon-advice.js";
import { CandlewickError } from "./errors.js";
import { packageRoot } from "./package.js";

/** The Rust addon. Its types are generated from `crates/node`. */
export type Native = typeof Binding;
export type NativeGenerator = Binding.Generator;
export type NativeEncoder = Binding.Encoder;
export type NativeTokenStream = Binding.TokenStream;
export type NativeFinetune = Binding.Finetune;
export type NativeGenerateOptions = Binding.GenerateOptions;
export type NativePrompts = Binding.Prompts;
export type NativeScoreOptions = Binding.ScoreOptions;
export type NativeTexts = Binding.Texts;
export type NativeResult = Binding.GenerationResult;
export type NativeEncodeOptions = Binding.EncodeOptions;
export type NativeVectorIndex = Binding.VectorIndex;
export type {
  PackedAnswers,
  PackedBytes,
  PackedEntities,
  PackedFills,
  PackedFloats,
  PackedHits,
  PackedIds,
  PackedInputs,
  PackedOutputs,
  PackedScores,
  PackedTokens,
  Settled,
} from "#binding";

/**
 * Loads the addon: the file that `CANDLEWICK_NATIVE` names; else the CUDA addon, where its package is installed;
 * else what `native/binding.cjs` finds, which is a build beside it (a checkout) or the platform's
 * package (`candlewick-linux-x64-gnu` and so on; npm installs the one that fits).
 */
function load(): Native {
  const path = process.env["CANDLEWICK_NATIVE"];
  try {
    return path ? require(path) : (cudaAddon() ?? require("#binding"));
  } catch (error) {
    throw missing(path, error);
  }
}

const cudaPackage = "candlewick-linux-x64-gnu-cuda";

/**
 * The addon that has CUDA, and loads without a GPU too: one that is installed and cannot be loaded is a warning, once
 * in each thread.
 */
function cudaAddon(): Native | undefined {
  let manifest: { version: string };
  try {
    manifest = require(`${cudaPackage}/package.json`);
  } catch {
    return undefined;
  }
  try {
    const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
    if (manifest.version !== version) throw new Error(`it has version ${manifest.version}, and candlewick ${version}`);
    return require(cudaPackage);
  } catch (error) {
    process.emitWarning(`${cudaPackage} is installed and cannot be loaded, so that models run on the CPU: ${causes(error).join("; ")}`, {
      type: "CandlewickWarning",
      code: "CANDLEWICK_CUDA_UNAVAILABLE",
      detail: "It needs Linux with glibc on x86-64, and candlewick at exactly its version.",
    });
    return undefined;
  }
}

function missing(path: string | undefined, error: unknown): CandlewickError {
  const message = addonAdvice(lookAround(path, causes(error)));
  return new CandlewickError("ADDON_MISSING", message, { cause: error });
}

/** The first lines of an error's message and of its causes'. */
function causes(error: unknown): string[] {
  const lines: string[] = [];
  for (let next = error; next instanceof Error && lines.length < 8; next = next.cause) {
    const line = next.message.split("\n", 1)[0]!;
    if (!lines.includes(line)) lines.push(line);
  }
  return lines;
}

export const native: Native = load();
