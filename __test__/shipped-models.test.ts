/**
 * The figures on the models' cards are those of the weights that ship: measured again on a tenth of the held-out rows.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { dataFile } from "../recipes/lib/data.js";
import { groups, heldout, metricsOf, part, shippedWeights, type Figure, type Measured } from "../recipes/lib/measure.js";
import type { Trained } from "../recipes/lib/train.js";
import { recipes } from "../recipes/run.js";
import { testUnless } from "./support/skip.js";

/** Another processor rounds otherwise, and a row in a hundred may come out otherwise. */
const TOLERANCE = 0.02;

const card = (ships: string, ending: string): string => join(__dirname, "../docs/models", `${ships}.${ending}`);

for (const name of recipes) {
  describe(`the card of ${name}`, async () => {
    const { trained } = (await import(/* @vite-ignore */ join(__dirname, "../recipes", name, "train.ts"))) as { trained: Trained };
    const measured = JSON.parse(readFileSync(card(trained.ships, "json"), "utf8")) as Measured;

    test("is of the weights that ship", async () => {
      assert.equal(createHash("sha256").update(await shippedWeights(trained.ships)).digest("hex"), measured.weights);
    });

    test("shows every figure", () => {
      const text = readFileSync(card(trained.ships, "md"), "utf8");
      const metrics = Object.values(measured.figures).flatMap((group) => Object.keys(group));
      for (const metric of metrics.filter((metric) => metric !== "examples")) assert.ok(text.includes(metric), metric);
    });

    const skip = !existsSync(dataFile(name, "heldout")) && `npm run recipe -- ${name} --data was not run here`;
    testUnless(skip, "has figures that are found again", async () => {
      const held = await heldout(name);
      assert.equal(held.sha256, measured.heldout, "other held-out rows than those that were measured");
      for (const [group, rows] of groups(trained, held.rows)) {
        const found = await metricsOf(trained, part(rows, 0));
        for (const [metric, figure] of Object.entries(measured.figures[group]!)) {
          const recorded = (figure as Figure).parts?.[0];
          if (recorded === undefined) continue;
          const off = Math.abs(found[metric]! - recorded);
          assert.ok(off <= TOLERANCE * Math.abs(recorded), `${group}, ${metric}: ${found[metric]} now, ${recorded} on the card`);
        }
      }
    });
  });
}

test("the packages of weights are together at most 100 MB, the generator 16 MB", () => {
  const models = join(__dirname, "../models");
  const size = (folder: string): number =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
  assert.ok(size(models) <= 100e6, `${size(models)} bytes`);
  assert.ok(size(join(models, "default")) <= 16e6);
});
