// The dependency rule: kernels ← models ← {engine, train} ← node, where train also sees the kernels (its backward
// passes are its own). Read from the manifests through cargo metadata, all kinds of dependency included: a test that
// reaches across layers couples them too.
import { execFileSync } from "node:child_process";
import { pathToFileURL } from "node:url";
import { root } from "./lib/paths.mjs";

const ours = "candlewick-";

/** What each crate may see of the others. A crate that is not here must be added, with its place. */
const maySee = {
  kernels: [],
  models: ["kernels"],
  engine: ["models"],
  train: ["kernels", "models"],
  node: ["engine", "train"],
  // Programs that no user gets.
  benchmark: ["kernels", "models"],
};

/** Libraries that stay in the crates named. */
const staysIn = [
  { library: /^napi(-|$)/, crates: ["node"], why: "only the binding knows Node" },
  { library: /^candle-/, crates: ["models", "train", "benchmark"], why: "only models and train know Candle's tensors" },
];

/** `packages`: of `cargo metadata --no-deps`. Returns a sentence for each breach. */
export function layerViolations(packages) {
  return packages.flatMap(({ name, dependencies }) => {
    const crate = name.replace(ours, "");
    const allowed = maySee[crate];
    if (!allowed) return [`${name}: no layer; give it one in scripts/check-layers.mjs`];
    return dependencies.flatMap((dependency) => {
      const says = (why) => [`${name} depends on ${dependency.name}${dependency.kind ? ` (${dependency.kind})` : ""}: ${why}`];
      if (dependency.name.startsWith(ours)) {
        const known = allowed.length > 0 ? `may see ${allowed.join(", ")} alone` : "sees no other crate of ours";
        return allowed.includes(dependency.name.replace(ours, "")) ? [] : says(`${crate} ${known}`);
      }
      const held = staysIn.find(({ library }) => library.test(dependency.name));
      return held && !held.crates.includes(crate) ? says(held.why) : [];
    });
  });
}

export function checkLayers() {
  const text = execFileSync("cargo", ["metadata", "--format-version=1", "--no-deps"], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 26,
    stdio: ["ignore", "pipe", "inherit"],
  });
  return layerViolations(JSON.parse(text).packages);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const violations = checkLayers();
  for (const violation of violations) console.error(violation);
  if (violations.length > 0) process.exit(1);
  console.log("The crates depend on each other as they should.");
}
