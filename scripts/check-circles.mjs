// No file of a crate uses one that, directly or through others, uses it. (Cargo holds this between crates, oxlint's
// `import/no-cycle` between the files of src/; Rust itself allows circles of modules.)
//
// A file uses another when a path in it (`use crate::…`, `super::…`, or in code) ends at an item that the other file
// defines. Re-exports are followed, so `crate::Name` is the file that has `Name`, not lib.rs. Unit tests do not count.
import { readdirSync, readFileSync } from "node:fs";
import { join, sep } from "node:path";
import { pathToFileURL } from "node:url";
import { at } from "./lib/paths.mjs";

const crates = ["kernels", "models", "engine", "train", "node"];

/** The paths of a `use` tree: `a::{b, c::{d, e as f}}` is a::b, a::c::d, a::c::e (known as f). */
function expand(tree) {
  const text = tree.trim();
  const open = text.indexOf("{");
  if (open < 0) {
    const [path, alias] = text.split(/\s+as\s+/);
    return [{ path: path.trim(), name: (alias ?? path.split("::").at(-1)).trim() }];
  }
  const parts = [];
  let depth = 0;
  let start = open + 1;
  for (let i = open + 1; i < text.length; i++) {
    if (text[i] === "{") depth++;
    if ((text[i] === "," && depth === 0) || (text[i] === "}" && depth === 0)) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
    if (text[i] === "}") depth--;
  }
  const prefix = text.slice(0, open);
  return parts.filter((part) => part.trim()).flatMap((part) =>
    part.trim() === "self" ? expand(prefix.replace(/::$/, "")) : expand(prefix + part.trim()));
}

/** Rust without comments, texts, characters and the module of unit tests. In one pass: a text may hold `//`. */
function bare(text) {
  const code = text.replaceAll(/\/\/.*|\/\*[^]*?\*\/|\br(#*)"[^]*?"\1|"(?:[^"\\]|\\[^])*"|'(?:[^'\\\n]|\\(?:u\{\w+\}|.)\w*)'/g, " ");
  const tests = code.search(/#\[cfg\(test\)\]\s*mod \w+ \{/);
  return tests < 0 ? code : code.slice(0, tests);
}

/** For each file of `sources` (path below src/ → text), the files that it uses. */
export function usesOf(sources) {
  const modules = new Map();
  for (const [path, text] of Object.entries(sources)) {
    const parts = path.replace(/\.rs$/, "").split("/");
    if (["mod", "lib", "main"].includes(parts.at(-1))) parts.pop();
    const code = bare(text);
    const uses = [...code.matchAll(/(\bpub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);/g)].flatMap(([, visible, tree]) =>
      expand(tree).map((use) => ({ ...use, visible: visible !== undefined })));
    const inCode = [...code.replaceAll(/\buse\s+[^;]+;/g, "").matchAll(/\b[A-Za-z_]\w*(?:::[A-Za-z_]\w*)+/g)].map(([path]) => path);
    const defined = new Set([...code.matchAll(/\bpub(?:\([^)]*\))?\s+(?:\w+\s+)*?(?:struct|enum|trait|fn|const|static|type)\s+(\w+)/g)].map(([, name]) => name));
    modules.set(parts.join("::"), { path, uses, inCode, defined });
  }
  const parentOf = (module) => module.split("::").slice(0, -1).join("::");
  const childOf = (module, name) => (module ? `${module}::${name}` : name);

  /** The module that defines what `segments` name, seen from `from`; nothing if it is not of this crate. */
  function resolve(from, segments, seen = new Set()) {
    const [head, ...rest] = segments;
    let module = from;
    let names = segments;
    if (head === "crate") [module, names] = ["", rest];
    else if (head === "self") names = rest;
    else if (head === "super") {
      [module, names] = [parentOf(from), rest];
      while (names[0] === "super") [module, names] = [parentOf(module), names.slice(1)];
    } else if (!modules.has(childOf(from, head))) {
      // A name that a `use` of this file brought in.
      const use = modules.get(from).uses.find(({ name, path }) => name === head && path !== head);
      const key = `${from} ${head}`;
      if (!use || seen.has(key)) return undefined;
      return resolve(from, [...use.path.split("::"), ...rest], seen.add(key));
    }
    for (const [index, name] of names.entries()) {
      if (modules.has(childOf(module, name))) {
        module = childOf(module, name);
        continue;
      }
      const key = `${module} ${name}`;
      const use = modules.get(module).uses.find((one) => one.name === name && one.visible);
      if (use && !seen.has(key)) {
        return resolve(module, [...use.path.split("::"), ...names.slice(index + 1)], seen.add(key)) ?? module;
      }
      const globs = modules.get(module).uses.filter((one) => one.name === "*" && one.visible)
        .map((one) => resolve(module, one.path.split("::").slice(0, -1)));
      return globs.find((one) => one !== undefined && modules.get(one).defined.has(name)) ?? module;
    }
    return module;
  }

  return new Map([...modules].map(([module, { path, uses, inCode }]) => {
    const paths = [...uses.filter(({ visible }) => !visible).map((use) => use.path), ...inCode];
    const targets = paths.map((one) => resolve(module, one.split("::"))).filter((one) => one !== undefined && one !== module);
    return [path, new Set(targets.map((one) => modules.get(one)?.path).filter(Boolean))];
  }));
}

/** The groups of more than one file that all reach each other, each sorted. (Tarjan's algorithm.) */
export function circlesOf(uses) {
  const state = new Map();
  const stack = [];
  const circles = [];
  function visit(file) {
    const own = { index: state.size, low: state.size, open: true };
    state.set(file, own);
    stack.push(file);
    for (const next of uses.get(file) ?? []) {
      if (!state.has(next)) own.low = Math.min(own.low, visit(next).low);
      else if (state.get(next).open) own.low = Math.min(own.low, state.get(next).index);
    }
    if (own.low === own.index) {
      const group = stack.splice(stack.indexOf(file));
      for (const one of group) state.get(one).open = false;
      if (group.length > 1) circles.push(group.sort());
    }
    return own;
  }
  for (const file of uses.keys()) if (!state.has(file)) visit(file);
  return circles;
}

export function checkCircles() {
  return crates.flatMap((crate) => {
    const folder = at("crates", crate, "src");
    const files = readdirSync(folder, { recursive: true })
      .map((name) => name.split(sep).join("/"))
      .filter((name) => name.endsWith(".rs") && !name.startsWith("bin/"));
    const uses = usesOf(Object.fromEntries(files.map((name) => [name, readFileSync(join(folder, name), "utf8")])));
    return circlesOf(uses).map((circle) => {
      const edges = circle.flatMap((file) => [...uses.get(file)].filter((used) => circle.includes(used)).map((used) => `  ${file} uses ${used}`));
      return `A circle of files in crates/${crate}/src:\n${edges.join("\n")}`;
    });
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const violations = checkCircles();
  for (const violation of violations) console.error(violation);
  if (violations.length > 0) process.exit(1);
  console.log("No file of a crate uses one that uses it.");
}
