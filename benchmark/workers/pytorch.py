"""PyTorch and transformers on the CPU. A request is a line of JSON, its answer a line: see benchmark/child.ts."""
import json
import sys
import time

import torch
import transformers
from transformers import AutoModel, GPT2LMHeadModel

model = None


def open_model(args):
    global model
    torch.set_num_threads(args["threads"])
    if args["kind"] == "bert":
        model = AutoModel.from_pretrained(args["path"], dtype=torch.float32, add_pooling_layer=False).eval()
    else:
        model = GPT2LMHeadModel.from_pretrained(args["path"], dtype=torch.float32).eval()


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
    return {"ms": (time.perf_counter() - begin) * 1e3, "sample": states[0, 0, :8].tolist()}


def hello(_):
    return {"version": f"{torch.__version__.split('+')[0]}, transformers {transformers.__version__}"}


operations = {"hello": hello, "open": open_model, "close": close, "generate": generate, "streams": streams, "encode": encode}
with torch.inference_mode():
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] not in operations:
                raise ValueError(f"no {request['op']} here")
            answer = {"result": operations[request["op"]](request.get("args"))}
        except Exception as error:  # noqa: BLE001: whatever it is, it is the answer
            answer = {"error": str(error).split("\n")[0]}
        print(json.dumps(answer), flush=True)
