/** What is trained here loads into Python's transformers and PEFT, and computes the same there. */
import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { cpSync, existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { finetune, loadBERT, mergeAdapter, trainTokenizer, type LoraOptions } from "../index.js";
import { fixturePath } from "./support/fixtures.js";
import { trainingOptions } from "./support/kills.js";
import { newFolder } from "./support/models.js";
import { testUnless } from "./support/skip.js";

const python = process.env["CANDLEWICK_PYTHON"] ?? join(homedir(), ".cache", "candlewick", "venv", "bin", "python");
const FIND = "import importlib.util as i; [i.find_spec(name).name for name in ('torch', 'transformers', 'peft')]";
const ready = existsSync(python) && spawnSync(python, ["-c", FIND]).status === 0;
const skip = ready ? false : "no Python with PyTorch and PEFT, so the cross-check did not run";

async function ask<T>(script: string): Promise<T> {
  const env = { ...process.env, HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error", PYTHONWARNINGS: "ignore" };
  const { stdout } = await promisify(execFile)(python, ["-c", script], { env });
  return JSON.parse(stdout.trim().split("\n").at(-1)!) as T;
}

testUnless(skip, "a GPT-2 and its adapter", async () => {
  const base = await trainingOptions("full");
  await finetune(base).result;
  const tuned = { ...(await trainingOptions("lora")), model: base.output, fromScratch: false, config: undefined, learningRate: 1e-2 };
  await finetune(tuned).result;
  const answer = await ask<{ merged: number; moved: number; weights: number }>(`
import json, torch
from transformers import GPT2LMHeadModel
from peft import PeftModel
ids = torch.arange(24).reshape(2, 12)
load = lambda path: GPT2LMHeadModel.from_pretrained(path, dtype=torch.float32).eval()
with torch.no_grad():
    plain = load(${JSON.stringify(base.output)})(ids).logits
    merged = load(${JSON.stringify(tuned.output)})
    adapted = PeftModel.from_pretrained(load(${JSON.stringify(base.output)}), ${JSON.stringify(join(tuned.output, "adapter"))}).eval()
    logits = adapted(ids).logits
    ours = merged(ids).logits
    weights = adapted.merge_and_unload().state_dict()
    difference = max((weights[name] - tensor).abs().max().item() for name, tensor in merged.state_dict().items())
print(json.dumps({"merged": (logits - ours).abs().max().item(), "moved": (plain - ours).abs().max().item(), "weights": difference}))`);
  assert.ok(answer.moved > 0.05, "the adapter does something");
  assert.ok(answer.merged <= 1e-4 && answer.weights <= 1e-5, JSON.stringify(answer));
});

testUnless(skip, "a BERT classifier", async () => {
  const model = newFolder("bert");
  cpSync(fixturePath("bert-base"), model, { recursive: true });
  const rows = Array.from({ length: 24 }, (_, i) => ({ text: `row ${i % 5} of three`, label: ["x", "y", "z"][i % 3]! }));
  await trainTokenizer({ type: "wordpiece", texts: rows.map(({ text }) => text), output: model, vocabularySize: 60, minFrequency: 1 });
  const output = newFolder("tuned");
  await finetune({ model, task: "text-classification", train: rows, output, epochs: 1, learningRate: 1e-3 }).result;
  await using bert = await loadBERT(output);
  const logits = (await bert.forward([{ ids: [2, 7, 8, 9, 3] }]))[0]!.logits!;
  const answer = await ask<{ logits: number[]; labels: string[] }>(`
import json, torch
from transformers import BertForSequenceClassification
model = BertForSequenceClassification.from_pretrained(${JSON.stringify(output)}, dtype=torch.float32).eval()
with torch.no_grad():
    logits = model(torch.tensor([[2, 7, 8, 9, 3]])).logits[0].tolist()
print(json.dumps({"logits": logits, "labels": [model.config.id2label[i] for i in range(3)]}))`);
  assert.deepEqual(answer.labels, bert.info.labels);
  answer.logits.forEach((logit, i) => assert.ok(Math.abs(logit - logits.data[i]!) < 1e-4));
});

testUnless(skip, "a BERT's adapter, and what it is merged into", async () => {
  const model = newFolder("bert");
  cpSync(fixturePath("bert-base"), model, { recursive: true });
  const rows = Array.from({ length: 24 }, (_, i) => ({ text: `row ${i % 5} of three`, label: ["x", "y", "z"][i % 3]! }));
  await trainTokenizer({ type: "wordpiece", texts: rows.map(({ text }) => text), output: model, vocabularySize: 60, minFrequency: 1 });
  const output = newFolder("tuned");
  await finetune({ model, task: "text-classification", train: rows, output, epochs: 1, learningRate: 1e-2, lora: { rank: 4 } }).result;
  const adapter = join(output, "adapter");
  const merged = join(newFolder("merged"), "model");
  await mergeAdapter({ adapter, output: merged });
  await using bert = await loadBERT(adapter);
  const logits = (await bert.forward([{ ids: [2, 7, 8, 9, 3] }]))[0]!.logits!;
  const answer = await ask<{ logits: Record<string, number[]>; labels: string[] }>(`
import json, torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification
models = {
    "PEFT": AutoPeftModelForSequenceClassification.from_pretrained(${JSON.stringify(adapter)}, num_labels=3),
    "merged": AutoModelForSequenceClassification.from_pretrained(${JSON.stringify(merged)}),
}
ids = torch.tensor([[2, 7, 8, 9, 3]])
with torch.no_grad():
    logits = {name: model.eval()(input_ids=ids).logits[0].tolist() for name, model in models.items()}
print(json.dumps({"logits": logits, "labels": [models["merged"].config.id2label[i] for i in range(3)]}))`);
  assert.deepEqual(answer.labels, bert.info.labels);
  for (const [name, theirs] of Object.entries(answer.logits)) {
    theirs.forEach((logit, i) => assert.ok(Math.abs(logit - logits.data[i]!) < 1e-4, `${name}: ${logit}`));
  }
});

testUnless(skip, "adapters whose layers and ranks are chosen by patterns", async () => {
  const model = newFolder("bert");
  cpSync(fixturePath("bert-base"), model, { recursive: true });
  const rows = Array.from({ length: 24 }, (_, i) => ({ text: `row ${i % 5} of three`, label: ["x", "y", "z"][i % 3]! }));
  await trainTokenizer({ type: "wordpiece", texts: rows.map(({ text }) => text), output: model, vocabularySize: 60, minFrequency: 1 });
  const loras: LoraOptions[] = [
    { rank: 2, targetModules: String.raw`bert\.encoder\.layer\.[02]\..*(query|output\.dense)` },
    { rank: 2, targetModules: "all-linear", excludeModules: ["intermediate.dense"] },
    { rank: 2, targetModules: ["dense"], rankPattern: { [String.raw`layer\.[12]\..*`]: 3, "output.dense": 1 }, alphaPattern: { "output.dense": 16, dense: 1 } },
    { rank: 2, targetModules: ["key", "dense"], layersToTransform: [1], layersPattern: "lay.*" },
  ];
  for (const lora of loras) {
    const output = newFolder("tuned");
    await finetune({ model, task: "text-classification", train: rows, output, epochs: 2, learningRate: 1e-2, lora }).result;
    await using bert = await loadBERT(join(output, "adapter"));
    const logits = (await bert.forward([{ ids: [2, 7, 8, 9, 3] }]))[0]!.logits!;
    const answer = await ask<{ logits: number[]; plain: number[]; missing: string[] }>(`
import json, torch, warnings
from peft import AutoPeftModelForSequenceClassification
with warnings.catch_warnings(record=True) as caught, torch.no_grad():
    warnings.simplefilter("always")
    model = AutoPeftModelForSequenceClassification.from_pretrained(${JSON.stringify(join(output, "adapter"))}, num_labels=3).eval()
    missing = [str(warning.message) for warning in caught if "missing" in str(warning.message)]
    logits = model(input_ids=torch.tensor([[2, 7, 8, 9, 3]])).logits[0].tolist()
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling["default"] = 0.0
    plain = model(input_ids=torch.tensor([[2, 7, 8, 9, 3]])).logits[0].tolist()
print(json.dumps({"logits": logits, "plain": plain, "missing": missing}))`);
    const far = (theirs: number[]) => Math.max(...theirs.map((logit, i) => Math.abs(logit - logits.data[i]!)));
    assert.deepEqual(answer.missing, [], JSON.stringify(lora));
    assert.ok(far(answer.logits) <= 1e-4 && far(answer.plain) > 1e-3, `${JSON.stringify(lora)}: ${far(answer.logits)}, ${far(answer.plain)}`);
  }
});

/** One configuration of each model that is trained, by transformers' keys. */
const sizes = { hidden_size: 24, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 40, max_position_embeddings: 40 };
const CLASSIFIERS: Record<string, Record<string, unknown>> = {
  distilbert: { dim: 24, n_layers: 2, n_heads: 3, hidden_dim: 40, max_position_embeddings: 40 },
  roberta: { ...sizes, pad_token_id: 0, type_vocab_size: 1 },
  electra: { ...sizes, embedding_size: 16 },
  mpnet: { ...sizes },
  gpt2: { n_positions: 40, n_embd: 24, n_layer: 2, n_head: 3, pad_token_id: 0 },
};

for (const [kind, config] of Object.entries(CLASSIFIERS)) {
  testUnless(skip, `a classifier out of a ${kind}, and its adapter`, async () => {
    const model = newFolder(kind);
    const rows = Array.from({ length: 24 }, (_, i) => ({ text: `row ${i % 5} of three`, label: ["x", "y", "z"][i % 3]! }));
    await trainTokenizer({ type: "wordpiece", texts: rows.map(({ text }) => text), output: model, vocabularySize: 60, minFrequency: 1 });
    const base = newFolder("base");
    await finetune({ model, task: "text-classification", train: rows, output: base, epochs: 1, learningRate: 1e-2, fromScratch: true, config: { ...config, model_type: kind } }).result;
    const output = newFolder("tuned");
    await finetune({ model: base, task: "text-classification", train: rows, output, epochs: 1, learningRate: 1e-2, lora: { rank: 4 } }).result;
    const ours = async (folder: string) => {
      await using bert = await loadBERT(folder);
      return Array.from((await bert.forward([{ ids: [2, 7, 8, 9, 3] }]))[0]!.logits!.data);
    };
    const answer = await ask<Record<string, number[]>>(`
import json, torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
load = lambda path: AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
models = {"base": load(${JSON.stringify(base)}), "merged": load(${JSON.stringify(output)}),
    "PEFT": PeftModel.from_pretrained(load(${JSON.stringify(base)}), ${JSON.stringify(join(output, "adapter"))}).eval()}
ids = torch.tensor([[2, 7, 8, 9, 3]])
with torch.no_grad():
    print(json.dumps({name: model(input_ids=ids).logits[0].tolist() for name, model in models.items()}))`);
    for (const [name, folder] of [["base", base], ["merged", output], ["PEFT", join(output, "adapter")]] as const) {
      const logits = await ours(folder);
      answer[name]!.forEach((logit, i) => assert.ok(Math.abs(logit - logits[i]!) < 1e-4, `${name}: ${logit}, ${logits[i]}`));
    }
    assert.ok(answer["base"]!.some((logit, i) => Math.abs(logit - answer["merged"]![i]!) > 0.01), "the adapter does something");
  });
}
