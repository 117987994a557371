#!/usr/bin/env bash
# A real model: the negative log-likelihood of tests/golden/paragraph.txt equals Transformers' (score_text.py, f32)
# to 1e-4, and the greedy answer is the one that Transformers gives. Then two steps on rows longer than a block of tokens,
# with memory for all and with the least that the trainer says it needs: the adapters are equal to the last bit.
# Straight from the GGUF file that the folder was made of (MF_TEST_SMOLLM2_GGUF, where it is set) the provider gguf gives
# the same likelihood, digit for digit, and the same adapter. Skipped (77) without MF_TEST_SMOLLM2, the folder of SmolLM2-135M-Instruct.  usage: smollm2.sh TRAINER
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
# The plug-in of the build.
export MODELFORGE_TRAINER_PROVIDERS_FOLDER=${1%/*}/../../lib/modelforge/providers
if [[ -n ${MF_TEST_SMOLLM2_GGUF:-} ]]; then
  from_file=$("$1" score --provider gguf --model "$MF_TEST_SMOLLM2_GGUF" --text tests/golden/paragraph.txt --json)
  [[ $from_file == "$scored" ]] || { echo "from the GGUF file: $from_file" && exit 1; }
fi
answer=$("$1" generate --model "$MF_TEST_SMOLLM2" --dtype f32 --prompt "What is the capital of France?")
echo "$answer"
[[ $answer == "The capital of France is Paris." ]]

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for ((row = 0; row < 10; row++)); do
  jq --null-input --compact-output --argjson row $row \
    '{prompt: "Count from \($row).", completion: ([range($row; $row + 140)] | map(tostring) | join(" "))}'
done >"$folder/rows.jsonl"
request() { # NAME MEMORY_BUDGET_GIB
  jq --null-input --arg model "$MF_TEST_SMOLLM2" --arg rows "$folder/rows.jsonl" --argjson budget "$2" \
    '{task: "text-generation", model_name: $model, dataset: $rows, max_steps: 2, per_device_train_batch_size: 1,
      gradient_accumulation_steps: 1, eval_split: 0, warmup_steps: 0, learning_rate: 1e-3, memory_budget_gib: $budget}' \
    >"$folder/$1.json"
}
request none 0.1
if "$1" plan "$folder/none.json" 2>"$folder/refusal"; then
  echo "a budget of 0.1 GiB was accepted"
  exit 1
fi
cat "$folder/refusal"
least=$(sed -En 's/.*any of these would fit: memory_budget_gib ([0-9.]+).*/\1/p' "$folder/refusal")
request whole 1.8
jq '.finetuning = "full" | .bf16 = false' "$folder/whole.json" >"$folder/all.json"
if "$1" plan "$folder/all.json" 2>"$folder/refusal"; then
  echo "a budget of 1.8 GiB was accepted for every weight"
  exit 1
fi
grep ' for weights, gradients and optimizer).* finetuning lora' "$folder/refusal"
request much null
request little "$least"
names=(much little)
if [[ -n ${MF_TEST_SMOLLM2_GGUF:-} ]]; then
  jq --arg file "$MF_TEST_SMOLLM2_GGUF" '.provider = "gguf" | .model_name = $file' "$folder/much.json" >"$folder/file.json"
  names+=(file)
fi
for name in "${names[@]}"; do
  "$1" run "$folder/$name.json" --output "$folder/$name"
  jq --compact-output '[.memory, .managed_bytes, .pass_tokens, .numeric_plan_sha256]' "$folder/$name/training.json"
done
cmp "$folder/much/adapter/adapter_model.safetensors" "$folder/little/adapter/adapter_model.safetensors"
[[ ! -e $folder/file ]] || cmp "$folder/much/adapter/adapter_model.safetensors" "$folder/file/adapter/adapter_model.safetensors"
jq --slurp --exit-status --argjson least "$least" \
  '.[0].memory == "keep all" and (.[1].memory | test("attention"))
   and .[0].managed_bytes > .[1].managed_bytes and .[1].managed_bytes <= $least * 1073741824
   and .[0].numeric_plan_sha256 == .[1].numeric_plan_sha256' "$folder/much/training.json" "$folder/little/training.json"
