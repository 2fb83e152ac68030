#!/usr/bin/env bash
# What the CUDA backend does on this machine: bash run.sh [--out DIR] [--minutes 8] [--only STEP[,STEP]] [--help].
# In the kit (npm run test:cuda -- --bundle) with the Node that lies in it; in a checkout with the one on PATH.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -x "$here/bin/node" ]; then
  exec "$here/bin/node" "$here/benchmark/cuda/run.cjs" "$@"
fi
root=$(cd "$here/../.." && pwd)
export NODE_PATH="$root/node_modules${NODE_PATH:+:$NODE_PATH}"
exec node --import "file://$root/node_modules/tsx/dist/loader.mjs" "$root/benchmark/cuda/run.ts" "$@"
