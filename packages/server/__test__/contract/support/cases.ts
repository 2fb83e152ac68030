/** What the programs of all clients ask for. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface Cases {
  readonly prompt: string;
  readonly chinese: string;
  readonly question: string;
  /** Said by the model `reciter`. */
  readonly recited: string;
  readonly stop: string;
  readonly seed: number;
  readonly texts: readonly string[];
}

export const cases = JSON.parse(readFileSync(join(__dirname, "..", "cases.json"), "utf8")) as Cases;
