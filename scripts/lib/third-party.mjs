// The licences of what is compiled into the addon: most of them ask that their text travels with the binary.
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { root } from "./paths.mjs";

const isLicence = (name) => /^(licen[cs]e|copying|notice|copyright|unlicense)/i.test(name);

/** The crates that crates/node links, without what only builds or tests. */
function linkedCrates(features) {
  const text = execFileSync("cargo", ["metadata", "--format-version=1", "--filter-platform", host(), "--features", features.join()], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const { packages, resolve } = JSON.parse(text);
  const nodes = new Map(resolve.nodes.map((node) => [node.id, node]));
  const reached = new Set();
  const visit = (id) => {
    if (reached.has(id)) return;
    reached.add(id);
    for (const { pkg, dep_kinds } of nodes.get(id).deps) {
      if (dep_kinds.some(({ kind }) => kind === null)) visit(pkg);
    }
  };
  visit(packages.find(({ name }) => name === "candlewick-node").id);
  // A crate without a source is of this workspace.
  return packages.filter(({ id, source }) => reached.has(id) && source);
}

function host() {
  return /^host: (.*)$/m.exec(execFileSync("rustc", ["-vV"], { encoding: "utf8" }))[1];
}

/** `features`: those of crates/node that the addon was built with. */
export function thirdPartyLicences(features = []) {
  const crates = linkedCrates(features.map((name) => `candlewick-node/${name}`)).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const texts = new Map();
  for (const crate of crates) {
    const folder = dirname(crate.manifest_path);
    for (const name of readdirSync(folder).filter(isLicence).toSorted()) {
      let text;
      try {
        text = readFileSync(join(folder, name), "utf8").trim();
      } catch {
        continue; // A folder of licences: its crate's line below names them.
      }
      texts.set(text, [...(texts.get(text) ?? []), `${crate.name} ${crate.version}`]);
    }
  }
  const list = crates.map(({ name, version, license }) => `${name} ${version}: ${license ?? "see its text below"}`);
  const bodies = [...texts].map(([text, users]) => `${"-".repeat(80)}\n${users.join(", ")}\n\n${text}\n`);
  return `The native addon contains the following Rust crates.\n\n${list.join("\n")}\n\n${bodies.join("\n")}`;
}
