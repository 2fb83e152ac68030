// `npm run desk`: builds what is not up to date, then starts the support desk (examples/support-desk).
import "tsx";
import { build, orExplain } from "./build.mjs";

await orExplain(build);
await import("../examples/support-desk/main.ts");
