import candlewick = require("candlewick");

export async function all(): Promise<string> {
  let text: string = "";
  for await (const token of candlewick.generate("Once", { maxNewTokens: 8, seed: 7 })) text += token.text;
  // @ts-expect-error: the types are real, so an unknown option is an error here already
  candlewick.generate("Once", { temprature: 1 });
  return text + new candlewick.CandlewickError("INTERNAL", "").code;
}
