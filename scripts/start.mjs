// `npm start`: builds what is not up to date, then streams text (`candlewick generate`, src/cli/generate.ts).
import { build, orExplain } from "./build.mjs";

await orExplain(build);
// Nothing given: the two prompts of its own, also where standard input is a pipe that nobody writes into.
const given = process.argv.slice(2).some((argument) => !argument.startsWith("-"));
process.argv.splice(2, 0, "generate", ...(given ? [] : ["--demo"]));
await import("../dist/src/cli/main.js");
