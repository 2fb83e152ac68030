let warned = false;

/** Says once that bf16 was asked, by the option `what`, of a processor that has no instructions for it. */
export function warnOfSlowBf16(what: string, instructionSet: string): void {
  if (warned || instructionSet === "avx512bf16") return;
  warned = true;
  process.emitWarning(`${what} "bf16" on a processor without bf16 products (${instructionSet}): the same results, no faster than f32`, {
    type: "CandlewickWarning",
    code: "CANDLEWICK_BF16_SLOW",
  });
}

/** As above, of a model that was loaded. */
export function warnIfSlow({ dtype, device, instructionSet }: { dtype: string; device: string; instructionSet: string }): void {
  if (dtype === "bf16" && device === "cpu") warnOfSlowBf16("dtype", instructionSet);
}
