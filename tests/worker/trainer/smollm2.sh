#!/usr/bin/env bash
# A real model: the negative log-likelihood of tests/golden/paragraph.txt equals Transformers' (score_text.py, f32)
# to 1e-4, and the greedy answer is the one that Transformers gives.
# Skipped (77) without MF_TEST_SMOLLM2, the folder of SmolLM2-135M-Instruct.  usage: smollm2.sh TRAINER
set -euo pipefail
if [[ -z ${MF_TEST_SMOLLM2:-} ]]; then
  echo "MF_TEST_SMOLLM2 is not set"
  exit 77
fi
expected=3.67589402 # score_text.py, transformers 5.24.0, torch 2.15.0
scored=$("$1" score --model "$MF_TEST_SMOLLM2" --text tests/golden/paragraph.txt --json)
echo "$scored"
jq --exit-status --argjson expected "$expected" \
  '.tokens == 145 and .labels == 144 and ((.loss - $expected) | fabs) <= 1e-4' <<<"$scored"
answer=$("$1" generate --model "$MF_TEST_SMOLLM2" --dtype f32 --prompt "What is the capital of France?")
echo "$answer"
[[ $answer == "The capital of France is Paris." ]]
