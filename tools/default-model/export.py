"""Write the trained weights as the folder that ships: models/default.

    python export.py [--average] [--output ../../models/default]

f16 safetensors with GPT-2's own keys (transformer.*), without the tied lm_head and without mask buffers, so that
`GPT2LMHeadModel.from_pretrained("models/default")` and `generate()` read the same folder. `--average` takes the running average
of recent weights instead of the last ones: the better choice while the learning rate is still high.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from common import CACHE, CONTEXT, END, VOCABULARY
from train import model_config

args = argparse.ArgumentParser()
args.add_argument("--average", action="store_true")
args.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[2] / "models/default")
args = args.parse_args()

args.output.mkdir(parents=True, exist_ok=True)
checkpoint = torch.load(CACHE / "checkpoint.pt", weights_only=True)
weights = {
    name: tensor.to(torch.float16).contiguous()
    for name, tensor in checkpoint["average" if args.average else "model"].items()
    if name.startswith("transformer.") and not name.endswith((".attn.bias", ".attn.masked_bias"))
}
assert all(torch.isfinite(t).all() for t in weights.values())
save_file(weights, args.output / "model.safetensors", metadata={"format": "pt"})
(args.output / "model.safetensors").chmod(0o644)

config = model_config(activation_function="gelu_new", architectures=["GPT2LMHeadModel"]).to_dict()
keep = (
    "architectures", "model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function",
    "layer_norm_epsilon", "resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range", "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "tie_word_embeddings", "bos_token_id", "eos_token_id",
)
config = {k: config[k] for k in keep}
config = {"architectures": config.pop("architectures"), "model_type": config.pop("model_type"), "torch_dtype": "float16", **config}
generation = {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95}
special = {"bos_token": END, "eos_token": END, "unk_token": END, "tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": False, "model_max_length": CONTEXT}
for name, value in (("config.json", config), ("generation_config.json", generation), ("tokenizer_config.json", special)):
    (args.output / name).write_text(json.dumps(value, indent=2) + "\n")
shutil.copyfile(CACHE / "tokenizer.json", args.output / "tokenizer.json")

assert Tokenizer.from_file(str(args.output / "tokenizer.json")).get_vocab_size() == VOCABULARY
size = sum(f.stat().st_size for f in args.output.iterdir())
print(f"step {checkpoint['step']}: {sum(t.numel() for t in weights.values())} parameters, {size / 1e6:.2f} MB in {args.output.name}/")
assert size <= 16e6
