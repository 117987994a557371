#!/usr/bin/env bash
# Packing changes how many rows a step has, and nothing of what a row contributes.  usage: packing.sh TRAINER
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"
trainer=$1
export OMP_NUM_THREADS=1

for index in $(seq 1 24); do
  printf '{"input": "Say %d", "output": "It is %s"}\n' "$index" "$(seq -s, 1 "$((index % 7 + 1))")"
done >"$folder/rows.jsonl"
run() { # NAME MORE_JSON [ARGUMENT...]
  local name=$1
  cat >"$folder/request.json" <<TEXT
{"task": "text-generation", "model_name": "$model", "dataset": "$folder/rows.jsonl", "bf16": false, "lora_dropout": 0,
 "eval_split": 0, "learning_rate": 0.005, "num_train_epochs": 3, "per_device_train_batch_size": 1$2}
TEXT
  shift 2
  "$trainer" run "$folder/request.json" --output "$folder/$name" "$@" >"$folder/$name.log" 2>&1 ||
    fail "$name: $(tail -n 3 "$folder/$name.log")"
}

# One window of all rows: the same rows, so the same loss and gradient, but for the order of the sums.
run apart ', "gradient_accumulation_steps": 24, "max_steps": 1'
run packed ', "gradient_accumulation_steps": 24, "max_steps": 1, "packing": true, "max_seq_length": 128'
packs=$(said packed .dataset.packs)
[[ $(said apart .dataset.packs) == 24 && $packs -lt 12 ]] || fail "$packs packs of 24 rows"
for value in loss gradient_norm tokens; do
  awk -v a="$(said apart ".results.history[0].$value")" -v b="$(said packed ".results.history[0].$value")" \
    'BEGIN { exit !((a - b) ^ 2 <= (1e-5 * a) ^ 2) }' || fail "$value of a packed and an unpacked window"
done
echo "ok: $packs packs of 24 rows have the loss and the gradient of the rows"

run steps ', "gradient_accumulation_steps": 2, "packing": true, "max_seq_length": 128, "save_steps": 1'
[[ $(said steps .results.steps) == $((3 * ((packs + 1) / 2))) ]] || fail "steps count packs: $(said steps .results.steps)"
run again ', "gradient_accumulation_steps": 2, "packing": true, "max_seq_length": 128, "save_steps": 1' \
  --resume "$folder/steps/checkpoints/step-00000002"
[[ $(digest steps) == "$(digest again)" ]] || fail "resumed it ends with other bits"
run plain ', "gradient_accumulation_steps": 2'
[[ $(digest steps) != "$(digest plain)" ]] || fail "packing changes nothing"
echo "ok: steps count packs, and a resumed run ends with the same bits"
cat >"$folder/request.json" <<TEXT
{"task": "text-generation", "model_name": "$model", "dataset": "$folder/rows.jsonl", "packing": true}
TEXT
! "$trainer" run "$folder/request.json" --output "$folder/refused" >"$folder/refused.log" 2>&1 || fail "packs of any length"
grep -q "packing: how long a pack may be is not said; set max_seq_length" "$folder/refused.log" || fail "the text"
