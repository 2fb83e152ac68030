/** Readers of option values, and the options that several commands have. */
import { InvalidArgumentError, Option, type Command } from "commander";
import { DEVICE, NOT_A_DEVICE, type Device } from "../device.js";
import type { Dtype, LoadOptions } from "../load.js";
import { loading } from "./progress.js";
import { signal } from "./terminal.js";

/** A number, whole or not: its range is the library's business, which knows it. */
export function number(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || Number.isNaN(value)) throw new InvalidArgumentError("It must be a number.");
  return value;
}

/** For an option that may be given several times. */
export function several<T>(read: (text: string) => T): (text: string, before: T[] | undefined) => T[] {
  return (text, before = []) => [...before, read(text)];
}

export const DTYPES: readonly Dtype[] = ["f32", "f16", "bf16", "int8", "q8_0", "q4_0"];

/** Where a model computes: an option of a command. */
export function deviceOption(): Option {
  return new Option("--device <device>", "where to compute: auto, cpu, cuda, or a GPU by its number, such as cuda:1").argParser((text) => {
    if (!DEVICE.test(text)) throw new InvalidArgumentError(`It ${NOT_A_DEVICE}.`);
    return text as Device;
  });
}

/** How a model is loaded, as options of `command`; {@link loadOptions} reads them. */
export function withLoadOptions(command: Command): Command {
  return command
    .addOption(new Option("--dtype <type>", "how weights are held").choices(DTYPES))
    .addOption(deviceOption())
    .option("--threads <n>", "how many threads compute (default: one for each core)", number)
    .option("--revision <name>", "branch, tag or commit of a model on the hub")
    .option("--local-files-only", "never use the network");
}

export interface LoadArguments {
  dtype?: Dtype;
  device?: Device;
  threads?: number;
  revision?: string;
  localFilesOnly?: boolean;
}

/** With a progress bar on a terminal, which `done` takes away. */
export function loadOptions({ dtype, device, threads, revision, localFilesOnly }: LoadArguments): LoadOptions {
  return { dtype, device, threads, revision, localFilesOnly, signal, onProgress: loading() };
}
