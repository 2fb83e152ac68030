"""PyTorch's speeds, and what the device can do at best. What is prepared stays, so that it can be timed in turns."""

import json
import time
from pathlib import Path

import torch
from transformers import BertModel, GPT2LMHeadModel
from transformers.cache_utils import StaticCache

from parity import DEVICE, load

GPU = DEVICE == "cuda"
# Steps that a static cache has room for beyond the context; a round of timing takes fewer.
ROOM = 128
opened = {}
prepared = {}


def tokens(lane, count, vocabulary):
    """Any ids, the same in every run."""
    return [(lane * 7919 + i * 104_729 + 17) % vocabulary for i in range(count)]


def ids_of(model, count, length):
    rows = [tokens(lane, length, model.config.vocab_size) for lane in range(count)]
    return torch.tensor(rows, device=DEVICE)


def wait():
    if GPU:
        torch.cuda.synchronize()


def seconds_of(run, repeats):
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return times


def best_of(run, repeats=10):
    seconds_of(run, 3)
    return sorted(seconds_of(run, repeats))[repeats // 2]


def limits(_):
    """Bytes read and written a second, and operations a second of a bf16 product: medians."""
    if not GPU:
        return None
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    seconds = best_of(lambda: target.copy_(source))
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    product = best_of(lambda: a @ a)
    answer = {"copyBytes": 2 * source.numel() / seconds, "bf16Flops": 2 * 8192**3 / product}
    del source, target, a
    torch.cuda.empty_cache()
    return answer


def open_model(args):
    close(None)
    kind = {"gpt2": GPT2LMHeadModel, "bert": BertModel}[args["kind"]]
    opened["model"] = load(kind, args["folder"], args["dtype"])


def close(_):
    prepared.clear()
    opened.clear()
    if GPU:
        torch.cuda.empty_cache()


class Decode:
    """One token of each of `count` sequences at position `context`, with a static cache; a CUDA graph if asked."""

    def __init__(self, count, context, graph):
        model = opened["model"]
        self.context = context
        self.cache = StaticCache(config=model.config, max_cache_len=context + ROOM)
        ids = ids_of(model, count, context)
        # In parts, whose logits and scores fit.
        at = {"cache_position": torch.arange(context, device=DEVICE)}
        model(ids, past_key_values=self.cache, logits_to_keep=1, **at)
        one, at = ids[:, :1].contiguous(), {"cache_position": torch.tensor([context], device=DEVICE)}
        self.run = lambda: model(one, past_key_values=self.cache, **at).logits.argmax(-1)
        if not graph:
            return
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.run()
        wait()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.run()
        self.run = self.graph.replay

    def rewind(self):
        """Every step went one position on, in versions whose cache counts by itself; back to the context."""
        for layer in self.cache.layers:
            length = getattr(layer, "cumulative_length", None)
            if torch.is_tensor(length):
                length.fill_(self.context)


class Plain:
    def __init__(self, run):
        self.run = run

    def rewind(self):
        pass


def prepare_prefill(args):
    model, ids = opened["model"], ids_of(opened["model"], args["count"], args["length"])
    return Plain(lambda: model(ids, logits_to_keep=1).logits.argmax(-1).cpu())


def prepare_generate(args):
    """transformers' own `generate`, eager: `tokens` greedy tokens after `context`."""
    model, ids = opened["model"], ids_of(opened["model"], 1, args["context"])
    mask, new = torch.ones_like(ids), args["tokens"]
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return Plain(lambda: model.generate(ids, attention_mask=mask, **options).cpu())


def prepare_encode(args):
    """Pooled vectors of `count` texts, on the CPU; `calls` batches one after the other before they are waited for."""
    model, ids, calls = opened["model"], ids_of(opened["model"], args["count"], args["length"]), args.get("calls", 1)
    if args.get("compiled"):
        model = torch.compile(model, mode="reduce-overhead")

    def run():
        pooled = [model(ids).pooler_output.clone() for _ in range(calls)]
        return [rows.float().cpu() for rows in pooled]

    return Plain(run)


class SentenceTransformers:
    def __init__(self, args):
        from sentence_transformers import SentenceTransformer

        dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[args["dtype"]]
        model = SentenceTransformer(args["folder"], device=DEVICE, model_kwargs={"dtype": dtype})
        model.max_seq_length = 512
        texts = json.loads(Path(args["texts"]).read_text())
        self.run = lambda: model.encode(texts, batch_size=128, show_progress_bar=False)

    def rewind(self):
        pass


PREPARE = {
    "decode": lambda args: Decode(args["count"], args["context"], args["graph"]),
    "prefill": prepare_prefill,
    "generate": prepare_generate,
    "encode": prepare_encode,
    "texts": SentenceTransformers,
}


def prepare(args):
    """args: key, what (of PREPARE) and what it takes. Runs it `warm` times (default 3)."""
    prepared[args["key"]] = PREPARE[args["what"]](args)
    seconds_of(prepared[args["key"]].run, args.get("warm", 3))


def times(args):
    """args: key, repeats: seconds of each."""
    case = prepared[args["key"]]
    case.rewind()
    return seconds_of(case.run, args["repeats"])


def drop(args):
    prepared.pop(args["key"], None)
    if GPU:
        torch.cuda.empty_cache()
