#!/usr/bin/env bash
# Every output in real PEFT, Transformers, llama.cpp and the gguf package, with a table of the losses: tiny model always,
# SmolLM2 where MF_TEST_SMOLLM2 is its folder. Skipped (77) without MF_TEST_PYTHON, an interpreter with torch,
# transformers, peft, gguf and cyllama.
# usage: outputs.sh TRAINER
set -euo pipefail
if [[ -z ${MF_TEST_PYTHON:-} ]]; then
  echo "MF_TEST_PYTHON is not set"
  exit 77
fi
if ! "$MF_TEST_PYTHON" -c 'import gguf, cyllama' 2>/dev/null; then
  echo "the interpreter of MF_TEST_PYTHON has no gguf package or no cyllama, which is llama.cpp"
  exit 77
fi
"$MF_TEST_PYTHON" tests/golden/outputs_check.py "$1" tests/golden/models/tied-gqa
"$MF_TEST_PYTHON" tests/golden/full_check.py "$1" tests/golden/models/tied-gqa
if [[ -n ${MF_TEST_SMOLLM2:-} ]]; then
  "$MF_TEST_PYTHON" tests/golden/outputs_check.py "$1" "$MF_TEST_SMOLLM2" --max-steps 3
fi
