#!/usr/bin/env bash
# Our adapter in real PEFT gives our evaluation loss: tiny models always, SmolLM2 where MF_TEST_SMOLLM2 is its folder.
# Skipped (77) without MF_TEST_PYTHON, an interpreter with torch, transformers and peft.  usage: peft.sh TRAINER
set -euo pipefail
if [[ -z ${MF_TEST_PYTHON:-} ]]; then
  echo "MF_TEST_PYTHON is not set"
  exit 77
fi
# Llama; two kinds of rotary positions and norms behind each block; modules stored fused; biases everywhere.
for model in tied-gqa gemma3 phi3 phi2; do
  more=()
  [[ $model == phi* ]] || more=(--continue) # whose check names Llama's modules
  "$MF_TEST_PYTHON" tests/golden/peft_check.py "$1" "tests/golden/models/$model" "${more[@]}"
done
if [[ -n ${MF_TEST_SMOLLM2:-} ]]; then
  "$MF_TEST_PYTHON" tests/golden/peft_check.py "$1" "$MF_TEST_SMOLLM2" --max-steps 3
fi
