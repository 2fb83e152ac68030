"""What every script here shares: where the cache is, the sources and their language, and the shape of the model."""

import os
from pathlib import Path

CACHE = Path(os.environ.get("CANDLEWICK_CACHE", Path.home() / ".cache/candlewick")) / "default-model"
END = "<|endoftext|>"
VOCABULARY = 8192
CONTEXT = 512

LANGUAGE = {
    "austen": "en", "kjv": "en", "tang": "zh", "lyrics": "zh", "classics": "zh", "replies": "zh", "reviews": "zh",
}
# The share of training tokens that each source gives, whatever its size.
MIX = {"austen": 0.32, "kjv": 0.07, "tang": 0.28, "lyrics": 0.02, "classics": 0.01, "replies": 0.02, "reviews": 0.28}
