/** A model that says one text, whatever is asked: each byte of it is a token, so that characters arrive in parts. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { recitingModel } from "../../../../../__test__/support/models.js";

/** Of `models.ts`, and it answers conversations too: with what follows as many bytes as the conversation has tokens. */
export function talkingReciter(text: string): string {
  const folder = recitingModel(text);
  const path = join(folder, "config.json");
  const config = JSON.parse(readFileSync(path, "utf8")) as object;
  const task_specific_params = { dialogue: { separator: "", do_sample: false } };
  writeFileSync(path, JSON.stringify({ ...config, task_specific_params }));
  return folder;
}

/** What is said after so many bytes. */
export const after = (text: string, bytes: number): string => Buffer.from(text).subarray(bytes).toString();
