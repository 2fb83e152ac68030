/** A user's project, with packages of weights in its `node_modules`. */
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { newFolder } from "./models.js";

/** `packages`: what comes after `candlewick-model-` → the folder of a model, which is copied. */
export function newProject(packages: Readonly<Record<string, string>>): string {
  const project = newFolder("project");
  for (const [name, folder] of Object.entries(packages)) {
    const installed = join(project, "node_modules", `candlewick-model-${name}`);
    mkdirSync(installed, { recursive: true });
    cpSync(folder, installed, { recursive: true });
    writeFileSync(join(installed, "package.json"), JSON.stringify({ name: `candlewick-model-${name}`, version: "0.0.0" }));
  }
  return project;
}
