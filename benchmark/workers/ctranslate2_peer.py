"""CTranslate2 on the CPU. It takes and gives tokens as text."""
import json
import time
from pathlib import Path

import ctranslate2

from protocol import serve

model = None
vocabulary = []


def open_model(args):
    global model, vocabulary
    path = Path(args["path"])
    model = ctranslate2.Generator(str(path), device="cpu", compute_type=args["dtype"], inter_threads=1, intra_threads=args["threads"])
    vocabulary = json.loads((path / "vocabulary.json").read_text(encoding="utf8"))


def close(_):
    global model
    model = None


def generate(args):
    times, ids = [], []
    begin = time.perf_counter()

    def step(result):
        times.append((time.perf_counter() - begin) * 1e3)
        ids.append(result.token_id)
        return False

    prompt = [vocabulary[id] for id in args["ids"]]
    count = args["tokens"]
    model.generate_batch([prompt], beam_size=1, sampling_topk=1, min_length=count, max_length=count, include_prompt_in_result=False, callback=step)
    return {"times": times, "ids": ids}


def hello(_):
    return {"version": ctranslate2.__version__}


serve({"hello": hello, "open": open_model, "close": close, "generate": generate})
