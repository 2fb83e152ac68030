/** What PyTorch transformers says, through the public API. The fixtures: `tools/fixtures/README.md`. */
import assert from "node:assert/strict";
import { describe, test } from "vitest";
import { loadBERT, loadGPT2 } from "../index.js";
import { fixtureNames, fixturePath, readExpected, readTensors, worst } from "./support/fixtures.js";

describe("GPT-2 against transformers", () => {
  for (const name of fixtureNames(/^gpt2-/)) {
    const { greedy = [], beams = [], tolerance } = readExpected(name);
    for (const { name: kind, prompt, options, tokens, logprobs } of greedy) {
      test(`${name}: greedy, ${kind}`, async () => {
        await using lm = await loadGPT2(fixturePath(name), { dtype: "f32" });
        const result = await lm.generate(prompt, { ...options, logprobs: 1 }).result;
        assert.deepEqual(result.tokens.map(({ id }) => id), tokens);
        const ours = result.tokens.map(({ logprob }) => logprob!);
        assert.ok(worst(ours, logprobs, { atol: 2 * tolerance.atol, rtol: tolerance.rtol }) <= 1);
      });
    }
    for (const { name: kind, prompt, options, sequences } of beams) {
      test(`${name}: beams, ${kind}`, async () => {
        await using lm = await loadGPT2(fixturePath(name), { dtype: "f32" });
        const { eosTokenId, ...rest } = options;
        const result = await lm.generate(prompt, { ...rest, stopTokenIds: eosTokenId }).result;
        assert.deepEqual(result.sequences.map(({ tokens }) => tokens.map(({ id }) => id)), sequences.map(({ tokens }) => tokens));
        assert.deepEqual(result.sequences.map(({ finishReason }) => finishReason), sequences.map(({ finish }) => finish));
        const scores = result.sequences.map(({ score }) => score!);
        assert.ok(worst(scores, sequences.map(({ score }) => score), { atol: 1e-4, rtol: 1e-4 }) <= 1, `${scores}`);
      });
    }
  }
});

describe("BERT against transformers", () => {
  for (const name of fixtureNames(/^bert-/)) {
    test(name, async () => {
      const { input_ids, attention_mask, token_type_ids, tolerance } = readExpected(name);
      const tensors = readTensors(name);
      await using bert = await loadBERT(fixturePath(name), { dtype: "f32" });
      const { layers, hasPooler, head } = bert.info;
      // Our inputs have no padding.
      const lengths = attention_mask.map((mask) => mask.reduce((sum, bit) => sum + bit, 0));
      const inputs = input_ids.map((ids, row) => ({
        ids: ids.slice(0, lengths[row]),
        typeIds: token_type_ids[row]!.slice(0, lengths[row]),
      }));
      const outputs = await bert.forward(inputs, { hiddenStates: true });
      const { vocabularySize, labels } = bert.info;
      const shapes: Record<string, (tokens: number) => number[]> = {
        "masked-lm": (tokens) => [tokens, vocabularySize],
        "sequence-classification": () => [1, labels.length],
        "token-classification": (tokens) => [tokens, labels.length],
        "question-answering": (tokens) => [tokens, 2],
      };
      const row = (tensor: string, index: number, rows?: number) => {
        const { shape, data } = tensors.get(tensor)!;
        const size = data.length / shape[0]!;
        return data.subarray(index * size, index * size + (rows === undefined ? size : (size / shape[1]!) * rows));
      };
      outputs.forEach((output, i) => {
        const close = (ours: ArrayLike<number>, expected: ArrayLike<number>, what: string) => {
          const excess = worst(ours, expected, tolerance);
          assert.ok(excess <= 1, `${what} of row ${i} is ${excess} times the tolerance off`);
        };
        assert.equal(output.hiddenStates!.length, layers + 1);
        if (tensors.has("hidden_states.0")) {
          output.hiddenStates!.forEach(({ data, shape }, layer) => {
            assert.deepEqual(shape, [lengths[i], bert.info.hiddenSize]);
            close(data, row(`hidden_states.${layer}`, i, lengths[i]!), `hidden state ${layer}`);
          });
        }
        assert.deepEqual(output.lastHiddenState!.data, output.hiddenStates!.at(-1)!.data);
        if (tensors.has("pooler_output")) close(output.pooled!, row("pooler_output", i), "the pooled output");
        else if (!hasPooler) assert.equal(output.pooled, undefined);
        if (head === "question-answering") {
          const at = (column: number) => Array.from({ length: lengths[i]! }, (_, t) => output.logits!.data[t * 2 + column]!);
          close(at(0), row("start_logits", i, lengths[i]!), "start logits");
          close(at(1), row("end_logits", i, lengths[i]!), "end logits");
        } else if (head === "sequence-classification") {
          close(output.logits!.data, row("logits", i), "logits");
        } else if (head) {
          close(output.logits!.data, row("logits", i, lengths[i]!), "logits");
        }
        assert.deepEqual(output.logits?.shape, shapes[head ?? "none"]?.(lengths[i]!));
      });
      // One alone, without what was not asked for.
      const alone = await bert.forward(inputs[0]!, { pooled: false, logits: false });
      assert.deepEqual(alone.lastHiddenState, outputs[0]!.lastHiddenState);
      assert.deepEqual([alone.pooled, alone.logits, alone.hiddenStates], [undefined, undefined, undefined]);
    });
  }
});
