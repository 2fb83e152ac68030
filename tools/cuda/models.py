"""What the kit measures on, made from a seed: GPT-2 124M, BERT-base, a model of MiniLM's shape, and texts.

`small` gives models that a CPU runs in seconds; vocabularies, tokenizers and file layouts are those of the large ones.
"""

import json
import math
import shutil
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).resolve().parents[2]
SMALL_GPT2 = {"n_layer": 2, "n_embd": 64, "n_head": 2}
SMALL_BERT = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 256}
MINILM = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}


def spread(model):
    """Weights as spread as trained ones, biases and norms included."""
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


def byte_level_tokenizer(folder, size=50257):
    """GPT-2's files with invented merges, of two and three ASCII characters: `size` entries, the last the end of text."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    ascii_ = alphabet[:94]
    pairs = [(a, b) for a in ascii_ for b in ascii_]
    triples = [(a + b, c) for a, b in pairs for c in ascii_]
    merges = (pairs + triples)[: size - 257]
    vocabulary = [*alphabet, *("".join(merge) for merge in merges), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}), "utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")


def sentence_files(folder):
    """The tokenizer of the MiniLM that ships, with what sentence-transformers reads; texts are cut at 512 tokens."""
    source = ROOT / "models" / "minilm"
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "modules.json"]:
        shutil.copy(source / name, folder / name)
    pooling = json.loads((source / "1_Pooling" / "config.json").read_text("utf-8"))
    pooling["word_embedding_dimension"] = json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), "utf-8")
    (folder / "2_Normalize").mkdir(exist_ok=True)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512, "do_lower_case": False}))


def mixed_texts(folder, count):
    """`count` texts of 4 to 512 tokens, lengths log-uniform, of words that are one token each."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    words = [word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2]
    state = 1

    def random():
        nonlocal state
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        return state / 2**32

    def text():
        length = round(math.exp(math.log(4) + random() * math.log(512 / 4)))
        return " ".join(words[int(random() * len(words))] for _ in range(length - 2))

    return [text() for _ in range(count)]


def make(folder, small):
    """Writes gpt2, gpt2-f16, bert and minilm, each in f32 but for the second, and texts.json, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    gpt2 = spread(GPT2LMHeadModel(GPT2Config(**(SMALL_GPT2 if small else {}))))
    bert = spread(BertModel(BertConfig(**(SMALL_BERT if small else {}))))
    minilm = spread(BertModel(BertConfig(**(SMALL_BERT if small else MINILM))))
    gpt2.save_pretrained(folder / "gpt2")
    bert.save_pretrained(folder / "bert")
    minilm.save_pretrained(folder / "minilm")
    gpt2.half().save_pretrained(folder / "gpt2-f16")
    for name in ["gpt2", "gpt2-f16"]:
        byte_level_tokenizer(folder / name)
    sentence_files(folder / "minilm")
    texts = mixed_texts(folder / "minilm", 64 if small else 4096)
    (folder / "texts.json").write_text(json.dumps(texts))
    return {"texts": len(texts)}
