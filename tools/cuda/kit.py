"""What a GPU does with Candlewick's GPT-2 and BERT, beside PyTorch, in one run on the machine that has it.

    python3 tools/cuda/kit.py EXAMPLE OUT [DTYPE…]

EXAMPLE is crates/models/examples/cuda.rs, built. GPT-2 124M and BERT-base are made from a seed; the logits of a prompt
of 300 tokens and 19 more, and the states of four texts, are compared with PyTorch's in f32, and the error with that of
PyTorch itself in the same dtype. Then speeds, ours and PyTorch's. Needs torch, transformers and safetensors.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel
from transformers.cache_utils import StaticCache

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def tokens(lane, count, vocabulary):
    """The same as `tokens` of examples/cuda.rs."""
    return [(lane * 7919 + i * 104_729 + 17) % vocabulary for i in range(count)]


def median_seconds(run, repeats=10):
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def limits():
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source))
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    product = median_seconds(lambda: a @ a)
    return {"copy_tb_s": 2 * source.numel() / seconds / 1e12, "bf16_tflop_s": 2 * 8192**3 / product / 1e12}


def make(folder):
    torch.manual_seed(7)
    gpt2 = GPT2LMHeadModel(GPT2Config()).eval()
    bert = BertModel(BertConfig()).eval()
    for model in (gpt2, bert):
        for parameter in model.parameters():  # weights as spread as trained ones, biases and norms included
            parameter.data += 0.02 * torch.randn_like(parameter)
    gpt2.save_pretrained(folder / "gpt2")
    bert.save_pretrained(folder / "bert")
    return gpt2, bert


def error(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@torch.inference_mode()
def gpt2_speeds(model, dtype):
    model = model.to("cuda", dtype)
    v = model.config.vocab_size
    result = {}
    for count, length in [(1, 512), (16, 512)]:
        ids = torch.tensor([tokens(lane, length, v) for lane in range(count)], device="cuda")
        result[f"prefill {count} x {length} ms"] = 1e3 * median_seconds(lambda: model(ids, logits_to_keep=1))
    for count, context in [(1, 128), (64, 256)]:
        ids = torch.tensor([tokens(lane, context, v) for lane in range(count)], device="cuda")
        cache = StaticCache(config=model.config, max_cache_len=context + 80)
        model(ids, past_key_values=cache, logits_to_keep=1, cache_position=torch.arange(context, device="cuda"))
        one, at = ids[:, :1].contiguous(), torch.tensor([context], device="cuda")
        run = lambda: model(one, past_key_values=cache, cache_position=at).logits.argmax(-1)  # noqa: E731
        result[f"decode {count} x {context} eager tok/s"] = count / median_seconds(run)
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    run()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                run()
            result[f"decode {count} x {context} graph tok/s"] = count / median_seconds(graph.replay)
        except Exception as problem:  # a version whose cache cannot be captured
            result[f"decode {count} x {context} graph"] = str(problem)[:200]
            torch.cuda.synchronize()
    return result


@torch.inference_mode()
def bert_speeds(model, dtype):
    model = model.to("cuda", dtype)
    result = {}
    for count, length in [(1, 16), (1, 128), (32, 128), (128, 128)]:
        ids = torch.tensor([tokens(lane, length, model.config.vocab_size) for lane in range(count)], device="cuda")
        seconds = median_seconds(lambda: model(ids).last_hidden_state[:, 0].float().cpu())
        result[f"{count} x {length} tok/s"] = count * length / seconds
    return result


@torch.inference_mode()
def reference(gpt2, bert, dtype):
    gpt2, bert = gpt2.to("cuda", dtype), bert.to("cuda", dtype)
    ids = tokens(0, 319, gpt2.config.vocab_size)
    logits = gpt2(torch.tensor([ids], device="cuda")).logits[0, 299:].float().cpu().numpy()
    states = []
    for lane, length in enumerate([128, 5, 77, 300]):
        row = torch.tensor([tokens(lane, length, bert.config.vocab_size)], device="cuda")
        states.append(bert(row).last_hidden_state[0].float().cpu().numpy())
    return logits, np.concatenate(states)


def main():
    example, out = sys.argv[1], Path(sys.argv[2])
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    folder = Path("/tmp/candlewick-kit")
    folder.mkdir(parents=True, exist_ok=True)
    report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "limits": limits()}
    gpt2, bert = make(folder)
    exact = reference(gpt2, bert, torch.float32)
    for name in sys.argv[3:] or list(DTYPES):
        entry = report[name] = {}
        run = subprocess.run(
            [example, folder / "gpt2", folder / "bert", name, folder / name], capture_output=True, text=True
        )
        entry["candlewick"] = run.stdout.splitlines()
        if run.returncode != 0:
            entry["failed"] = run.stderr[-3000:]
        theirs = reference(gpt2, bert, DTYPES[name])
        for index, (what, file) in enumerate([("gpt2", "gpt2-logits.f32"), ("bert", "bert-states.f32")]):
            path = folder / name / file
            if not path.exists():
                continue
            found = np.fromfile(path, np.float32).reshape(exact[index].shape)
            entry[f"{what} error"] = error(found, exact[index])
            entry[f"{what} largest"] = float(np.abs(found - exact[index]).max())
            entry[f"{what} error of torch"] = error(theirs[index], exact[index])
            if what == "gpt2":
                entry["gpt2 same tokens"] = float((found.argmax(-1) == exact[0].argmax(-1)).mean())
        try:
            entry["torch gpt2"] = gpt2_speeds(gpt2, DTYPES[name])
            entry["torch bert"] = bert_speeds(bert, DTYPES[name])
        except Exception as problem:
            entry["torch failed"] = str(problem)[:500]
        # The weights were rounded to this type.
        gpt2 = GPT2LMHeadModel.from_pretrained(folder / "gpt2").eval()
        bert = BertModel.from_pretrained(folder / "bert").eval()
        (out / "report.json").write_text(json.dumps(report, indent=1))
        print(name, json.dumps(entry, indent=1), flush=True)
    print(json.dumps({key: report[key] for key in ("device", "torch", "limits")}))


main()
