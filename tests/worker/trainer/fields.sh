#!/usr/bin/env bash
# No field of a request is ignored: each gets a value that is not its default, and then the run's record or its files
# are others, or the trainer refuses it by name. The fields are those of the generated Avro schema, so that a new one
# without a case fails here.
# usage: fields.sh TRAINER
set -euo pipefail
trainer=$1
model=tests/golden/models/tied-gqa
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMP_NUM_THREADS=1

for index in $(seq 1 24); do
  printf '{"input": "Say %d", "output": "It is %d%s."}\n' "$index" "$index" "$(printf ' and %.0s' $(seq 1 $((index % 5))))"
done >"$folder/rows.jsonl"
for index in $(seq 1 12); do printf '{"input": "Sing %d", "output": "La, %d la!"}\n' "$index" "$index"; done >"$folder/other.jsonl"

usual="{\"task\": \"text-generation\", \"model_name\": \"$model\", \"dataset\": \"$folder/rows.jsonl\", \"bf16\": false,
  \"max_steps\": 3, \"learning_rate\": 0.01, \"warmup_ratio\": 0, \"per_device_train_batch_size\": 2,
  \"gradient_accumulation_steps\": 2}"

# FIELD -> what is set. What the field needs beside it, which the run that it is compared with has too, is in `beside`.
declare -A value=() beside=()
# queue: read by the queue, not by the trainer; tests/integration/fields.sh sees what it changes there.
queue='request_id tenant submitted_by batch_id priority run_at deadline max_attempts preemptible labels metadata'
# read where a run goes on from a checkpoint: tests/worker/trainer/test_run.c
resumed='exact_resume'
# refused by what the run finds, not by the table: a folder has no revisions, nobody provides under that name, one GPU is
# all that it trains on, and none is that large
by_run='revision provider provider_config gpus min_gpu_memory_gib'

value[task]='"summarization"'
value[model_name]='"tests/golden/models/mistral"'
value[revision]='"main"'
value[provider]='"nobody"'
value[provider_config]='{"a": "b"}' # huggingface has no settings and says so
value[strategy]='"qlora"'
value[strategy_config]='{"beta": "0.1"}'
value[dataset]="\"$folder/other.jsonl\""
value[validation_dataset]="\"$folder/other.jsonl\""
value[device]='"mps"'
value[gpus]=2
value[min_gpu_memory_gib]=4000
value[device_map]='"balanced"'
value[compute_specs]='"low_end"'
value[memory_budget_gib]=0.01
value[finetuning]='"full"'
value[lora_r]=4
value[lora_alpha]=8
value[lora_dropout]=0.5
value[target_modules]='["q_proj"]'
value[use_rslora]=true
value[modules_to_save]='["lm_head"]'
value[adapter_name_or_path]="\"$folder/usual/adapter\""
value[use_4bit]=true
value[use_8bit]=true
value[bnb_4bit_quant_type]='"fp4"' beside[bnb_4bit_quant_type]='"use_4bit": true'
value[bnb_4bit_compute_dtype]='"bfloat16"' beside[bnb_4bit_compute_dtype]='"use_4bit": true, "bf16": null, "bnb_4bit_compute_dtype": "float32"'
value[use_nested_quant]=true beside[use_nested_quant]='"use_4bit": true'
value[fp16]=true
value[bf16]=true
value[num_train_epochs]=2 beside[num_train_epochs]='"max_steps": -1'
value[max_steps]=2
value[per_device_train_batch_size]=3
value[per_device_eval_batch_size]=16
value[gradient_accumulation_steps]=1
value[max_grad_norm]=0.01
value[learning_rate]=0.02
value[weight_decay]=0.9
value[optim]='"sgd"'
value[adam_beta1]=0.5
value[adam_beta2]=0.5
value[adam_epsilon]=0.1
value[lr_scheduler_type]='"linear"'
value[lr_scheduler_kwargs]='{"num_cycles": 2}'
value[warmup_ratio]=0.9
value[warmup_steps]=2
value[seed]=7
value[deterministic]=false
value[max_seq_length]=40
value[on_overflow]='"drop"' beside[on_overflow]='"max_seq_length": 40'
value[train_on]='"all"'
value[use_chat_template]=true
value[chat_template]='"{% for m in messages %}{{ m.content }};{% endfor %}"' beside[chat_template]='"use_chat_template": true'
value[group_by_length]=false
value[packing]=true beside[packing]='"max_seq_length": 64'
value[eval_split]=0.4
value[eval_steps]=2
value[logging_steps]=2
value[early_stopping_patience]=1 beside[early_stopping_patience]='"eval_steps": 1, "learning_rate": 0.9, "max_steps": 9, "lr_scheduler_type": "constant"'
value[load_best_model_at_end]=true beside[load_best_model_at_end]=${beside[early_stopping_patience]}
value[metric_for_best_model]='"eval_perplexity"' beside[metric_for_best_model]='"load_best_model_at_end": true'
value[save_steps]=1
value[save_total_limit]=1 beside[save_total_limit]='"save_steps": 1'
value[output]='["merged_16bit"]'

# run NAME JSON: what came of it in NAME.came; false when the trainer refused it.
run() {
  printf '%s\n' "$2" >"$folder/$1.json"
  "$trainer" run "$folder/$1.json" --output "$folder/$1" >"$folder/$1.log" 2>&1 || return 1
  # All but the request itself and what no two runs have in common; the names of what was written, and the adapter.
  {
    jq -S 'del(.request, .created_at, .run, .results.train_seconds, .results.history[].seconds)' "$folder/$1/training.json"
    grep -oE '^step [0-9]+/[0-9]+ +epoch [0-9.]+ +loss [0-9.]+' "$folder/$1.log" || :
    (cd "$folder/$1" && find . -type f | sort && find . -name 'adapter_*' -print0 | sort -z | xargs -0r sha256sum)
  } >"$folder/$1.came"
}
merged() { jq -cn --argjson usual "$usual" --argjson more "{$1}" '$usual * $more'; }

run usual "$usual" || { cat "$folder/usual.log" >&2 && exit 1; }
run again "$usual"
cmp "$folder/usual.came" "$folder/again.came" || { echo "FAILED: two runs of one request differ: nothing can be told" >&2 && exit 1; }

# Memory for most of what the usual run keeps, so that something has to be computed again.
value[gradient_checkpointing]=false
beside[gradient_checkpointing]="\"memory_budget_gib\": $(jq '.managed_bytes * 0.95 / 1073741824' "$folder/usual/training.json")"

declare -A baseline=([none]=usual)
failed=0 changed=0 refused=0
problem() { echo "FAILED: $*" >&2 && failed=$((failed + 1)); }
# check FIELD: FIELDS.md says which fields and values are refused.
check() {
  local field=$1 more=${beside[$1]:-} key before
  key=${more:-none}
  if [[ -z ${baseline[$key]:-} ]]; then
    baseline[$key]=beside-$field
    run "beside-$field" "$(merged "$more")" || { problem "$field: the run without it: $(tail -n 1 "$folder/beside-$field.log")" && return; }
  fi
  before=${baseline[$key]}
  if run "with-$field" "$(merged "${more:+$more, }\"$field\": ${value[$field]}")"; then
    changed=$((changed + 1))
    ! cmp -s "$folder/$before.came" "$folder/with-$field.came" || problem "$field: ${value[$field]} changes nothing"
  else
    refused=$((refused + 1))
    grep -qE "Error: ($field(\.[a-z]+)?: |.*'${value[$field]//\"/}')" "$folder/with-$field.log" ||
      problem "$field: ${value[$field]} is neither obeyed nor refused by name: $(tail -n 1 "$folder/with-$field.log")"
    [[ " $by_run " == *" $field "* ]] || grep -qE "^\| \`$field\`.*refused" schemas/FIELDS.md ||
      problem "$field: ${value[$field]} is refused, but schemas/FIELDS.md does not say so"
  fi
  rm -rf "$folder/with-$field"
}

mapfile -t fields < <(jq -r '.fields[].name' schemas/TrainingRequest.avsc)
((${#fields[@]} > 60)) || problem "only ${#fields[@]} fields in the schema"
for field in "${fields[@]}"; do
  if [[ " $queue $resumed " == *" $field "* ]]; then
    continue
  elif [[ -z ${value[$field]:-} ]]; then
    problem "$field: there is no case for it here"
  else
    check "$field"
  fi
done

# Every optimiser and schedule trains in its own way, and whatever else it is called is the same. Moments of 8 bits are
# kept of tensors of 4,096 elements and more.
adapters() { # FIELD MORE VALUE...: prints each value and the adapter that it gives
  local field=$1 more=$2 one
  for one in "${@:3}"; do
    run value "$(merged "$more, \"$field\": \"$one\"")" || problem "$field: $one: $(tail -n 1 "$folder/value.log")"
    printf '%s %s\n' "$one" "$(sha256sum <"$folder/value/adapter/adapter_model.safetensors")"
    rm -rf "$folder/value"
  done
}
distinct() { awk '{print $2}' | sort -u | wc -l; }
mapfile -t optimizers < <(adapters optim '"lora_r": 128' adamw_torch adamw_torch_fused paged_adamw_32bit paged_adamw \
  adamw_8bit adamw_bnb_8bit paged_adamw_8bit sgd)
[[ $(printf '%s\n' "${optimizers[@]:0:4}" | distinct) == 1 && $(printf '%s\n' "${optimizers[@]:4:3}" | distinct) == 1 &&
  $(printf '%s\n' "${optimizers[@]}" | distinct) == 3 ]] || problem "optimisers: $(printf '%s\n' "${optimizers[@]}")"
# With Transformers' default of one cycle, restarts change nothing within a run.
mapfile -t schedules < <(adapters lr_scheduler_type '"max_steps": 4, "warmup_ratio": 0' cosine cosine_with_restarts linear \
  constant polynomial inverse_sqrt)
[[ $(printf '%s\n' "${schedules[@]:0:2}" | distinct) == 1 && $(printf '%s\n' "${schedules[@]}" | distinct) == 5 ]] ||
  problem "schedules: $(printf '%s\n' "${schedules[@]}")"
mapfile -t schedules < <(adapters lr_scheduler_type '"max_steps": 4, "warmup_ratio": 0.5' constant_with_warmup linear)
[[ $(printf '%s\n' "${schedules[@]}" | distinct) == 2 ]] || problem "schedules: $(printf '%s\n' "${schedules[@]}")"
mapfile -t schedules < <(
  adapters lr_scheduler_type '"max_steps": 4, "lr_scheduler_kwargs": {"num_cycles": 2}' cosine cosine_with_restarts
  adapters lr_scheduler_type '"max_steps": 4, "lr_scheduler_kwargs": {"min_lr": 0.001}' cosine_with_min_lr
  adapters lr_scheduler_type '"max_steps": 4, "lr_scheduler_kwargs": {"num_decay_steps": 2}' warmup_stable_decay
)
[[ $(printf '%s\n' "${schedules[@]}" | distinct) == 4 ]] || problem "schedules: $(printf '%s\n' "${schedules[@]}")"

for field in "${!value[@]}"; do
  [[ " ${fields[*]} " == *" $field "* ]] || problem "$field: there is no such field"
done
((failed == 0)) || exit 1
echo "ok: $changed fields change the run, $refused are refused by name"
