// A node:test reporter: the totals as one JSON line, written at the end. Nothing written means the runner died.
export default async function* totals(events) {
  const counts = {};
  for await (const { type, data } of events) {
    // The runner closes with one diagnostic per number, at the top level: "pass 12", "fail 0", …
    const match = type === "test:diagnostic" && data.nesting === 0 && /^(tests|pass|fail|cancelled|skipped|todo) (\d+)$/.exec(data.message);
    if (match) counts[match[1]] = Number(match[2]);
  }
  if ("pass" in counts) yield `${JSON.stringify(counts)}\n`;
}
