#!/bin/sh
# Speed of the bundled models: tokens per second and memory. bench.sh [QUERN] [OPTIONS of quern bench]
set -eu
cd "$(dirname "$0")/.."
quern=${1:-build/release/quern}
[ $# -eq 0 ] || shift
for model in models/tiny-qwen3 models/tiny-qwen3-gptq-int8; do
    echo "== $model"
    "$quern" bench "$model" "$@"
    echo
done
