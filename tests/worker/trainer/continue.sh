#!/usr/bin/env bash
# Training that goes on from an adapter.  usage: continue.sh TRAINER
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"
trainer=$1

request() { # MORE_JSON [MODEL]
  cat >"$folder/request.json" <<TEXT
{"task": "text-generation", "model_name": "${2:-$model}", "dataset": "$folder/rows.jsonl", "bf16": false,
 "learning_rate": 0.005, "eval_steps": 100$1}
TEXT
}
run() { # NAME MORE_JSON
  request "$2"
  "$trainer" run "$folder/request.json" --output "$folder/$1" >"$folder/$1.log" 2>&1 || fail "$1: $(tail -n 3 "$folder/$1.log")"
}
refuse() { # WORDS MORE_JSON [MODEL]
  request "$2" "${3:-$model}"
  ! "$trainer" run "$folder/request.json" --output "$folder/refused" >"$folder/refused.log" 2>&1 || fail "not refused: $2"
  grep -qF -- "$1" "$folder/refused.log" || fail "$2: $(cat "$folder/refused.log")"
  [[ ! -e $folder/refused/adapter ]] || fail "an adapter was written: $2"
}

run first ', "lora_r": 4, "lora_alpha": 8, "num_train_epochs": 3, "target_modules": ["q_proj", "v_proj"]'
start=", \"adapter_name_or_path\": \"$folder/first/adapter\""
run second ", \"adapter_name_or_path\": \"file://$folder/first/adapter\""
last=$(said first '.results.evaluations[-1].loss') before=$(said first '.results.history[0].loss')
awk -v first="$(said second '.results.history[0].loss')" -v before="$before" 'BEGIN { exit !(first < before - 0.2) }' ||
  fail "the second run does not begin where the first one ended"
awk -v second="$(said second '.results.evaluations[-1].loss')" -v last="$last" 'BEGIN { exit !(second < last) }' ||
  fail "the second run learned nothing"
[[ $(said second .continued_from.sha256) == "\"$(sha256sum <"$folder/first/adapter/adapter_model.safetensors" | cut -d' ' -f1)\"" ]] ||
  fail "training.json does not tell the adapter's digest"
[[ $(said first .continued_from) == null ]] || fail "continued from nothing"
[[ $(jq -c '[.r, .lora_alpha, .target_modules]' "$folder/second/adapter/adapter_config.json") == '[4,8,["q_proj","v_proj"]]' ]] ||
  fail "rank, alpha and modules are not the adapter's"
[[ $(said second .trainable_parameters) == $(said first .trainable_parameters) ]] || fail "the number of trained parameters"
echo "ok: goes on where the adapter is, and learns"

run plain "$start, \"lora_dropout\": 0.0"
! cmp -s "$folder/plain/adapter/adapter_model.safetensors" "$folder/second/adapter/adapter_model.safetensors" ||
  fail "lora_dropout changed nothing"
refuse "lora_r: 7 here, but the adapter that training continues from has 4; leave it out" "$start, \"lora_r\": 7"
refuse "use_rslora: 1 here" "$start, \"use_rslora\": true"
refuse "target_modules: 'model.layers.0.self_attn.v_proj' is not named, but the adapter that training continues from has weights" \
  "$start, \"target_modules\": [\"q_proj\"]"
refuse "ModelAccessError: adapter_name_or_path: $folder/nowhere: there is no such adapter folder" \
  ", \"adapter_name_or_path\": \"$folder/nowhere\""
refuse "adapter_config.json is missing" ", \"adapter_name_or_path\": \"$folder\""
refuse "do not fit each other and its weight" "$start" tests/golden/models/gemma3
cp -r "$folder/first/adapter" "$folder/cut"
truncate -s 1000 "$folder/cut/adapter_model.safetensors"
refuse "adapter_model.safetensors" ", \"adapter_name_or_path\": \"$folder/cut\""
echo "ok: what does not fit is refused"
