"""PyTorch's side of the kit (benchmark/cuda/): one process that answers requests, so that torch is imported once.

    python3 tools/cuda/pytorch.py                      answers requests on standard input (benchmark/workers/protocol.py)
    python3 tools/cuda/pytorch.py load FOLDER DTYPE    a fresh process that loads a GPT-2 and makes one token

Needs torch, transformers and safetensors; sentence-transformers for the texts.
"""

import os
import sys
import traceback
from pathlib import Path

# Nothing here is looked for on the hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmark" / "workers"))

import torch  # noqa: E402


def first_token(folder, dtype):
    """What the kit times from outside: imports, load, one token."""
    from transformers import GPT2LMHeadModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=kind).eval().to(device)
    with torch.inference_mode():
        print(int(model(torch.arange(16, device=device)[None]).logits[0, -1].argmax()), flush=True)


def main():
    import transformers
    from protocol import serve

    import models
    import parity
    import speeds

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False

    def hello(_):
        gpu = torch.cuda.is_available()
        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "gpu": torch.cuda.get_device_name() if gpu else None,
            "capability": ".".join(map(str, torch.cuda.get_device_capability())) if gpu else None,
            "gpuBytes": torch.cuda.get_device_properties(0).total_memory if gpu else None,
        }

    def memory(_):
        """Bytes of the GPU that are free, nothing of this process's cache among those that are not."""
        if not torch.cuda.is_available():
            return None
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]

    def written(operation):
        """The first line of an error is the answer; all of it goes to the log."""

        def run(args):
            try:
                return operation(args)
            except Exception:
                traceback.print_exc()
                raise

        return run

    operations = {
        "hello": hello,
        "memory": memory,
        "make": lambda args: models.make(Path(args["folder"]), args["small"]),
        "limits": speeds.limits,
        "open": speeds.open_model,
        "close": speeds.close,
        "prepare": speeds.prepare,
        "times": speeds.times,
        "drop": speeds.drop,
        "gpt2": parity.gpt2,
        "bert": parity.bert,
        "sentences": parity.sentences,
        "forget": parity.forget,
    }

    def in_inference(operation):
        def run(args):
            with torch.inference_mode():
                return operation(args)

        return run

    # Weights that are made change in place, which inference tensors cannot everywhere.
    serve({name: written(run if name == "make" else in_inference(run)) for name, run in operations.items()})


if sys.argv[1:2] == ["load"]:
    first_token(*sys.argv[2:4])
else:
    main()
