import { createRequire } from "node:module";
import { CandlewickError, generate } from "candlewick";

const required = createRequire(import.meta.url)("candlewick");
let streamed = 0;
const stream = generate("It is a truth universally acknowledged", { maxNewTokens: 12, temperature: 0 });
for await (const _token of stream) streamed++;
const { text } = await stream.result;

let code;
try {
  await generate("Once", { temprature: 1 }).result;
} catch (error) {
  if (error instanceof required.CandlewickError) code = error.code;
}
const same = required.CandlewickError === CandlewickError && required.generate === generate;
console.log(JSON.stringify({ version: process.versions.node, text, streamed, same, code }));
