/** `/openapi.json`: a valid description, that says of every route what `schemas.ts` takes. */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { toJsonSchema } from "@valibot/to-json-schema";
import type { GenericSchema } from "valibot";
import { afterAll, beforeAll, describe, test } from "vitest";
import type { GPT2 } from "candlewick";
import { createHandler } from "../../index.js";
import * as schemas from "../../src/schemas.js";
import { loadShipped } from "../support/server.js";
import { installer } from "./support/clients.js";

let lm: GPT2;
let text: string;
beforeAll(async () => {
  lm = await loadShipped("default");
  const handler = createHandler({ models: { lm } });
  text = await (await handler(new Request("http://localhost/openapi.json"))).text();
});
afterAll(() => lm?.close());

const routes: Readonly<Record<string, GenericSchema>> = {
  "/v1/completions": schemas.completionSchema,
  "/v1/chat/completions": schemas.chatSchema,
  "/v1/responses": schemas.responseSchema,
  "/v1/embeddings": schemas.embeddingSchema,
  "/v1/rerank": schemas.rerankSchema,
  "/v1/classify": schemas.classifySchema,
  "/tokenize": schemas.tokenizeSchema,
  "/detokenize": schemas.detokenizeSchema,
};

describe("/openapi.json", () => {
  test("is valid OpenAPI 3.1, by a validator", async (context) => {
    const found = await (await installer()).clients();
    if (!found) return context.skip("the validator could not be installed");
    const path = createRequire(join(found.folder, "package.json")).resolve("@seriousme/openapi-schema-validator");
    const { Validator } = (await import(pathToFileURL(path).href)) as { Validator: new () => { version: string; validate(description: object): Promise<{ valid: boolean; errors?: unknown }> } };
    const validator = new Validator();
    const { valid, errors } = await validator.validate(JSON.parse(text) as object);
    assert.ok(valid, JSON.stringify(errors)?.slice(0, 2_000));
    assert.equal(validator.version, "3.1");
  });

  test("has each route, with the schema of its requests", () => {
    const { paths } = JSON.parse(text);
    const taking = Object.keys(paths).filter((path) => paths[path].post);
    assert.deepEqual(taking, Object.keys(routes));
    for (const [path, schema] of Object.entries(routes)) {
      const { requestBody, responses } = paths[path].post;
      const { $schema: _, ...expected } = toJsonSchema(schema, { errorMode: "ignore" });
      assert.deepEqual(requestBody.content["application/json"].schema, expected, path);
      assert.equal(requestBody.required, true, path);
      assert.ok(responses["200"] && responses["default"], path);
    }
    for (const path of ["/v1/models", "/v1/models/{id}", "/livez", "/readyz", "/metrics"]) assert.ok(paths[path]?.get, path);
  });
});
