"""Train the byte-level BPE on a balanced mix of the training split, write tokenizer.json, and encode every source.

    python tokenizer.py

Output, under the cache: tokenizer.json, and tokens/SOURCE.{train,heldout}.bin (u16, each document followed by <|endoftext|>).
"""

import json

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from common import CACHE, END, LANGUAGE, MIX, VOCABULARY

# Bytes of each source that the merges are counted on. English needs about 4000 of the 8192 entries, and Chinese the rest:
# two merges for each common character (a character is three bytes), then common words.
BUDGET = {"austen": 4_000_000, "kjv": 1_800_000, "tang": 2_400_000, "lyrics": 1_500_000, "classics": 1_200_000,
          "replies": 100_000, "reviews": 3_500_000}


def documents(source, split):
    with open(CACHE / "text" / f"{source}.jsonl", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["split"] == split:
                yield row["text"]


def spread(source):
    """About BUDGET bytes of a source, taken evenly over its whole length."""
    texts = list(documents(source, "train"))
    total = sum(len(t.encode()) for t in texts)
    step = max(1.0, total / BUDGET[source])
    return [texts[int(i * step)] for i in range(int(len(texts) / step))]


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=36,
    )
    tokenizer.train_from_iterator((t for s in MIX for t in spread(s)), trainer)
    return tokenizer


def main():
    tokenizer = train()
    for text in ("我们很高兴能够与您合作！", "It's a truth 👩‍👩‍👧‍👦 \n\n  — café 𠮷 é\t\r\n", " 床前明月光，疑是地上霜。"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text, text
    assert tokenizer.get_vocab_size() == VOCABULARY and tokenizer.token_to_id(END) == 0
    tokenizer.save(str(CACHE / "tokenizer.json"), pretty=False)

    (CACHE / "tokens").mkdir(exist_ok=True)
    for source in LANGUAGE:
        for split in ("train", "heldout"):
            texts = list(documents(source, split))
            ids = []
            for encoding in tokenizer.encode_batch_fast(texts):
                ids += encoding.ids
                ids.append(0)
            np.array(ids, dtype=np.uint16).tofile(CACHE / "tokens" / f"{source}.{split}.bin")
            size = sum(len(t.encode()) for t in texts)
            print(f"{source:9} {split:8} {len(texts):6} documents {size:9} bytes {len(ids):8} tokens {size / len(ids):.2f} bytes/token", flush=True)


if __name__ == "__main__":
    main()
