#!/usr/bin/env bash
# Our adapter in real PEFT gives our evaluation loss: tiny models always, SmolLM2 where MF_TEST_SMOLLM2 is its folder.
# Skipped (77) without MF_TEST_PYTHON, an interpreter with torch, transformers and peft.  usage: peft.sh TRAINER
set -euo pipefail
if [[ -z ${MF_TEST_PYTHON:-} ]]; then
  echo "MF_TEST_PYTHON is not set"
  exit 77
fi
# Llama; two kinds of rotary positions and norms behind each block; modules stored fused; biases everywhere;
# rotary positions that depend on how long the rows are (all here are beyond what the model was made for); the text part of
# a model that has another part with modules of the same names.
for model in tied-gqa gemma3 gemma3-vision phi3 phi2 phi4-mini; do
  more=()
  [[ $model == phi* || $model == *vision ]] || more=(--continue) # whose check names Llama's modules
  [[ $model != tied-gqa ]] || more+=(--whole lm_head norm)       # one of the two ends of the table of tokens
  [[ $model != phi3 ]] || more+=(--whole embed_tokens gate_up_proj) # a table of its own, modules that are fused
  "$MF_TEST_PYTHON" tests/golden/peft_check.py "$1" "tests/golden/models/$model" "${more[@]}"
done
text=$(mktemp)
trap 'rm -f "$text"' EXIT
echo "The rain in Spain stays in the plain." >"$text"
scored=$("$1" score --model tests/golden/models/llama-dynamic --text "$text" --json)
expected=$("$MF_TEST_PYTHON" tests/golden/score_text.py tests/golden/models/llama-dynamic "$text" | tail -n 1)
echo "llama-dynamic: $scored, Transformers $expected"
jq --exit-status --argjson expected "$expected" \
  '.tokens == $expected.tokens and ((.loss - $expected.loss) | fabs) <= 1e-5' <<<"$scored"
if [[ -n ${MF_TEST_SMOLLM2:-} ]]; then
  "$MF_TEST_PYTHON" tests/golden/peft_check.py "$1" "$MF_TEST_SMOLLM2" --max-steps 3
fi
