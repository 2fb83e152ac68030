// A file of its own: the CLI checks it before the addon is loaded.

/** Where a model computes: `"cuda"` is the first GPU, `"cuda:1"` the second. */
export type Device = "auto" | "cpu" | "cuda" | `cuda:${number}`;

/** @internal */
export const DEVICE: RegExp = /^(auto|cpu|cuda(:(0|[1-9]\d{0,2}))?)$/;

/** @internal What is wrong with a value that is none. */
export const NOT_A_DEVICE = 'must be "auto", "cpu", "cuda", or a GPU by its number, such as "cuda:1"';
