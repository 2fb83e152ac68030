/**
 * Every field of transformers' configurations set to each of its legal values, one at a time or in pairs: the model
 * computes what transformers computes, or is refused by name. There is no third outcome.
 */
import assert from "node:assert/strict";
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test, vi } from "vitest";
import { CandlewickError, loadBERT, loadGPT2, pipeline } from "../index.js";
import { generationKeys } from "../src/generation-defaults.js";
import { fixturePath } from "./support/fixtures.js";

type Json = Record<string, unknown>;

interface Outcome {
  readonly refused?: string;
  /** Some numbers of the output of each list of ids. */
  readonly n0?: readonly number[];
  readonly n1?: readonly number[];
  /** The ids that follow the first list, with padding. */
  readonly generated?: readonly (readonly number[])[];
  readonly pad?: number | null;
  readonly labels?: readonly (readonly [string, number])[];
}

interface Fixture {
  readonly ids: readonly (readonly number[])[];
  readonly text: string;
  readonly bases: Readonly<Record<string, { config: Json; kind: string; tokenizer: string }>>;
  readonly outcomes: readonly Outcome[];
  readonly cases: readonly (readonly [base: string, file: string, fields: Json, outcome: number])[];
}

const fixture = JSON.parse(readFileSync(fixturePath("config-fields/cases.json"), "utf8")) as Fixture;
const { ids, text } = fixture;

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "candlewick-fields-"));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** The base's folder with these fields in that file. */
function folderOf(name: string, base: string, file: string, fields: Json): { folder: string; files: Record<string, Json> } {
  const { config, tokenizer } = fixture.bases[base]!;
  const files: Record<string, Json> = { "config.json": { ...config } };
  const changed = (files[file] ??= {});
  for (const [field, value] of Object.entries(fields)) {
    if (typeof value === "object" && value !== null && "$delete" in value) delete changed[field];
    else changed[field] = value;
  }
  const folder = join(root, name);
  mkdirSync(folder);
  for (const [path, content] of Object.entries(files)) writeFileSync(join(folder, path), JSON.stringify(content));
  writeFileSync(join(folder, "model.safetensors"), readFileSync(fixturePath(`config-fields/bases/${base}.safetensors`)));
  linkOrCopy(fixturePath(`config-fields/bases/${tokenizer}.json`), join(folder, "tokenizer.json"));
  // Words, which are no model type's own vocabulary.
  writeFileSync(join(folder, "tokenizer_config.json"), '{"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "w4", "pad_token": "w0"}');
  return { folder, files };
}

function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch {
    writeFileSync(to, readFileSync(from));
  }
}

/** Some sixteen values over the whole output, as the fixture's script takes them. */
function some(values: Float32Array | readonly number[]): number[] {
  const step = Math.max(1, Math.floor(values.length / 16));
  return Array.from(values)
    .filter((_, index) => index % step === 0)
    .slice(0, 17);
}

async function ours(folder: string, files: Record<string, Json>, kind: string): Promise<Outcome> {
  if (kind === "LMHeadModel") {
    await using lm = await loadGPT2(folder, { threads: 1 });
    const scores = await Promise.all(ids.map((one) => lm.score([...one])));
    const [n0, n1] = scores.map(({ tokens }) => some(tokens.slice(1).map(({ logprob }) => logprob!)));
    const keys = generationKeys({ config: files["config.json"]!, generation: files["generation_config.json"] });
    const length = ["max_length", "max_new_tokens"].some((key) => typeof keys?.[key] === "number") ? {} : { maxNewTokens: 20 };
    const options = keys ? length : { ...length, temperature: 0 };
    const { sequences, tokens } = await lm.generate([...ids[0]!], options).result;
    const generated = (sequences ?? [{ tokens }]).map((sequence) => sequence.tokens.map(({ id }) => id));
    return { n0, n1, generated };
  }
  const task = { ForSequenceClassification: "text-classification", ForTokenClassification: "token-classification" } as const;
  let labels: [string, number][] | undefined;
  if (kind === "ForSequenceClassification") {
    await using classify = await pipeline(task[kind], folder, { threads: 1 });
    labels = (await classify(text, { topK: "all" })).map(({ label, score }) => [label, score]);
  } else if (kind === "ForTokenClassification") {
    await using entities = await pipeline(task[kind], folder, { threads: 1 });
    labels = (await entities(text)).map(({ entity, score }) => [entity, score]);
  }
  await using bert = await loadBERT(folder, { threads: 1 });
  const outputs = await Promise.all(ids.map((one) => bert.forward({ ids: [...one] })));
  const [n0, n1] = outputs.map(({ logits, lastHiddenState }) => {
    const values = kind === "Model" ? lastHiddenState! : logits;
    // The files name another head, or none: every task of this one refuses such a model.
    if (!values) throw new CandlewickError("TASK_UNSUPPORTED", "no head");
    return some("data" in values ? values.data : values);
  });
  return { n0, n1, ...(labels ? { labels } : {}) };
}

/** Fields with which transformers fails, for a reason that is its own, and Candlewick answers as without them. */
const PYTHONS_OWN: Readonly<Record<string, string>> = {
  return_dict: "the form of Python's answers",
  use_return_dict: "the form of Python's answers",
  auto_map: "null breaks transformers' search for Python code",
  chunk_size_feed_forward: "the same result in parts, whose size must divide the text's length there",
  bad_words_ids: "an empty list bans nothing; transformers has no empty list",
};

const TOLERANCE = 1.1e-4; // 1e-4, and the fixture's rounding

const near = (a: readonly number[] = [], b: readonly number[] = []) =>
  a.length === b.length && a.every((value, index) => Math.abs(value - b[index]!) <= TOLERANCE);

/** No `id2label`: here the head's rows say how many classes there are, in transformers there are two. */
const unnamedClasses = ({ id2label }: Json) => id2label === null || (typeof id2label === "object" && "$delete" in id2label!);

/** What differs; undefined where nothing does. */
function difference(found: Outcome, expected: Outcome, ends: readonly number[]): string | undefined {
  if (!near(found.n0, expected.n0) || !near(found.n1, expected.n1)) return `numbers ${found.n0?.slice(0, 3)}, not ${expected.n0?.slice(0, 3)}`;
  if (expected.generated) {
    // transformers fills shorter sequences up; ours end.
    const cut = (rows: Outcome["generated"]) => JSON.stringify((rows ?? []).map((row) => withoutEnd(row, ends, expected.pad)));
    if (cut(found.generated) !== cut(expected.generated)) return `generated ${cut(found.generated)}, not ${cut(expected.generated)}`;
  }
  if (expected.labels) {
    const names = (outcome: Outcome) => outcome.labels?.map(([label]) => label).join(" ");
    const scores = (outcome: Outcome) => outcome.labels?.map(([, score]) => score);
    if (names(found) !== names(expected) || !near(scores(found), scores(expected))) {
      return `labels ${JSON.stringify(found.labels)}, not ${JSON.stringify(expected.labels)}`;
    }
  }
  return undefined;
}

function withoutEnd(row: readonly number[], ends: readonly number[], pad: number | null | undefined): readonly number[] {
  const end = row.findIndex((id) => ends.includes(id));
  if (end >= 0) return row.slice(0, end);
  let length = row.length;
  while (length > 0 && row[length - 1] === pad) length--;
  return row.slice(0, length);
}

describe("fields of config.json and generation_config.json", () => {
  for (const base of Object.keys(fixture.bases)) {
    test(base, { timeout: 240_000 }, async () => {
      const wrong: string[] = [];
      const warnings = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
      const mine = fixture.cases.filter(([name]) => name === base);
      for (const [index, [, file, fields, which]] of mine.entries()) {
        const expected = fixture.outcomes[which]!;
        const { folder, files } = folderOf(`${base}-${index}`, base, file, fields);
        warnings.mockClear();
        const eos = files["generation_config.json"]?.["eos_token_id"] ?? (files["generation_config.json"] ? undefined : files["config.json"]!["eos_token_id"]);
        const said = `${file} ${JSON.stringify(fields)}`;
        try {
          const found = await ours(folder, files, fixture.bases[base]!.kind);
          // A warning that names the field is said, too.
          const named = warnings.mock.calls.some(([message]) => Object.keys(fields).some((field) => String(message).includes(field)));
          const known = Object.keys(fields).some((field) => field in PYTHONS_OWN) || unnamedClasses(fields);
          if (expected.refused && !named && !known) wrong.push(`${said}: taken, transformers: ${expected.refused}`);
          const problem = expected.refused ? undefined : difference(found, expected, [eos ?? []].flat() as number[]);
          if (problem && !named) wrong.push(`${said}: ${problem}`);
        } catch (error) {
          if (!(error instanceof CandlewickError) || error.code === "INTERNAL") wrong.push(`${said}: ${error}`);
        }
        rmSync(folder, { recursive: true });
      }
      warnings.mockRestore();
      assert.deepEqual(wrong, []);
    });
  }
});
