// What the worker's parts share.

/** Greedy tokens, as many as asked for, without guesses: every token is a step. Nothing is shared with other calls. */
export const greedy = (tokens) => ({ temperature: 0, ignoreEos: true, maxNewTokens: tokens, speculation: false, scope: newScope() });

let scopes = 0;
/** A scope that no other call has: what one prompt computed serves no other. */
export const newScope = () => `kit ${++scopes}`;

/** Ids that are other ones for every seed, and the same in every run. */
export function idsOf(count, vocabulary, seed) {
  let state = (Math.imul(seed, 2_654_435_761) + 1) >>> 0;
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabulary);
  });
}

/** When each token of a stream came, in milliseconds since `begin`. */
export async function reader(stream, begin) {
  const times = [];
  for await (const _ of stream) times.push(performance.now() - begin);
  return times;
}
