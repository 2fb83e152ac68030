/** The command line between other programs: what comes in through pipes and files, what goes out, and where. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { loadGPT2 } from "../index.js";
import { RecordReader } from "../src/cli/csv.js";
import { candlewick, rows } from "./support/cli.js";
import { fixturePath } from "./support/fixtures.js";
import { newFolder, recitingModel } from "./support/models.js";

const reciting = recitingModel("A talker says this. And that, and no more.");
const generate = (...args: string[]) => ["generate", "-m", reciting, "--threads", "1", "--temperature", "0", ...args];
const classify = ["classify", "-m", fixturePath(join("pipelines", "classify")), "--threads", "1"];
const temporary = newFolder("pipe");
function file(name: string, content: string | Buffer): string {
  const path = join(temporary, name);
  writeFileSync(path, content);
  return path;
}

describe("generate", () => {
  const whole = "A talker says this. And that, and no more.\n";

  test("continues standard input; the text alone goes to standard output", async () => {
    const { code, stdout, stderr } = await candlewick(generate(), { stdin: "A\n" });
    assert.deepEqual({ code, stdout }, { code: 0, stdout: whole });
    assert.match(stderr, /4\d tokens, to its end/);
    const quiet = await candlewick(generate("--quiet", "--no-prompt"), { stdin: "A" });
    assert.deepEqual(quiet, { code: 0, stdout: whole.slice(1), stderr: "" });
  });

  test("reads files, stops, and writes a file", async () => {
    const out = join(temporary, "out.txt");
    const { code, stdout } = await candlewick(generate("-f", file("prompt.txt", "A"), "--stop", ".", "--stop", "no more", "-o", out));
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "" });
    assert.equal(readFileSync(out, "utf8"), "A talker says this\n");
  });

  test("writes JSON lines, one for each prompt of a file of rows", async () => {
    const prompts = file("prompts.csv", 'id,opening\n1,A\n2,"A talker"\n');
    const { code, stdout } = await candlewick(generate("-f", prompts, "--column", "opening", "--json", "--max-new-tokens", "5"));
    assert.equal(code, 0);
    const found = stdout.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(found.map(({ prompt, text }) => [prompt, text]), [["A", " talk"], ["A talker", " says"]]);
    assert.deepEqual(Object.keys(found[0]), ["prompt", "text", "finishReason", "seed", "usage", "timings"]);
    assert.equal(found[0].usage.completionTokens, 5);
  });

  test("says what is wrong with nothing, and does not wait for a terminal that is not there", async () => {
    const empty = await candlewick(generate(), { stdin: "" });
    assert.equal(empty.code, 1);
    assert.match(empty.stderr, /PROMPT_EMPTY: .*input is empty/);
  });

  test("takes its defaults from the model, and a seed that it tells", async () => {
    await using lm = await loadGPT2("default");
    const { text, seed } = await lm.generate("Once", { seed: 5, maxNewTokens: 12 }).result;
    const run = await candlewick(["generate", "Once", "--seed", "5", "--max-new-tokens", "12"]);
    assert.equal(run.stdout, `Once${text}\n`);
    assert.ok(run.stderr.includes(`seed ${seed}`));
    const drafted = await candlewick(["generate", "Once", "--seed", "5", "--max-new-tokens", "12", "--draft", "default", "--draft-dtype", "q4_0"]);
    assert.equal(drafted.stdout, run.stdout);
  });
});

describe("tables", () => {
  const texts = ["I loved it", 'said "wow", twice', "two\nlines", "我们喜欢"];
  const table = (separator: string) =>
    `\uFEFFid${separator}review\r\n${texts.map((text, i) => `${i}${separator}"${text.replaceAll('"', '""')}"`).join("\r\n")}\r\n`;
  const expected = async () => rows([...classify, "--json", ...texts]);

  test("CSV and TSV by their endings, and from standard input", async () => {
    const column = ["--column", "review", "--json"];
    assert.deepEqual(await rows([...classify, "-f", file("reviews.csv", table(",")), ...column]), await expected());
    assert.deepEqual(await rows([...classify, "-f", file("reviews.tsv", table("\t")), ...column]), await expected());
    assert.deepEqual(await rows([...classify, "--from", "csv", ...column], { stdin: table(",") }), await expected());
    const lines = texts.map((review) => JSON.stringify({ review })).join("\n");
    assert.deepEqual(await rows([...classify, "--from", "jsonl", ...column], { stdin: lines }), await expected());
    assert.deepEqual(await rows([...classify, "-f", file("one.csv", "anything\nI loved it\n"), "--json"]), (await expected()).slice(0, 1));
  });

  test("a column that is not there is named, with those that are", async () => {
    const { code, stderr } = await candlewick([...classify, "-f", file("columns.csv", "a,b\n1,2\n"), "--column", "review"]);
    assert.equal(code, 1);
    assert.match(stderr, /columns\.csv:2: there is no column "review", but a, b/);
    const unnamed = await candlewick([...classify, "-f", file("columns.csv", "a,b\n1,2\n")]);
    assert.match(unnamed.stderr, /it has a, b: --column names one/);
  });

  test("records are read as RFC 4180 has them, wherever lines end", () => {
    const reader = new RecordReader(",");
    assert.deepEqual(reader.push("a,,\"b,c\",\"d\"\"e\""), ["a", "", "b,c", 'd"e']);
    assert.deepEqual(reader.push(""), [""]);
    assert.equal(reader.push('x,"one'), undefined);
    assert.equal(reader.push(""), undefined);
    assert.deepEqual(reader.push('two",y'), ["x", "one\n\ntwo", "y"]);
    assert.throws(() => reader.push('"a"b,c'));
  });
});

describe("bad rows", () => {
  test("--skip-bad skips what is no JSON as it skips what is no text", async () => {
    const path = file("bad.jsonl", '"good"\n{not json\n{"no": "text"}\n"good again"\n');
    const skipping = await candlewick([...classify, "-f", path, "--skip-bad"]);
    assert.equal(skipping.code, 1);
    assert.equal(skipping.stdout.trim().split("\n").length, 2);
    assert.match(skipping.stderr, /bad\.jsonl:2: no JSON[^]+bad\.jsonl:3[^]+2 rows could not be read/);
    const stopping = await candlewick([...classify, "-f", path]);
    assert.equal(stopping.code, 1);
    assert.match(stopping.stderr, /INPUT_INVALID: .*bad\.jsonl:2: no JSON/);
  });

  test("bytes that are no UTF-8 are named by line and column", async () => {
    const bytes = Buffer.concat([Buffer.from("good\n好的"), Buffer.from([0xff]), Buffer.from("x\nlast\n")]);
    for (const [name, from] of [["latin.txt", "lines"], ["latin.csv", "csv"]] as const) {
      const path = file(name, from === "csv" ? Buffer.concat([Buffer.from("text\n"), bytes]) : bytes);
      const line = from === "csv" ? 3 : 2;
      const stopping = await candlewick([...classify, "-f", path]);
      assert.match(stopping.stderr, new RegExp(`INPUT_INVALID: .*${name}:${line}:3: no UTF-8`));
      const skipping = await candlewick([...classify, "-f", path, "--skip-bad"]);
      assert.equal(skipping.stdout.trim().split("\n").length, 2);
    }
    const whole = await candlewick([...classify, "--from", "whole", "-f", file("whole.txt", bytes)]);
    assert.match(whole.stderr, /whole\.txt:2:3: no UTF-8/);
  });

  test("records of the wrong width and quotation marks that never close", async () => {
    const path = file("broken.csv", 'a,text\n1,good\n1,2,3\n1,"open\nto the end\n');
    const { stdout, stderr } = await candlewick([...classify, "-f", path, "--skip-bad"]);
    assert.equal(stdout.trim().split("\n").length, 1);
    assert.match(stderr, /broken\.csv:3: 3 fields under 2 columns[^]+broken\.csv:4: a quotation mark that opens here never closes/);
  });
});

describe("models by name", () => {
  test("those that ship, and a folder of the same name first", async () => {
    const cwd = newFolder("named");
    const [row] = await rows(["classify", "-m", "sentiment-zh", "房间很干净"], { cwd });
    assert.match(row!, /^positive/);
    mkdirSync(join(cwd, "sentiment-zh"));
    const { stderr } = await candlewick(["classify", "-m", "sentiment-zh", "房间很干净"], { cwd });
    assert.match(stderr, /MODEL_NOT_FOUND: .*sentiment-zh has no config\.json/);
  });
});

describe("without an addon", () => {
  const env = { ...process.env, CANDLEWICK_NATIVE: "/nonexistent.node" };
  test("--help and --version work, for every command", async () => {
    const version = await candlewick(["--version"], { env });
    assert.deepEqual({ code: version.code, stderr: version.stderr }, { code: 0, stderr: "" });
    const help = await candlewick(["--help"], { env });
    assert.equal(help.code, 0);
    const names = [...help.stdout.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1]!);
    assert.ok(names.length > 12);
    for (const name of names) assert.equal((await candlewick([name, "--help"], { env })).code, 0, name);
  });
  test("a command says what is missing, and what to type", async () => {
    const { code, stderr } = await candlewick(["embed", "text"], { env });
    assert.equal(code, 1);
    assert.match(stderr, /ADDON_MISSING: [^]*unset CANDLEWICK_NATIVE/);
  });
});

test("train refuses to write over a finished run, but with --overwrite", async () => {
  const folder = newFolder("train");
  const output = join(folder, "tuned");
  const rowsOfText = Array.from({ length: 8 }, (_, i) => JSON.stringify({ text: `row ${i}`, label: i % 2 ? "odd" : "even" }));
  writeFileSync(join(folder, "train.jsonl"), rowsOfText.join("\n"));
  const train = (...more: string[]) =>
    candlewick(["train", "-m", "minilm", "-t", "text-classification", "-d", join(folder, "train.jsonl"), "-o", output, "--max-steps", "1", ...more]);
  assert.equal((await train()).code, 0);
  const before = readFileSync(join(output, "model.safetensors"));
  const refused = await train("--learning-rate", "0.01");
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /OUTPUT_EXISTS: .*finished[^]+--overwrite/);
  assert.ok(existsSync(output) && before.equals(readFileSync(join(output, "model.safetensors"))));
  assert.equal((await train("--overwrite", "--learning-rate", "0.01")).code, 0);
  assert.ok(!before.equals(readFileSync(join(output, "model.safetensors"))));
});
