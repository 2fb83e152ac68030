"""What Candlewick computed, beside PyTorch in f32, and the error of PyTorch itself in the same dtype as the yardstick."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel, GPT2LMHeadModel

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Logits of f32 that are nearer than this are a tie: another order of the same sum decides between them.
TIE = 1e-4


def error(found, exact):
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def load(kind, path, dtype):
    return kind.from_pretrained(path, dtype=DTYPES[dtype]).eval().to(DEVICE)


@cache
def logits(path, dtype, generations):
    """Of each generation the logits that its tokens were chosen by, (tokens, vocabulary) in f32 on the CPU."""
    model = load(GPT2LMHeadModel, path, dtype)
    found = []
    for case in json.loads(Path(generations).read_text()):
        ids = torch.tensor([case["prompt"] + case["tokens"]], device=DEVICE)
        found.append(model(ids).logits[0, len(case["prompt"]) - 1 : -1].float().cpu())
    return found


def gpt2(args):
    """args: folder, dtype, file (a list of {prompt, tokens, logprobs, top: [[[id, logprob]…]…], greedy})."""
    cases = json.loads(Path(args["file"]).read_text())
    exact = logits(args["folder"], "f32", args["file"])
    theirs = logits(args["folder"], args["dtype"], args["file"])
    found, right, peer = [], [], []
    greedy = ties = 0
    wrong = []
    for case, row, other in zip(cases, exact, theirs, strict=True):
        places = [
            (at, token, value)
            for at, (chosen, logprob, top) in enumerate(zip(case["tokens"], case["logprobs"], case["top"], strict=True))
            for token, value in [(chosen, logprob), *top]
        ]
        rows, columns = (torch.tensor([place[i] for place in places]) for i in (0, 1))
        found += [place[2] for place in places]
        right.append(torch.log_softmax(row.double(), -1)[rows, columns].numpy())
        peer.append(torch.log_softmax(other.double(), -1)[rows, columns].numpy())
        if not case["greedy"]:
            continue
        for at, chosen in enumerate(case["tokens"]):
            best = row[at].max()
            greedy += int(row[at, chosen] == best)
            ties += int(0 < best - row[at, chosen] <= TIE)
            if best - row[at, chosen] > TIE:
                wrong.append(float(best - row[at, chosen]))
    found, right, peer = np.array(found), np.concatenate(right), np.concatenate(peer)
    return {
        "ours": error(found, right),
        "torch": error(peer, right),
        "largest": float(np.abs(found - right).max()),
        "greedy": greedy,
        "ties": ties,
        "wrong": wrong,
    }


@cache
def states(path, dtype, inputs):
    """Every text's states, then its pooled vector, one after the other."""
    model = load(BertModel, path, dtype)
    found = []
    for ids in json.loads(Path(inputs).read_text()):
        out = model(torch.tensor([ids], device=DEVICE))
        found += [out.last_hidden_state.float().cpu().numpy().ravel(), out.pooler_output.float().cpu().numpy().ravel()]
    return np.concatenate(found)


def bert(args):
    """args: folder, dtype, inputs (a list of ids), file (f32: of each text its states, then its pooled vector)."""
    found = np.fromfile(args["file"], np.float32)
    exact = states(args["folder"], "f32", args["inputs"])
    theirs = states(args["folder"], args["dtype"], args["inputs"])
    return {"ours": error(found, exact), "torch": error(theirs, exact), "largest": float(np.abs(found - exact).max())}


@cache
def vectors(path, texts, count):
    """Means of the tokens' states, scaled to length 1, as sentence-transformers makes them; f32."""
    tokenizer, model = AutoTokenizer.from_pretrained(path), load(BertModel, path, "f32")
    rows = []
    for text in json.loads(Path(texts).read_text())[:count]:
        ids = tokenizer(text, truncation=True, max_length=512, return_tensors="pt").to(DEVICE)
        rows.append(model(**ids).last_hidden_state[0].mean(0).double().cpu().numpy())
    rows = np.stack(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sentences(args):
    """args: folder, texts, count, file (f32 vectors of the first texts): the least and the mean cosine."""
    exact = vectors(args["folder"], args["texts"], args["count"])
    found = np.fromfile(args["file"], np.float32).reshape(exact.shape).astype(np.float64)
    cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1)
    return {"least": float(cosines.min()), "mean": float(cosines.mean())}


def forget(_):
    for function in (logits, states, vectors):
        function.cache_clear()
