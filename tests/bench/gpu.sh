#!/usr/bin/env bash
# The GPU rows of RESULTS.md: W1 (2 sequences of 4,096 tokens a step) and W2 (1,000 short rows, batch 2 x 4), LoRA of
# rank 16 on all linear layers, dropout 0, nothing evaluated.
# usage: gpu.sh TRAINER PYTHON TOKENIZER_FOLDER WORK_FOLDER w1|w2 135m|3b|8b [bf16|nf4 [unsloth|huggingface [GIB]]]
# PYTHON has torch and safetensors. GIB is a memory_budget_gib, or `least`: the smallest that the trainer says would fit.
# Prints one line: median step, tokens a second without the first two steps, the sum of all steps, first and last loss,
# the plan's memory and what the driver says of it; and the ledger of a step.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
(($# >= 6)) || {
  sed -n 's/^# //p' "$0" >&2
  exit 2
}
trainer=$1 python=$2 tokenizer=$3 work=$4 case=$5 shape=$6 weights=${7:-bf16} provider=${8:-unsloth} budget=${9:-}
strategy=sft
[[ $weights != nf4 ]] || strategy=qlora
mkdir -p "$work"
[[ -e $work/$shape/config.json ]] || "$python" "$here/gpu_model.py" model "$shape" "$tokenizer" "$work/$shape"
[[ -e $work/short.jsonl ]] || "$python" "$here/gpu_model.py" rows "$here/../golden/paragraph.txt" "$work"
case $case in
  w1) rows=long.jsonl length=4096 more='"gradient_accumulation_steps": 1, "max_steps": 12' ;;
  w2) rows=short.jsonl length=512 more='"gradient_accumulation_steps": 4, "num_train_epochs": 1' ;;
  *) exit 2 ;;
esac
request=$work/$case-$shape-$weights-$provider.json
write_request() { # [MEMORY_BUDGET_GIB]
  local budget_field=
  [[ -z $1 ]] || budget_field=", \"memory_budget_gib\": $1"
  cat >"$request" <<JSON
{"task": "text-generation", "model_name": "$work/$shape", "dataset": "$work/$rows", "submitted_by": "bench", "provider": "$provider",
 "strategy": "$strategy", "device": "cuda", "bf16": true, "use_chat_template": false, "train_on": "all",
 "max_seq_length": $length, "per_device_train_batch_size": 2, "learning_rate": 2e-4, "lora_r": 16, "lora_alpha": 32,
 "lora_dropout": 0, "group_by_length": false, "eval_split": 0, "seed": 7, $more$budget_field}
JSON
}
if [[ $budget == least ]]; then
  write_request 0.01
  budget=$({ "$trainer" plan --no-probe "$request" 2>&1 || true; } | sed -En 's/.*would fit: memory_budget_gib ([0-9.]+).*/\1/p')
  [[ -n $budget ]] || { echo "no refusal that names the smallest plan" >&2 && exit 1; }
fi
write_request "$budget"
"$trainer" run "$request" --output "$work/out-$case" >"$work/$case.log" 2>&1 || {
  tail -n 20 "$work/$case.log" >&2
  exit 1
}
"$python" - "$work/out-$case/training.json" "$case $shape $weights $provider" <<'PYTHON'
import json, statistics, sys
record = json.load(open(sys.argv[1]))
steps = record["results"]["history"]
warm = steps[2:]
print(f"{sys.argv[2]}: median step {statistics.median(s['seconds'] for s in warm):.4f} s, "
      f"{sum(s['tokens'] for s in warm) / sum(s['seconds'] for s in warm):.0f} tokens/s, {len(steps)} steps in "
      f"{sum(s['seconds'] for s in steps):.2f} s, loss {steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}, "
      f"managed {record['managed_bytes'] / 2**30:.2f} GiB, {record['memory']}")
device = record["device_memory"]
if device:
    print("memory: planned %.1f MiB + %.1f beside it, the driver says %.1f%s" % (
        *(device[key] / 2**20 for key in ("planned_bytes", "beside_bytes", "used_bytes")),
        "" if device["as_planned"] else ": NOT AS PLANNED"))
PYTHON
"$trainer" plan --ledger "$request" 2>"$work/$case-plan.log" | sed -n '/^a step/,$p'
