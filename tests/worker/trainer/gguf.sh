#!/usr/bin/env bash
# GGUF files of every family and every kind of tokenizer in llama.cpp, and what our reader makes of them.
# Skipped (77) without MF_TEST_PYTHON, an interpreter with torch, transformers, gguf and cyllama.
# usage: gguf.sh TRAINER
set -euo pipefail
if [[ -z ${MF_TEST_PYTHON:-} ]] || ! "$MF_TEST_PYTHON" -c 'import gguf, cyllama' 2>/dev/null; then
  echo "MF_TEST_PYTHON is not set, or its interpreter has no gguf package or no cyllama, which is llama.cpp"
  exit 77
fi
export PYTHONDONTWRITEBYTECODE=1
"$MF_TEST_PYTHON" tests/golden/gguf_check.py "$1"
