// What is committed must be true on any machine: no registry's host (a lock file with one installs nowhere else), no
// path of somebody's home; the lock file must be whole; and comments and prose fit into 120 columns.
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { at, root } from "./lib/paths.mjs";

// Spelled in pieces, so that this file passes its own check.
const hosts = [
  ["registry", "npmjs", "org"],
  ["registry", "yarnpkg", "com"],
  ["static", "crates", "io"],
  ["index", "crates", "io"],
  ["files", "pythonhosted", "org"],
  ["pypi", "org"],
  ["deb", "debian", "org"],
].map((parts) => parts.join("."));

const slash = "/";
const patterns = [
  { what: "a registry's host", pattern: new RegExp(`(?<![\\w.-])(${hosts.map((host) => host.replaceAll(".", "\\.")).join("|")})(?![\\w-])`) },
  { what: "a path of somebody's machine", pattern: new RegExp(`(?<![\\w.:${slash}-])${slash}(root|home${slash}[\\w.-]+|Users${slash}[\\w.-]+|work)${slash}[\\w.-]`) },
  { what: "a path of somebody's machine", pattern: /\b[A-Z]:\\Users\\\w/ },
];

/** The widest a comment, or a line of a document's prose, may be. Code is as wide as it reads best. */
const columns = 120;
const script = /^\s*(\/\/|\/?\*)/;
const commentOnly = { ".rs": /^\s*\/\//, ".ts": script, ".mts": script, ".mjs": script, ".py": /^\s*#/ };
/** Weights' cards quote what models wrote, on lines of their own. */
const quoting = /^(models\/|docs\/models\/|__test__\/fixtures\/)/;

/** A sentence for each comment, or line of prose, that is too wide. Tables and blocks of code are not prose. */
export function widthViolations(path, text) {
  const extension = /\.\w+$/.exec(path)?.[0] ?? "";
  if (quoting.test(path) || !(extension === ".md" || extension in commentOnly)) return [];
  let block = false;
  return text.split("\n").flatMap((line, index) => {
    if (extension === ".md" && /^\s*```/.test(line)) block = !block;
    if ([...line].length <= columns) return [];
    const isText = extension === ".md" ? !block && !/^\s*\|/.test(line) : commentOnly[extension].test(line);
    // A span of code, or a word such as an address, cannot be broken.
    const breakable = /\s/.test(line.replaceAll(/`[^`]*`/g, "").replace(/^\s*(\/\/[/!]?|\*|#)?/, "").trim());
    return isText && breakable ? [`${path}:${index + 1}: ${[...line].length} columns; at most ${columns}`] : [];
  });
}

/** Text made to be hard for a tokenizer may say anything. */
const exempt = /^__test__\/fixtures\/tokenizer\//;

/** A sentence for each line of `text` that breaks the rule. */
export function fileViolations(path, text) {
  return text.split("\n").flatMap((line, index) =>
    patterns.flatMap(({ what, pattern }) => {
      const found = pattern.exec(line);
      return found ? [`${path}:${index + 1}: ${what}: ${found[0]}`] : [];
    }),
  );
}

/**
 * npm writes a lock file without an optional package whose version it could not have just then, and says nothing;
 * `npm ci` refuses that lock file afterwards, everywhere.
 */
export function lockViolations({ packages }) {
  const locked = new Set(Object.keys(packages).map((path) => path.replace(/^.*node_modules\//, "")));
  return Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).flatMap((name) =>
      locked.has(name) ? [] : [`package-lock.json: ${path} may have ${name}, which is not in the lock file`],
    ),
  );
}

export function checkFiles() {
  return [...checkNames(), ...lockViolations(JSON.parse(readFileSync(at("package-lock.json"), "utf8")))];
}

function checkNames() {
  let names;
  try {
    names = execFileSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  } catch {
    console.log("Not a git checkout: there are no committed files to check.");
    return [];
  }
  return names.split("\0").flatMap((name) => {
    const info = name && !exempt.test(name) ? statSync(at(name), { throwIfNoEntry: false }) : undefined;
    if (!info?.isFile() || info.size > 1 << 22) return [];
    const bytes = readFileSync(at(name));
    if (bytes.includes(0)) return [];
    const text = bytes.toString("utf8");
    return [...fileViolations(name, text), ...widthViolations(name, text)];
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const violations = checkFiles();
  for (const violation of violations) console.error(violation);
  if (violations.length > 0) process.exit(1);
  console.log("No committed file names a registry's host or somebody's machine; the lock file is whole; no comment is too wide.");
}
