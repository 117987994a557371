#!/usr/bin/env bash
# modelforge submit --dry-run: needs no service, tells what the trainer tells, leaves nothing behind.
# usage: dry_run.sh MODELFORGE TRAINER
. "$(dirname "${BASH_SOURCE[0]}")/../worker/trainer/support.sh"
modelforge=$1
trainer=$2
export TMPDIR=$folder/temporary
mkdir "$TMPDIR"
for name in $(compgen -e MODELFORGE_ || true); do
  unset "$name"
done

cat >"$folder/request.json" <<TEXT
{"task": "text-generation", "model_name": "$model", "dataset": "$folder/rows.jsonl", "use_chat_template": true}
TEXT
with=(--set trainer.path="$trainer")

expect 0 '^steps +5, of them 1 warm-up; 4 rows each' "$modelforge" "${with[@]}" submit --dry-run "$folder/request.json"
grep -q -F '«It is 1.<|im_end|>' "$folder/output" || fail "no labels: $(cat "$folder/output")"
grep -q -E '^time +about .* of training at [0-9]+ tokens/s' "$folder/output" || fail "no time: $(cat "$folder/output")"

# Flags count, and --json is passed on.
"$modelforge" "${with[@]}" --json submit --dry-run "$folder/request.json" --num-train-epochs 2 \
  --max-seq-length 28 >"$folder/plan.json"
jq --exit-status '.steps.total == 10 and .rows.truncated > 0 and .memory.managed_bytes > 0 and
  .estimate.train_seconds > 0' "$folder/plan.json" >"$folder/verdict" || fail "$(cat "$folder/plan.json")"

head -n 3 "$folder/rows.jsonl" >"$folder/few.jsonl"
# What would fail later fails now.
expect 2 '^modelforge: RequestError: learning_rate' \
  "$modelforge" "${with[@]}" submit --dry-run "$folder/request.json" --learning-rate -1
expect 1 'DatasetError.*at least 10' "$modelforge" "${with[@]}" submit --dry-run "$folder/request.json" \
  --dataset "$folder/few.jsonl"
expect 1 'ResourceError.*memory_budget_gib 0.00' "$modelforge" "${with[@]}" submit --dry-run "$folder/request.json" \
  --memory-budget-gib 0.0001

# Without a trainer the request is checked all the same.
cp "$modelforge" "$folder/alone"
expect 0 'the request is valid; .*no modelforge-trainer' env PATH= "$folder/alone" submit --dry-run "$folder/request.json"
expect 2 'learning_rate' env PATH= "$folder/alone" submit --dry-run "$folder/request.json" --learning-rate -1
expect 2 'trainer.path: /nowhere' "$modelforge" --set trainer.path=/nowhere submit --dry-run "$folder/request.json"
[[ -z $(ls "$TMPDIR") ]] || fail "left behind: $(ls "$TMPDIR")"
