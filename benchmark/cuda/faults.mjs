// Bad input and bad luck: each is refused by its code, and what runs beside it goes on.
import { cpSync, mkdtempSync, openSync, closeSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadBERT, loadGPT2 } from "candlewick";
import { greedy, idsOf } from "./lib.mjs";

/**
 * `gpu`: whether there is one. `models`: folders `gpt2` and `bert` of the kit's models. `small`: a folder with a tiny
 * GPT-2 in f32. `gpuBytes`: memory of the GPU. Gives `{what, passed, detail}` for each; `passed` is null where the API
 * has no such thing.
 */
export async function faults({ gpu, models, small, gpuBytes }) {
  const device = gpu ? "cuda" : "cpu";
  const found = [];
  const attempt = async (what, work) => {
    try {
      const detail = await work();
      found.push({ what, passed: detail === undefined ? true : detail.passed, detail: detail?.detail ?? "" });
    } catch (error) {
      found.push({ what, passed: false, detail: `${error.code ?? error.name}: ${String(error.message).split("\n")[0]}` });
    }
    // For the log, if a later one ends the process.
    console.error(JSON.stringify(found.at(-1)));
  };
  /** That `work` is refused with one of `codes`. */
  const refused = async (work, ...codes) => {
    try {
      const made = await work();
      await made?.close?.();
    } catch (error) {
      const detail = `${error.code}: ${String(error.message).split("\n")[0]}`;
      return { passed: codes.includes(error.code), detail };
    }
    return { passed: false, detail: "nothing was refused" };
  };
  const tokensOf = async (model, ids, tokens = 8) => (await model.generate(ids, greedy(tokens)).result).tokens.map(({ id }) => id);

  await attempt("a GPU that is not there, cuda:9: UNSUPPORTED_DEVICE", () =>
    refused(() => loadGPT2(small, { device: "cuda:9" }), "UNSUPPORTED_DEVICE"));
  if (!gpu) await attempt("no GPU: UNSUPPORTED_DEVICE", () => refused(() => loadGPT2(small, { device: "cuda" }), "UNSUPPORTED_DEVICE"));
  await attempt("kvCacheBytes below one sequence: OPTION_INVALID", () =>
    refused(() => loadGPT2(models.gpt2, { device, kvCacheBytes: 1 }), "OPTION_INVALID"));

  await attempt("weights that are NaN: NOT_FINITE", async () => {
    const folder = mkdtempSync(join(tmpdir(), "candlewick-nan-"));
    try {
      cpSync(small, folder, { recursive: true });
      poison(join(folder, "model.safetensors"));
      return await refused(async () => {
        const model = await loadGPT2(folder, { device });
        try {
          await tokensOf(model, idsOf(8, model.info.vocabularySize, 1));
        } finally {
          await model.close();
        }
      }, "NOT_FINITE");
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  await attempt("close() while streams run: MODEL_CLOSED for each, and the next model serves", async () => {
    const model = await loadGPT2(models.gpt2, { device, kvCacheBytes: 1 << 29 });
    const streams = Array.from({ length: 8 }, (_, i) => model.generate(idsOf(32, model.info.vocabularySize, i), greedy(model.info.positions - 32)));
    const codes = streams.map(async (stream) => {
      try {
        await stream.result;
        return "an end";
      } catch (error) {
        return error.code;
      }
    });
    await streams[0].next();
    await model.close();
    const all = await Promise.all(codes);
    await using(loadGPT2(small, { device }), (next) => tokensOf(next, idsOf(8, next.info.vocabularySize, 1)));
    return { passed: all.every((code) => code === "MODEL_CLOSED"), detail: [...new Set(all)].join(", ") };
  });

  await attempt("a cache of two sequences for sixteen: they wait, and get the same tokens", async () => {
    const prompts = Array.from({ length: 16 }, (_, i) => idsOf(gpu ? 200 : 150, 50_257, 100 + i));
    const make = (kvCacheBytes) =>
      using(loadGPT2(models.gpt2, { device, dtype: "f32", kvCacheBytes }), async (model) => {
        const all = await Promise.all(prompts.map((ids) => tokensOf(model, ids.map((id) => id % model.info.vocabularySize), gpu ? 100 : 16)));
        return { all, stats: model.stats(), positions: model.info.positions };
      });
    const wide = await make(1 << 30);
    const { blockBytes, blockPositions } = wide.stats;
    const narrow = await make(2 * blockBytes * Math.ceil(wide.positions / blockPositions));
    const same = JSON.stringify(wide.all) === JSON.stringify(narrow.all);
    return { passed: same, detail: `${narrow.stats.blocks} blocks, ${narrow.stats.pauses} pauses` };
  });

  if (gpu) await attempt("attentions on a GPU: UNSUPPORTED_DEVICE, and the next text is served", () =>
    using(loadBERT(models.bert, { device }), async (bert) => {
      const text = { ids: idsOf(16, bert.info.vocabularySize, 1) };
      const answer = await refused(() => bert.forward(text, { attentions: true }), "UNSUPPORTED_DEVICE");
      await bert.forward(text);
      return answer;
    }),
  );

  if (gpu) for (const dtype of ["q8_0", "q4_0", "int8"]) {
    await attempt(`dtype ${dtype} is held as f16, and info says so`, () =>
      using(loadGPT2(models.gpt2, { device, dtype, kvCacheBytes: 1 << 29 }), async (model) => {
        await tokensOf(model, idsOf(8, model.info.vocabularySize, 1));
        return { passed: model.info.dtype === "f16", detail: model.info.dtype };
      }),
    );
  }

  if (gpu) await attempt("models until the GPU is full: OUT_OF_MEMORY, and the first one serves", async () => {
    const open = [];
    try {
      let answer;
      // A cache takes 512 whole sequences at most, 38 GB of a GPT-2 124M in f32.
      for (let i = 0; i < 12 && answer === undefined; i++) {
        try {
          open.push(await loadGPT2(models.gpt2, { device, dtype: "f32", kvCacheBytes: gpuBytes }));
        } catch (error) {
          answer = { passed: error.code === "OUT_OF_MEMORY" && open.length > 0, detail: `${error.code} at the ${open.length + 1}th: ${error.message}` };
        }
      }
      if (open.length > 0) await tokensOf(open[0], idsOf(8, open[0].info.vocabularySize, 1));
      return answer ?? { passed: false, detail: `${open.length} models fit` };
    } finally {
      for (const model of open) await model.close();
    }
  });
  if (gpu) await attempt("after that a model loads and serves", () =>
    using(loadGPT2(models.gpt2, { device, dtype: "bf16" }), async (model) => {
      await tokensOf(model, idsOf(8, model.info.vocabularySize, 1));
    }),
  );
  return found;
}

/** What `work` gives with a model that is closed afterwards. */
async function using(loading, work) {
  const model = await loading;
  try {
    return await work(model);
  } finally {
    await model.close();
  }
}

/** Makes the first weight of a safetensors file in f32 NaN. */
function poison(path) {
  const file = openSync(path, "r+");
  try {
    const length = Buffer.alloc(8);
    readSync(file, length, 0, 8, 0);
    writeSync(file, Buffer.from([0, 0, 0xc0, 0x7f]), 0, 4, 8 + Number(length.readBigUInt64LE()));
  } finally {
    closeSync(file);
  }
}
