"""What the shipped models must beat, on the same held-out rows: recorded in docs/models/baselines.json.

    python tools/baselines.py [NAME...]        (scikit-learn, sacrebleu; `npm run recipe -- NAME --data` first)

- topics, sentiment: TF-IDF of words (Chinese: of one to three characters) and logistic regression, the better of a few settings by
  validation.
- translation: the translation of the training message that is nearest by TF-IDF of words or of characters, the better of the two by
  validation.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import sacrebleu
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

DATA = Path(os.environ.get("CANDLEWICK_CACHE", Path.home() / ".cache/candlewick")) / "recipes/data"
WORDS = [dict(ngram_range=(1, n)) for n in (1, 2)]
CHARACTERS = [dict(analyzer="char", ngram_range=(1, n), min_df=2) for n in (2, 3)]


def read(name, split):
    return [json.loads(line) for line in (DATA / name / f"{split}.jsonl").open(encoding="utf-8")]


def classifier(name, features, metric):
    splits = {split: read(name, split) for split in ("train", "validation", "heldout")}
    texts = {split: [row["text"] for row in rows] for split, rows in splits.items()}
    labels = {split: [row["label"] for row in rows] for split, rows in splits.items()}
    best = None
    for feature in features:
        vectorizer = TfidfVectorizer(sublinear_tf=True, **feature)
        matrix = vectorizer.fit_transform(texts["train"])
        for c in (1, 3, 10, 30):
            model = LogisticRegression(C=c, max_iter=2000).fit(matrix, labels["train"])
            said = {split: model.predict(vectorizer.transform(texts[split])) for split in ("validation", "heldout")}
            score = metric(labels["validation"], said["validation"])
            if best is None or score > best[0]:
                best = score, dict(feature, C=c), said["heldout"]
    _, setting, said = best
    right = labels["heldout"]
    return dict(setting=setting, accuracy=accuracy_score(right, said), macroF1=f1_score(right, said, average="macro"))


def nearest():
    train = read("translation", "train")
    sources, targets = [row["source"] for row in train], [row["target"] for row in train]
    best = None
    for feature in (dict(ngram_range=(1, 2)), dict(analyzer="char", ngram_range=(2, 5))):
        vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, token_pattern=r"(?u)\S+", **feature)
        matrix = vectorizer.fit_transform(sources)
        scores = {}
        for split in ("validation", "heldout"):
            rows = read("translation", split)
            asked = vectorizer.transform([row["source"] for row in rows])
            # A few at a time: nearly every message shares two letters with nearly every other.
            found = [i for at in range(0, len(rows), 256) for i in np.asarray((asked[at : at + 256] @ matrix.T).argmax(axis=1)).ravel()]
            said = [targets[i] for i in found]
            right = [[row["target"] for row in rows]]
            bleu, chrf = sacrebleu.corpus_bleu(said, right, tokenize="zh").score, sacrebleu.corpus_chrf(said, right).score
            exact = sum(a == b for a, b in zip(said, right[0])) / len(said)
            scores[split] = dict(bleu=bleu, chrf=chrf, exactMatch=exact)
        if best is None or scores["validation"]["bleu"] > best[0]:
            best = scores["validation"]["bleu"], dict(setting=dict(feature), **scores["heldout"])
    return best[1]


BASELINES = {
    "topics": lambda: classifier("topics", WORDS, lambda a, b: f1_score(a, b, average="macro")),
    "sentiment-en": lambda: classifier("sentiment-en", WORDS, accuracy_score),
    "sentiment-zh": lambda: classifier("sentiment-zh", CHARACTERS, accuracy_score),
    "translation-en-zh": nearest,
}
path = Path(__file__).parent.parent / "docs/models/baselines.json"
result = json.loads(path.read_text()) | {name: BASELINES[name]() for name in sys.argv[1:] or BASELINES}
text = json.dumps(result, indent=1)
path.write_text(text + "\n")
print(text)
