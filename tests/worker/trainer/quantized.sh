#!/usr/bin/env bash
# Our QLoRA adapter in real PEFT over bitsandbytes' 4-bit layers gives our evaluation loss.
# Skipped (77) without MF_TEST_PYTHON, an interpreter with torch, transformers, peft and bitsandbytes 0.50.
# usage: quantized.sh TRAINER
set -euo pipefail
if [[ -z ${MF_TEST_PYTHON:-} ]] || ! "$MF_TEST_PYTHON" -c 'import bitsandbytes' 2>/dev/null; then
  echo "MF_TEST_PYTHON is not set, or its interpreter has no bitsandbytes"
  exit 77
fi
export PYTHONDONTWRITEBYTECODE=1
"$MF_TEST_PYTHON" tests/golden/quantized_check.py "$1" tests/golden/models/tied-gqa
