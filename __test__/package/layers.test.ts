import assert from "node:assert/strict";
import { test } from "vitest";
import { featureViolations } from "../../scripts/check-features.mjs";
import { circlesOf, usesOf } from "../../scripts/check-circles.mjs";
import { fileViolations, lockViolations, widthViolations } from "../../scripts/check-files.mjs";
import { layerViolations } from "../../scripts/check-layers.mjs";

const crate = (name: string, ...dependencies: { name: string; kind: string | null }[]) => ({ name: `candlewick-${name}`, dependencies });
const on = (name: string, kind: string | null = null) => ({ name, kind });

test("the crates may depend downwards", () => {
  const violations = layerViolations([
    crate("kernels", on("half")),
    crate("models", on("candlewick-kernels"), on("candle-core"), on("tempfile", "dev")),
    crate("engine", on("candlewick-models")),
    crate("train", on("candlewick-models"), on("candle-nn")),
    crate("node", on("candlewick-engine"), on("candlewick-train"), on("napi"), on("napi-build", "build")),
  ]);
  assert.deepEqual(violations, []);
});

const breaches: [string, ReturnType<typeof crate>][] = [
  ["a kernel that knows a model", crate("kernels", on("candlewick-models"))],
  ["a kernel on Candle's tensors", crate("kernels", on("candle-core"))],
  ["a model that knows the engine", crate("models", on("candlewick-engine"))],
  ["the engine on a kernel", crate("engine", on("candlewick-kernels"))],
  ["the engine on a kernel in its tests", crate("engine", on("candlewick-kernels", "dev"))],
  ["the engine on Candle's tensors", crate("engine", on("candle-core"))],
  ["the engine on training", crate("engine", on("candlewick-train"))],
  ["the engine on Node", crate("engine", on("napi"))],
  ["a model on Node", crate("models", on("napi-derive"))],
  ["the binding on a kernel", crate("node", on("candlewick-kernels"))],
  ["the binding on Candle's tensors", crate("node", on("candle-core"))],
  ["a crate without a layer", crate("extras")],
];
for (const [name, breach] of breaches) {
  test(`the rule catches ${name}`, () => assert.equal(layerViolations([breach]).length, 1));
}

// Put together here, because this file is checked as well.
const host = ["registry", "npmjs", "org"].join(".");
const home = ["", "home", "someone", "notes.txt"].join("/");
const account = ["C:", "Users", "someone"].join("\\");
for (const text of [`"resolved": "https://${host}/tsx"`, `see ${home}`, `path = "${account}"`]) {
  test(`a committed file may not say ${text}`, () => {
    assert.equal(fileViolations("file.md", `first line\n${text}\n`).length, 1);
  });
}

test("a committed file may name sites and paths of the repository", () => {
  assert.deepEqual(fileViolations("README.md", "https://github.com/rust-lang/crates.io-index ~/.cache/candlewick src/home/page.ts"), []);
});

const circles = (sources: Record<string, string>) => circlesOf(usesOf(sources));

test("two files of a crate that use each other are a circle, however they name each other", () => {
  for (const [a, b] of [
    ["use crate::b::B; pub struct A;", "use super::a::A; pub struct B;"],
    ["use crate::{c::{C}, b::{B, D as E}};", "fn f() { crate::a::g() }"],
    // By what lib.rs re-exports, one by one or all.
    ["use crate::B; pub struct A;", "use crate::{A};"],
    ["pub struct A; fn f() -> crate::B {}", "fn f() { a::g() } use crate::a;"],
  ] as const)
    assert.deepEqual(circles({ "lib.rs": "mod a; mod b; mod c; pub use a::A; pub use b::*;", "a.rs": a, "b.rs": `${b} pub struct B;`, "c.rs": "" }), [["a.rs", "b.rs"]], `${a} ${b}`);
});

test("a circle of three, and of a module with its own child, are found; comments, strings, tests and other crates are no uses", () => {
  const three = { "a.rs": "use crate::b::B;", "b.rs": "use crate::c::C;", "c/mod.rs": "use crate::a::A;", "lib.rs": "" };
  assert.deepEqual(circles(three), [["a.rs", "b.rs", "c/mod.rs"]]);
  assert.deepEqual(circles({ "lib.rs": "", "a/mod.rs": "mod b; pub struct A; fn f() { b::g() }", "a/b.rs": "use super::A; pub fn g() {}" }), [["a/b.rs", "a/mod.rs"]]);
  const none = { "lib.rs": "pub use a::A;", "a.rs": "use crate::b::B;", "b.rs": '// crate::a::A\nconst S: &str = "crate::a::A"; use a::A; #[cfg(test)] mod tests { use crate::a::A; }' };
  assert.deepEqual(circles({ ...none, "a.rs": "use crate::b::B; pub struct A;" }), []);
  // What stands behind a text with `//` in it, or behind a character that is a quotation mark, is code all the same.
  for (const before of ['const U: &str = "http://a";', "const Q: char = '\"';", 'const R: &str = r#"a"b"#;', "fn f<'a>(x: &'a str) {}"])
    assert.deepEqual(circles({ "lib.rs": "", "a.rs": "use crate::b::B;", "b.rs": `${before} use crate::a::A; const S: &str = "s";` }), [["a.rs", "b.rs"]], before);
});

test("comments and prose are at most 120 columns wide; code, tables and what cannot be broken may be wider", () => {
  const wide = "word ".repeat(30);
  for (const [path, line] of [["a.rs", `/// ${wide}`], ["a.ts", `  // ${wide}`], ["a.ts", `   * ${wide}`], ["a.py", `# ${wide}`], ["a.md", wide]] as const)
    assert.equal(widthViolations(path, `short\n${line}\n`).length, 1, path);
  for (const [path, line] of [["a.ts", `call("${wide}");`], ["a.md", `| ${wide} |`], ["a.md", `\`${wide}\`.`], ["a.json", wide]] as const)
    assert.deepEqual(widthViolations(path, line), [], path);
  assert.deepEqual(widthViolations("a.md", `\`\`\`\n${wide}\n\`\`\`\n`), []);
});

test("a lock file lists the packages of every platform", () => {
  const tool = { optionalDependencies: { "tool-linux": "1.0.0", "tool-darwin": "1.0.0" } };
  const half = { packages: { "node_modules/tool": tool, "node_modules/tool-linux": {} } };
  assert.equal(lockViolations(half).length, 1);
  const whole = { packages: { ...half.packages, "node_modules/tool/node_modules/tool-darwin": {} } };
  assert.deepEqual(lockViolations(whole), []);
});

test("a feature that only tests switch on is noticed", () => {
  const addon = new Map([["getrandom v0.4.3", ""], ["half v2.7.1", "std"]]);
  assert.equal(featureViolations(addon, new Map([["getrandom v0.4.3", "std"], ["half v2.7.1", "std"]])).length, 1);
  assert.deepEqual(featureViolations(addon, new Map([...addon, ["proptest v1.12.0", "std"]])), []);
});
