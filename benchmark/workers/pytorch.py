"""PyTorch and transformers on the CPU."""
import resource
import time

import torch
import transformers
from transformers import AutoModel, BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from protocol import serve

model = None


def open_model(args):
    global model
    torch.set_num_threads(args["threads"])
    dtype = torch.bfloat16 if args["dtype"] == "bf16" else torch.float32
    if args["kind"] == "bert":
        model = AutoModel.from_pretrained(args["path"], dtype=dtype, add_pooling_layer=False).eval()
    else:
        model = GPT2LMHeadModel.from_pretrained(args["path"], dtype=dtype).eval()


def close(_):
    global model
    model = None


def steps(tokens, count):
    """Greedy; when each step's tokens were there, in milliseconds. tokens: (B, T)."""
    times, ids, past = [], [], None
    begin = time.perf_counter()
    for _ in range(count):
        out = model(tokens, past_key_values=past, use_cache=True, logits_to_keep=1)
        past = out.past_key_values
        tokens = out.logits[:, -1:].argmax(-1)
        ids.append(tokens[0].item())
        times.append((time.perf_counter() - begin) * 1e3)
    return times, ids


def generate(args):
    times, ids = steps(torch.tensor([args["ids"]]), args["tokens"])
    return {"times": times, "ids": ids}


def streams(args):
    times, _ = steps(torch.tensor(args["prompts"]), args["tokens"])
    return {"times": [times] * len(args["prompts"])}


def encode(args):
    ids = torch.tensor(args["ids"])
    begin = time.perf_counter()
    states = model(input_ids=ids).last_hidden_state
    answer = {"ms": (time.perf_counter() - begin) * 1e3, "sample": states[0, 0, :8].tolist()}
    return {**answer, "vectors": states.float().mean(dim=1).tolist()} if args.get("vectors") else answer


def train(args):
    """Steps of a model with new weights on random ids, with AdamW and clipping as its users have them."""
    torch.set_num_threads(args["threads"])
    config = {**args["config"]}
    kind = config.pop("model_type")
    with torch.inference_mode(False), torch.enable_grad():
        if kind == "gpt2":
            network = GPT2LMHeadModel(GPT2Config(**config))
        else:
            network = BertForSequenceClassification(BertConfig(**config))
        network.train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
        shape = (args["batch"], args["length"])
        times = []
        for _ in range(args["steps"] + 1):
            begin = time.perf_counter()
            ids = torch.randint(network.config.vocab_size, shape)
            labels = ids if kind == "gpt2" else torch.randint(2, shape[:1])
            with torch.autocast("cpu", torch.bfloat16, enabled=args["dtype"] == "bf16"):
                loss = network(input_ids=ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            times.append((time.perf_counter() - begin) * 1e3)
    return {"ms": times[1:], "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def hello(_):
    return {"version": f"{torch.__version__.split('+')[0]}, transformers {transformers.__version__}"}


with torch.inference_mode():
    serve({"hello": hello, "open": open_model, "close": close, "generate": generate, "streams": streams, "encode": encode, "train": train})
