// `npm start`: builds what is not up to date, then streams text (src/cli/start.ts).
import { build, orExplain } from "./build.mjs";

await orExplain(build);
await import("../dist/src/cli/start.js");
