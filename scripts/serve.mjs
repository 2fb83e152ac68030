// `npm run serve`: builds what is not up to date, then starts the server (packages/server).
import { build, orExplain } from "./build.mjs";

await orExplain(build);
await import("../packages/server/dist/src/cli/main.js");
