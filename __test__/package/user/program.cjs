const { CandlewickError, generate } = require("candlewick");

async function main() {
  const imported = await import("candlewick");
  let streamed = 0;
  const stream = generate("It is a truth universally acknowledged", { maxNewTokens: 12, temperature: 0 });
  for await (const _token of stream) streamed++;
  const { text } = await stream.result;

  let code;
  try {
    await generate("Once", { temprature: 1 }).result;
  } catch (error) {
    if (error instanceof imported.CandlewickError) code = error.code;
  }
  const same = imported.CandlewickError === CandlewickError && imported.generate === generate;
  console.log(JSON.stringify({ version: process.versions.node, text, streamed, same, code }));
}
main();
