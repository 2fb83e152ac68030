/** A share of unknown tokens beyond which a model learns or shows little of the text. */
const MUCH = 0.2;

/**
 * Says once a call, in a warning of Node's (`CANDLEWICK_UNKNOWN_TOKENS`), that the tokenizer does not know the texts;
 * nothing for a small share.
 */
export function warnOfUnknown(where: string, share: number | null | undefined): void {
  if (share === null || share === undefined || share <= MUCH) return;
  const percent = Math.round(100 * share);
  process.emitWarning(
    `${where}: ${percent}% of the tokens are unknown to the tokenizer ([UNK]), so the model sees little of the text. ` +
      "Its vocabulary is probably of another language: take a model whose tokenizer knows these texts, or train one (trainTokenizer(), fromScratch)",
    { type: "CandlewickWarning", code: "CANDLEWICK_UNKNOWN_TOKENS" },
  );
}
