// `candlewick adapter`: a LoRA adapter made part of a model on the disk, and taken out of it again.
import { Option, type Command } from "commander";
import type { MergedAdapter, UnmergeAdapterOptions } from "../adapter-merging.js";
import { library } from "./library.js";
import { loading } from "./progress.js";
import { signal, write } from "./terminal.js";

interface Arguments extends Omit<UnmergeAdapterOptions, "adapter"> {
  json?: boolean;
}

export function addAdapter(program: Command): void {
  const command = program.command("adapter").summary("merge a LoRA adapter into its model, or take it out again");
  const withOptions = (action: Command): Command =>
    action
      .argument("<adapter>", "a folder in PEFT's layout (adapter_config.json, adapter_model.safetensors), or a hub id")
      .requiredOption("-o, --output <folder>", "where the model is written; what is there is overwritten")
      .addOption(new Option("--dtype <type>", "how weights are written (default: as the model has them)").choices(["f32", "f16"]))
      .option("--local-files-only", "never use the network")
      .option("--json", "print what was made as JSON");
  withOptions(
    command
      .command("merge")
      .summary("write the adapter's model as a model of its own")
      .description("Adds the adapter to its base's weights, and writes a model that needs neither."),
  )
    .option("-m, --model <path>", "the base: a folder, a package of weights or a hub id (default: the one that the adapter names)")
    .addHelpText("after", "\nFor instance: candlewick adapter merge ./tuned/adapter -o ./merged")
    .action((adapter: string, given: Arguments) => run(library().mergeAdapter, adapter, given));
  withOptions(
    command
      .command("unmerge")
      .summary("take the adapter out of a model that it was merged into")
      .description("Subtracts what the adapter adds. Modules that it holds whole, such as a classifier, stay."),
  )
    .requiredOption("-m, --model <path>", "the merged model: a folder or a hub id")
    .addHelpText("after", "\nFor instance: candlewick adapter unmerge ./tuned/adapter -m ./merged -o ./base")
    .action((adapter: string, given: Arguments) => run(library().unmergeAdapter, adapter, given));
}

async function run(
  work: (options: UnmergeAdapterOptions) => Promise<MergedAdapter>,
  adapter: string,
  { json, ...options }: Arguments,
): Promise<void> {
  const merged = await work({ ...options, adapter, signal, onProgress: loading() });
  const { output, modules, replaced, bytes } = merged;
  const whole = replaced > 0 ? ` and ${replaced} tensors replaced` : "";
  await write(json ? `${JSON.stringify(merged)}\n` : `${modules} matrices changed${whole}, ${(bytes / 1e6).toFixed(1)} MB written.\n${output}\n`);
}
