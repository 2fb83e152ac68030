import { CandlewickError, generate, loadBERT, loadGPT2, pipeline } from "candlewick";

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
  const translate = await pipeline("translation", { threads: 1 });
  const [many, best] = [await translate(["one", "two"]), await translate("one", { numReturnSequences: 2 })];
  text += (await translate("one")).translationText + many[0]!.translationText + best[0]!.translationText;
  const feel = await pipeline("sentiment-analysis", { language: "zh" });
  text += (await feel("很好")).label;
  const session = (await pipeline("dialogue")).session({ seed: 1 });
  for await (const token of session.say("hello")) text += token.text;
  text += session.messages[0]!.content;
  // @ts-expect-error: there is no model for this language
  await pipeline("sentiment-analysis", { language: "fr" });
  return text + finishReason + typeof loadBERT + new CandlewickError("INTERNAL", "").code;
}
