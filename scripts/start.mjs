// `npm start`: builds what is not up to date, then streams text (`candlewick generate`, src/cli/generate.ts).
import { build, orExplain } from "./build.mjs";

await orExplain(build);
process.argv.splice(2, 0, "generate");
await import("../dist/src/cli/main.js");
