// Candle is compiled once: what the addon links must have the same features when the tests are compiled, or cargo
// compiles it again for them, and all that depends on it. A test's dependency can switch on features far below.
import { execFileSync } from "node:child_process";
import { pathToFileURL } from "node:url";
import { root } from "./lib/paths.mjs";

/** The packages of a build, with their features. */
function features(...args) {
  const text = execFileSync("cargo", ["tree", "--prefix=none", "--no-dedupe", "--format={p}|{f}", ...args], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "inherit"],
  });
  return new Map(text.split("\n").filter((line) => line.includes("|")).map((line) => line.split("|")));
}

/** A sentence for each package of `addon` that `tests` compiles with other features. */
export function featureViolations(addon, tests) {
  return [...addon].flatMap(([name, used]) => {
    const tested = tests.get(name);
    return tested === undefined || tested === used
      ? []
      : [`${name}: the addon has the features "${used}", the tests "${tested}": ask for them in crates/models/Cargo.toml`];
  });
}

export const checkFeatures = () =>
  featureViolations(
    features("--package=candlewick-node", "--edges=normal"),
    features("--workspace", "--edges=normal,dev"),
  );

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const violations = checkFeatures();
  for (const violation of violations) console.error(violation);
  if (violations.length > 0) process.exit(1);
  console.log("The tests compile what the addon links with the same features.");
}
