/**
 * The library as a command uses it: loaded when the command runs, so that `--help` and `--version` work where its addon
 * cannot be loaded.
 */
import type * as Library from "../../index.js";

export const library = (): typeof Library => require("../../index.js") as typeof Library;
