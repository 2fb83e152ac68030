import { CandlewickError, generate, loadBERT, loadGPT2 } from "candlewick";

export async function all(): Promise<string> {
  let text: string = "";
  for await (const token of generate("Once", { maxNewTokens: 8, seed: 7 })) text += token.text;
  const lm = await loadGPT2("./my-gpt2", { dtype: "f32" });
  const { finishReason } = await lm.generate("Once", { temperature: 0.8, topK: 50 }).result;
  await lm.close();
  // @ts-expect-error: the types are real, so an unknown option is an error here already
  generate("Once", { temprature: 1 });
  // @ts-expect-error: a token is not any
  for await (const token of generate("Once")) text += token.nothing;
  return text + finishReason + typeof loadBERT + new CandlewickError("INTERNAL", "").code;
}
