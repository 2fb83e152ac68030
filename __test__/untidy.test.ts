/**
 * Folders as people bring them: a model's vectors and scores are sentence-transformers', or the folder is refused by
 * name. The cases are made by `tools/fixtures/untidy.py`.
 */
import assert from "node:assert/strict";
import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "vitest";
import { CandlewickError, finetune, loadBERT, loadGPT2 } from "../index.js";
import { hasCode } from "./support/assertions.js";
import { fixturePath, worst } from "./support/fixtures.js";
import { newFolder, randomModel } from "./support/models.js";

type Content = { json: unknown } | { file: string } | { from: string } | null;

interface Case {
  name: string;
  base: string;
  files: Record<string, Content>;
  expect: string;
  options: { normalize?: boolean };
  vectors?: number[][];
  scores?: number[];
}

const { texts, cases, tolerance } = JSON.parse(readFileSync(join(fixturePath("untidy"), "untidy.json"), "utf8")) as {
  texts: string[];
  cases: Case[];
  tolerance: { atol: number; rtol: number };
};

function build({ base, files }: Pick<Case, "base" | "files">): string {
  const from = fixturePath(join("pipelines", base));
  const folder = newFolder("untidy");
  cpSync(from, folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    if (content === null) rmSync(path, { force: true });
    else if ("json" in content) writeFileSync(path, JSON.stringify(content.json));
    else copyFileSync("file" in content ? join(fixturePath("untidy"), content.file) : join(from, content.from), path);
  }
  return folder;
}

async function measure({ base, options }: Case, folder: string): Promise<number[][]> {
  await using bert = await loadBERT(folder, { threads: 1 });
  if (base === "reranker") {
    const ranked = await bert.rerank({ query: texts[0]!, documents: texts.filter((text) => text !== "") });
    return [ranked.toSorted((a, b) => a.index - b.index).map(({ score }) => score)];
  }
  return (await bert.embed(texts, options)).map((row) => Array.from(row as Float32Array));
}

describe("a folder of sentence-transformers'", () => {
  for (const one of cases) {
    test(`${one.name}: ${one.expect}`, async () => {
      const folder = build(one);
      if (one.expect !== "equal") return assert.rejects(measure(one, folder), hasCode(one.expect as never));
      const expected = one.vectors ?? [one.scores!];
      const rows = await measure(one, folder);
      assert.equal(rows.length, expected.length);
      for (const [i, row] of rows.entries()) {
        assert.equal(row.length, expected[i]!.length);
        assert.ok(worst(row, expected[i]!, tolerance) <= 1, `${i}: ${worst(row, expected[i]!, tolerance)}`);
      }
    });
  }

  test("that has a file of each kind is as it is after training on another task", async () => {
    const dense = cases.find(({ name }) => name === "the older layout")!;
    const rows = ["a", "b", "a", "b"].map((label) => ({ text: `the river ${label}`, label }));
    const output = newFolder("trained");
    await finetune({ model: build(dense), task: "text-classification", train: rows, output, epochs: 1, batchSize: 2 }).result;
    await using bert = await loadBERT(output, { threads: 1 });
    assert.deepEqual(bert.info.labels, ["a", "b"]);
    assert.equal((await bert.embed("x")).length, bert.info.hiddenSize);
  });
});

describe("config.json", () => {
  /** The classifier's or the generator's folder with other fields in a file. */
  const changed = (fields: object, name = "config.json", base = fixturePath(join("pipelines", "classify"))) => {
    const folder = newFolder("config");
    cpSync(base, folder, { recursive: true });
    const path = join(folder, name);
    let content = {};
    try {
      content = JSON.parse(readFileSync(path, "utf8")) as object;
    } catch {
      // It is a new file.
    }
    writeFileSync(path, JSON.stringify({ ...content, ...fields }));
    return folder;
  };
  const five = ["one", "two", "three", "four", "five"];
  const named = (names: readonly unknown[]) => Object.fromEntries(names.map((name, id) => [id, name]));

  const refused: [field: string, value: object, code: string][] = [
    ["layer_norm_eps", { layer_norm_eps: "1e-12" }, "CONFIG_INVALID"],
    ["layer_norm_eps", { layer_norm_eps: null }, "CONFIG_INVALID"],
    ["layer_norm_eps", { layer_norm_eps: 0 }, "CONFIG_INVALID"],
    ["hidden_size", { hidden_size: "24" }, "CONFIG_INVALID"],
    ["hidden_size", { hidden_size: 24.5 }, "CONFIG_INVALID"],
    ["num_hidden_layers", { num_hidden_layers: -1 }, "CONFIG_INVALID"],
    ["hidden_act", { hidden_act: 3 }, "CONFIG_INVALID"],
    ["tie_word_embeddings", { tie_word_embeddings: "yes" }, "CONFIG_INVALID"],
    ["architectures", { architectures: "BertModel" }, "CONFIG_INVALID"],
    ["architectures", { architectures: ["BertForMaskedLM", "BertForQuestionAnswering"] }, "CONFIG_INVALID"],
    ["problem_type", { problem_type: "two_label_classification" }, "CONFIG_INVALID"],
    ["problem_type", { problem_type: 1 }, "CONFIG_INVALID"],
    ["problem_type", { problem_type: "single_label_classification", id2label: named(["a"]), label2id: null }, "MODEL_INVALID"],
    ["id2label", { id2label: five }, "CONFIG_INVALID"],
    ["id2label", { id2label: { ...named(five.slice(0, 4)), 5: "five" } }, "CONFIG_INVALID"],
    ["id2label", { id2label: { zero: "one" } }, "CONFIG_INVALID"],
    ["id2label", { id2label: named([...five.slice(0, 4), ["five"]]) }, "CONFIG_INVALID"],
    ["id2label", { id2label: named(five.slice(0, 3)), label2id: null }, "MODEL_INVALID"],
    ["label2id", { id2label: named(five), label2id: { one: 1, two: 0 } }, "MODEL_INVALID"],
    ["label2id", { id2label: named(five), label2id: { one: 9 } }, "MODEL_INVALID"],
    ["label2id", { id2label: named(five), label2id: { one: "first" } }, "CONFIG_INVALID"],
    ["num_labels", { num_labels: 3 }, "MODEL_INVALID"],
    ["num_labels", { num_labels: "5" }, "CONFIG_INVALID"],
    ["task_specific_params", { task_specific_params: [] }, "CONFIG_INVALID"],
    ["quantization_config", { quantization_config: { bits: 4 } }, "UNSUPPORTED_MODEL"],
    ["pruned_heads", { pruned_heads: { 0: [1] } }, "UNSUPPORTED_MODEL"],
    ["config.json", { hidden_size: 48, num_attention_heads: 2 }, "TENSOR_SHAPE"],
    ["model.safetensors", { num_hidden_layers: 3 }, "TENSOR_MISSING"],
    ["cls.predictions", { architectures: ["BertForMaskedLM"] }, "TENSOR_MISSING"],
    ["qa_outputs", { architectures: ["BertForQuestionAnswering"], id2label: null, label2id: null }, "TENSOR_MISSING"],
    ["id2label", { architectures: ["BertForQuestionAnswering"] }, "MODEL_INVALID"],
  ];
  for (const [field, value, code] of refused) {
    test(`${JSON.stringify(value)} is ${code}, and names ${field}`, async () => {
      const says = (error: unknown) => hasCode(code as never)(error) && (error as CandlewickError).message.includes(field);
      await assert.rejects(loadBERT(changed(value)), says);
    });
  }

  test("names classes as it says, where that is possible", async () => {
    for (const [value, labels] of [
      [{ id2label: named(five), label2id: { LABEL_0: 0, LABEL_1: 1 } }, five],
      [{ id2label: named([0, 1, 2, 3, 4]), label2id: null }, ["0", "1", "2", "3", "4"]],
      [{ id2label: named(["a", "a", "b", "c", "d"]), label2id: { a: 1, b: 2, c: 3, d: 4 } }, ["a", "a", "b", "c", "d"]],
      [{ id2label: null, label2id: null }, ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4"]],
    ] as const) {
      await using bert = await loadBERT(changed(value), { threads: 1 });
      assert.deepEqual(bert.info.labels, labels);
    }
  });

  for (const name of ["config.json", "generation_config.json"]) {
    for (const id of ["0", -1, 300_000, 1.5, [0, "1"], { id: 0 }]) {
      test(`${name} with ${JSON.stringify(id)} for the end of a text is refused`, async () => {
        const says = (error: unknown) => hasCode("CONFIG_INVALID")(error) && (error as CandlewickError).message.includes("eos_token_id");
        await assert.rejects(loadGPT2(changed({ eos_token_id: id }, name, randomModel())), says);
      });
    }
  }

  test("may name the token that transformers writes into every GPT-2's", async () => {
    const folder = changed({ eos_token_id: 50256, bos_token_id: 50256 }, "config.json", randomModel());
    await using lm = await loadGPT2(folder, { threads: 1 });
    assert.deepEqual(lm.info.eosTokenIds, []);
  });
});

describe("weights in shards of PyTorch's", () => {
  const folder = () => {
    const folder = newFolder("shards");
    cpSync(fixturePath("bert-variant-bin"), folder, { recursive: true });
    copyFileSync(join(folder, "pytorch_model.bin"), join(folder, "pytorch_model-00001-of-00001.bin"));
    rmSync(join(folder, "pytorch_model.bin"));
    return folder;
  };
  const index = (path: string, shards: string[]) =>
    writeFileSync(join(path, "pytorch_model.bin.index.json"), JSON.stringify({ weight_map: Object.fromEntries(shards.map((name, i) => [`t${i}`, name])) }));

  test("load as one file does", async () => {
    const path = folder();
    index(path, ["pytorch_model-00001-of-00001.bin"]);
    await using shards = await loadBERT(path, { threads: 1 });
    await using whole = await loadBERT(fixturePath("bert-variant-bin"), { threads: 1 });
    assert.deepEqual(await shards.forward({ ids: [1, 2, 3] }), await whole.forward({ ids: [1, 2, 3] }));
  });

  test("of which one is missing, or leads elsewhere, or is none, are refused", async () => {
    const path = folder();
    for (const [shards, code] of [
      [["pytorch_model-00001-of-00001.bin", "pytorch_model-00002-of-00001.bin"], "MODEL_NOT_FOUND"],
      [["../x.bin"], "PATH_ESCAPE"],
      [[], "WEIGHTS_CORRUPT"],
    ] as const) {
      index(path, [...shards]);
      await assert.rejects(loadBERT(path), hasCode(code));
    }
  });
});
