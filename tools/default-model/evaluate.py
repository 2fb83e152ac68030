"""Held-out bits per byte, by language and source, and samples as they come, from the exported f16 folder.

    python evaluate.py [--model ../../models/default] [--limit N] [--json out.json]

A document is scored from <|endoftext|> on; one longer than the context is cut into windows that overlap by half, and only the
new half of each window counts. Bits per byte = all bits / all bytes of UTF-8. The interval is a bootstrap over documents
(2000 resamples, seed 0): it says how far the number would move with other held-out documents, not with another training.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from common import CONTEXT, LANGUAGE
from tokenizer import documents

PROMPTS = [
    "It is a truth universally acknowledged", "She had never in her life", "And it came to pass",
    "我们很高兴能够与您合作！", "这家酒店的服务", "春风", "床前明月光，", "子曰：",
]


def bits(model, tokenizer, text):
    ids = [0] + tokenizer.encode(text)
    total, done = 0.0, 1  # done: tokens already scored, the first being given
    while done < len(ids):
        start = 0 if done == 1 else max(0, done - CONTEXT // 2)
        window = torch.tensor([ids[start : start + CONTEXT]])
        with torch.no_grad():
            logits = model(window).logits[0, :-1].float()
        nats = F.cross_entropy(logits, window[0, 1:], reduction="none")
        total += nats[done - start - 1 :].sum().item()
        done = start + window.shape[1]
    return total / math.log(2)


def interval(pairs):
    """pairs: (documents, 2) of bits and bytes -> (bits per byte, low, high)."""
    pairs = np.array(pairs)
    rng = np.random.default_rng(0)
    draws = [pairs[rng.integers(len(pairs), size=len(pairs))].sum(0) for _ in range(2000)]
    low, high = np.percentile([b / n for b, n in draws], [2.5, 97.5])
    b, n = pairs.sum(0)
    return {"bits_per_byte": round(float(b / n), 3), "low": round(float(low), 3), "high": round(float(high), 3), "documents": len(pairs), "bytes": int(n)}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--model", type=Path, default=Path(__file__).resolve().parents[2] / "models/default")
    args.add_argument("--limit", type=int, default=400, help="documents of each source, evenly spread")
    args.add_argument("--json", type=Path)
    args.add_argument("--samples-only", action="store_true")
    args = args.parse_args()
    torch.set_num_threads(2)

    # The f16 values, computed in f32.
    model = GPT2LMHeadModel.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(args.model / "tokenizer.json"), eos_token="<|endoftext|>")
    result = {"heldout": {}, "samples": []}

    if not args.samples_only:
        by_language = {"en": [], "zh": []}
        for source, language in LANGUAGE.items():
            texts = list(documents(source, "heldout"))
            texts = [texts[int(i)] for i in np.linspace(0, len(texts) - 1, min(len(texts), args.limit))]
            pairs = [(bits(model, tokenizer, t), len(t.encode())) for t in texts]
            by_language[language] += pairs
            result["heldout"][source] = interval(pairs)
            print(source, result["heldout"][source], flush=True)
        for language, pairs in by_language.items():
            result["heldout"][language] = interval(pairs)
            print(language, result["heldout"][language], flush=True)

    for prompt in PROMPTS:
        for seed in (1, 2):
            torch.manual_seed(seed)
            ids = torch.tensor([tokenizer.encode(prompt)])
            with torch.no_grad():
                out = model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=70, do_sample=True, temperature=0.8,
                    top_k=50, top_p=0.95, pad_token_id=0,
                )
            text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            result["samples"].append({"prompt": prompt, "seed": seed, "text": text})
            print(f"--- seed {seed}\n{prompt}▮{text}", flush=True)

    if args.json:
        args.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
