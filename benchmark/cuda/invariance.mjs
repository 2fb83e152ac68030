// The same bits whatever else is computed: a request's tokens and log-probabilities, a text's states.
import { greedy, idsOf, newScope } from "./lib.mjs";

/**
 * `sizes`: of the batches that the request is part of; `repeats`: how often it is alone. Gives
 * `{what, same, detail}` for each.
 */
export async function invariance({ gpt2, bert, sizes, repeats, tokens }) {
  const found = [];
  /** `equal`: of each time whether the bits were those of the request alone. */
  const record = (what, equal) => {
    const differ = equal.filter((same) => !same).length;
    found.push({ what, same: differ === 0, detail: differ === 0 ? "" : `${differ} of ${equal.length} differ` });
    // For the log, if a later one ends the process.
    console.error(JSON.stringify(found.at(-1)));
  };
  if (gpt2) await generations(gpt2, { sizes, repeats, tokens }, record);
  if (bert) await states(bert, { sizes, repeats }, record);
  return found;
}

async function generations(gpt2, { sizes, repeats, tokens }, record) {
  const { vocabularySize, positions } = gpt2.info;
  const longest = Math.min(400, positions - tokens);
  const prompts = [Math.min(100, longest), Math.min(300, longest)].map((length, i) => idsOf(length, vocabularySize, 4000 + i));
  const sampled = (ids) => gpt2.generate(ids, { ...greedy(tokens), temperature: 1, seed: 5, logprobs: 20 });
  const bits = async (stream) => {
    const { tokens: all } = await stream.result;
    return JSON.stringify(all.map(({ id, logprob, topLogprobs }) => [id, logprob, topLogprobs.map((top) => [top.id, top.logprob])]));
  };
  const probe = () => Promise.all(prompts.map((ids) => bits(sampled(ids))));
  const beside = (count, seed) =>
    Array.from({ length: count }, (_, i) => gpt2.generate(idsOf(1 + ((37 * i) % longest), vocabularySize, seed + i), greedy(tokens)));
  const alone = [];
  for (const ids of prompts) alone.push(await bits(sampled(ids)));
  const check = (what, rows) => record(`GPT-2 ${what}`, rows.map((row, i) => row === alone[i % prompts.length]));

  const again = [];
  for (let i = 0; i < repeats; i++) for (const ids of prompts) again.push(await bits(sampled(ids)));
  check(`alone, ${repeats} times`, again);
  for (const size of sizes) {
    // Some before the request and some after it, so that it is in another lane and another place in memory.
    const others = beside(Math.max(0, size - prompts.length), 10 * size);
    const before = others.splice(0, others.length / 2).map((stream) => stream.result);
    const rows = probe();
    check(`among ${size}`, await rows);
    await Promise.all([...before, ...others.map((stream) => stream.result)]);
  }
  // Cancelled beside it, at different times, and then again in the memory that they left.
  const cancelled = beside(Math.min(48, sizes.at(-1) ?? 8), 9000);
  const ends = cancelled.map(async (stream, i) => {
    let read = 0;
    for await (const _ of stream) if (++read > i % 7) break;
  });
  const rows = await probe();
  await Promise.all(ends);
  check("beside cancelled ones, and after them", [...rows, ...(await probe())]);
  // The prompt in parts: beside one that decodes, a long prompt is read in several steps.
  const busy = beside(3, 9500);
  const scope = newScope();
  const parts = await Promise.all(prompts.map((ids) => bits(gpt2.generate(ids, { ...greedy(tokens), temperature: 1, seed: 5, logprobs: 20, scope }))));
  await Promise.all(busy.map((stream) => stream.result));
  check("beside three that decode", parts);
}

async function states(bert, { sizes, repeats }, record) {
  const { vocabularySize, positions } = bert.info;
  const text = { ids: idsOf(Math.min(77, positions), vocabularySize, 1) };
  const others = (count, seed) =>
    Array.from({ length: count }, (_, i) => ({ ids: idsOf(1 + ((37 * i) % Math.min(256, positions)), vocabularySize, seed + i) }));
  const bits = ({ lastHiddenState, pooled }) => Buffer.concat([lastHiddenState.data, pooled].map((x) => Buffer.from(x.buffer, x.byteOffset, x.byteLength)));
  const alone = Buffer.from(bits(await bert.forward(text)));
  const check = (what, rows) => record(`BERT ${what}`, rows.map((row) => row.equals(alone)));
  const again = [];
  for (let i = 0; i < repeats; i++) again.push(bits(await bert.forward(text)));
  check(`alone, ${repeats} times`, again);
  for (const size of sizes) {
    const before = others(Math.floor((size - 1) / 2), 10 * size);
    const all = [...before, text, ...others(size - 1 - before.length, 20 * size)];
    check(`among ${size}`, [bits((await bert.forward(all))[before.length])]);
  }
  const gone = Array.from({ length: 8 }, (_, i) => {
    const signal = AbortSignal.timeout(i);
    return bert.forward(others(16, 9000 + i), { signal }).catch(() => {});
  });
  const beside = bits(await bert.forward(text));
  await Promise.all(gone);
  check("beside cancelled ones, and after them", [beside, bits(await bert.forward(text))]);
}
