/** The support desk on models that load in no time, whatever they say. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ModelNames } from "../../examples/support-desk/models.js";
import { type RunningServer, startServer, type ServerOptions } from "../../examples/support-desk/server.js";
import { fixturePath } from "./fixtures.js";
import { randomModel, recitingModel } from "./models.js";

/** What the tiny models say, from somewhere on. */
export const RECITED = "abcdefghijklmnopqrstuvwxyz ".repeat(4);

let names: ModelNames | undefined;
export function tinyModels(): ModelNames {
  const classifier = fixturePath("pipelines/classify");
  return (names ??= {
    topic: classifier,
    sentimentEnglish: classifier,
    sentimentChinese: classifier,
    similar: fixturePath("pipelines/sentences"),
    translation: recitingModel(RECITED),
    reply: recitingModel(RECITED),
  });
}

let endless: string | undefined;
/** A model that is busy for minutes. */
export function endlessModel(): string {
  if (endless === undefined) {
    endless = randomModel({ n_positions: 100_000 });
    const file = join(endless, "config.json");
    const long = { min_new_tokens: 90_000, max_new_tokens: 90_000 };
    const config = { ...JSON.parse(readFileSync(file, "utf8")), task_specific_params: { dialogue: long, translation: long } };
    writeFileSync(file, JSON.stringify(config));
  }
  return endless;
}

export function startDesk({ models, ...options }: Partial<ServerOptions> = {}): Promise<RunningServer> {
  return startServer({ port: 0, database: ":memory:", ...options, models: { ...tinyModels(), ...models } });
}

export async function health(url: string): Promise<{ status: string; answers: number; requests: number }> {
  return (await fetch(`${url}/health`)).json() as Promise<{ status: string; answers: number; requests: number }>;
}
