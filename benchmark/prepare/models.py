"""Makes other forms of the benchmark's models, which models.ts has made:   models.py BENCH GPT2-TOKENIZER MINILM

  gpt2-{f16,q8_0,q4_0}.gguf   the weights of gpt2/ for llama.cpp
  bert-base-onnx/, minilm-onnx/   the encoders as ONNX, laid out for transformers.js
  bert-base-int8/, minilm-int8/   the same for OpenVINO, quantised by NNCF, which saw 64 of the texts
  gpt2-ctranslate2-int8/      the weights of gpt2/ for CTranslate2
  texts.json                  256 texts of 4 to 512 tokens, from the documentation that comes with Python

What is there already is kept.
"""
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from pydoc_data import topics
from transformers import AutoModel, AutoTokenizer, GPT2Config

bench, gpt2_tokenizer, minilm = (Path(argument) for argument in sys.argv[1:4])
NAMES = ["input_ids", "attention_mask", "token_type_ids"]


def make(name, write):
    """Has `write` make a file or folder under another name, and renames it when it is whole."""
    to, partial = bench / name, bench / f".partial-{name}"
    if to.exists():
        return
    print(f"making {name}", file=sys.stderr)
    shutil.rmtree(partial, ignore_errors=True)
    partial.unlink(missing_ok=True)
    write(partial)
    partial.rename(to)


def gguf(kind):
    from gguf import GGMLQuantizationType, GGUFWriter, quants
    from safetensors.numpy import load_file

    layer = {"ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
             "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}

    def write(to):
        config = GPT2Config()
        weights = {name.removeprefix("transformer."): value for name, value in load_file(bench / "gpt2/model.safetensors").items()}
        vocabulary = json.loads((gpt2_tokenizer / "vocab.json").read_text(encoding="utf8"))
        merges = (gpt2_tokenizer / "merges.txt").read_text(encoding="utf8").split("\n")[1:]
        file = GGUFWriter(to, "gpt2")
        file.add_block_count(config.n_layer)
        file.add_context_length(config.n_positions)
        file.add_embedding_length(config.n_embd)
        file.add_feed_forward_length(4 * config.n_embd)
        file.add_head_count(config.n_head)
        file.add_layer_norm_eps(config.layer_norm_epsilon)
        file.add_tokenizer_model("gpt2")
        file.add_tokenizer_pre("gpt-2")
        file.add_token_list(sorted(vocabulary, key=vocabulary.get))
        file.add_token_types([1] * len(vocabulary))
        file.add_token_merges([merge for merge in merges if merge])
        file.add_bos_token_id(config.bos_token_id)
        file.add_eos_token_id(config.eos_token_id)

        def add(name, value, quantised=False):
            value = np.ascontiguousarray(value, dtype=np.float32)
            if quantised:
                to_type = GGMLQuantizationType[kind.upper()]
                file.add_tensor(name, quants.quantize(value, to_type), raw_dtype=to_type)
            else:
                file.add_tensor(name, value)

        # The output matrix is the embedding: llama.cpp ties them when it is absent.
        add("token_embd.weight", weights["wte.weight"], True)
        add("position_embd.weight", weights["wpe.weight"])
        add("output_norm.weight", weights["ln_f.weight"])
        add("output_norm.bias", weights["ln_f.bias"])
        for i in range(config.n_layer):
            for ours, theirs in layer.items():
                weight, bias = (weights[f"h.{i}.{ours}.{part}"] for part in ("weight", "bias"))
                # Conv1D has (in, out).
                add(f"blk.{i}.{theirs}.weight", weight.T, weight.ndim == 2)
                add(f"blk.{i}.{theirs}.bias", bias)
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.write_tensors_to_file()
        file.close()

    return write


class Encoder(torch.nn.Module):
    """What both sides compute: the last hidden state, without the pooler."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state


def onnx(folder):
    def write(to):
        (to / "onnx").mkdir(parents=True)
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(folder / file, to / file)
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        ids = torch.ones((2, 16), dtype=torch.long)
        axes = {name: {0: "batch", 1: "length"} for name in [*NAMES, "last_hidden_state"]}
        torch.onnx.export(Encoder(model), (ids, ids, torch.zeros_like(ids)), str(to / "onnx/model.onnx"), input_names=NAMES,
                          output_names=["last_hidden_state"], dynamic_axes=axes, opset_version=17, dynamo=False)

    return write


def texts(to):
    """Lengths are log-uniform; each text is running prose, cut between words."""
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    prose = " ".join(" ".join(topics.topics[name].split()) for name in sorted(topics.topics)).split(" ")
    lengths = random.Random(1)
    found, at = [], 0
    while len(found) < 256:
        wanted = round(4 * 128 ** lengths.random())
        words = prose[at : at + wanted]
        while words and len(tokenizer(" ".join(words))["input_ids"]) > wanted:
            words = words[: max(1, int(len(words) * 0.95))] if len(words) > 20 else words[:-1]
        at = (at + len(words) + 1) % (len(prose) - 600)
        if words:
            found.append(" ".join(words))
    to.write_text(json.dumps(found))


def int8(name):
    import nncf
    import openvino

    def write(to):
        tokenizer = AutoTokenizer.from_pretrained(minilm)

        def feeds(text):
            ids = np.array([tokenizer(text, truncation=True, max_length=256)["input_ids"]], dtype=np.int64)
            return dict(zip(NAMES, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))

        samples = nncf.Dataset(json.loads((bench / "texts.json").read_text())[:64], feeds)
        model = openvino.Core().read_model(bench / f"{name}-onnx/onnx/model.onnx")
        quantised = nncf.quantize(model, samples, model_type=nncf.ModelType.TRANSFORMER, subset_size=64)
        to.mkdir()
        openvino.save_model(quantised, to / "model.xml", compress_to_fp16=False)

    return write


def ctranslate2(kind):
    from ctranslate2.converters import TransformersConverter

    def write(to):
        with tempfile.TemporaryDirectory() as folder:
            for file in [*(bench / "gpt2").iterdir(), gpt2_tokenizer / "vocab.json", gpt2_tokenizer / "merges.txt"]:
                shutil.copy(file, folder)
            TransformersConverter(folder).convert(str(to), quantization=kind)

    return write


os.makedirs(bench, exist_ok=True)
make("texts.json", texts)
failed = []
for name, write in [*((f"gpt2-{kind}.gguf", gguf(kind)) for kind in ("f16", "q8_0", "q4_0")),
                    ("minilm-onnx", onnx(minilm)), ("bert-base-onnx", onnx(bench / "bert-base")),
                    *((f"{name}-int8", lambda to, name=name: int8(name)(to)) for name in ("minilm", "bert-base")),
                    ("gpt2-ctranslate2-int8", lambda to: ctranslate2("int8")(to))]:
    try:
        make(name, write)
    except Exception as error:  # noqa: BLE001: the peer that needs it is skipped
        print(f"{name}: {error}", file=sys.stderr)
        failed.append(name)
sys.exit(1 if failed else 0)
