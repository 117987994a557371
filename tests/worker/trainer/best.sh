#!/usr/bin/env bash
# Rows for evaluation of their own, the best model, early stopping, and that a resumed run decides the same.
# usage: best.sh TRAINER
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"
trainer=$1
export OMP_NUM_THREADS=1

# Other words: what is learned of the rows above harms these sooner or later.
for index in $(seq 1 5); do printf '{"input": "Sing %d", "output": "La, %d la!"}\n' "$index" "$index"; done >"$folder/other.jsonl"

steps=24
# run NAME [MORE_JSON [ARGUMENT...]]
run() {
  local name=$1 more=${2:-}
  shift
  (($# == 0)) || shift
  cat >"$folder/request.json" <<TEXT
{"task": "text-generation", "model_name": "$model", "dataset": "$folder/rows.jsonl", "bf16": false, "learning_rate": 0.02,
 "lr_scheduler_type": "constant", "warmup_ratio": 0, "max_steps": $steps, "eval_steps": 2$more}
TEXT
  "$trainer" run "$folder/request.json" --output "$folder/$name" "$@" >"$folder/$name.log" 2>&1 ||
    fail "$name: $(tail -n 3 "$folder/$name.log")"
}
# refuse WORDS MORE_JSON
refuse() {
  cat >"$folder/request.json" <<TEXT
{"task": "text-generation", "model_name": "$model", "dataset": "$folder/rows.jsonl"$2}
TEXT
  ! "$trainer" run "$folder/request.json" --output "$folder/refused" >"$folder/refused.log" 2>&1 || fail "not refused: $2"
  grep -qF -- "$1" "$folder/refused.log" || fail "$2: $(cat "$folder/refused.log")"
}

validation=", \"validation_dataset\": \"$folder/other.jsonl\""
run last "$validation"
[[ $(said last '[.dataset.train_rows, .dataset.eval_rows, .validation.rows]') == '[24,5,5]' ]] || fail "the counts of rows"
[[ $(said last .validation.sha256) == "\"$(sha256sum <"$folder/other.jsonl" | cut -d' ' -f1)\"" ]] || fail "the digest"
run own ', "eval_split": 0.2'
[[ $(said own '.results.evaluations[0].loss') != "$(said last '.results.evaluations[0].loss')" ]] ||
  fail "validation_dataset changed nothing"
best=$(said last '.results.evaluations | min_by(.loss) | .step')
[[ $(said last '.results.kept_step') == 24 && $best -lt 24 ]] || fail "the best of this run is step $best: the test tests nothing"

run best "$validation, \"load_best_model_at_end\": true, \"save_steps\": 1"
[[ $(said best '[.results.best.step, .results.kept_step, .results.steps]') == "[$best,$best,24]" ]] || fail "what was kept"
steps=$best
run until_best "$validation"
steps=24
[[ $(digest best) == "$(digest until_best)" && $(digest best) != "$(digest last)" ]] || fail "the best state's bits"
echo "ok: the best of 24 steps is that of step $best, bit by bit"

run early "$validation, \"early_stopping_patience\": 2"
stop=$((best + 4))
[[ $(said early '[.results.steps, .results.stopped_early, .results.kept_step]') == "[$stop,true,$stop]" ]] || fail "early stopping"
[[ $(said early '[.results.history[].step] | length') == "$stop" ]] || fail "the history of the steps"
grep -q "stopped after step $stop of 24: 2 evaluations were no better" "$folder/early.log" || fail "the log does not say so"
run both "$validation, \"early_stopping_patience\": 2, \"load_best_model_at_end\": true, \"metric_for_best_model\": \"perplexity\""
[[ $(said both '[.results.steps, .results.kept_step]') == "[$stop,$best]" && $(digest both) == "$(digest best)" ]] ||
  fail "early stopping with the best model"
echo "ok: two evaluations without a better one end the run at step $stop"

for step in 1 "$best" $((best + 1)) 23 24; do
  checkpoint=$(printf '%s/best/checkpoints/step-%08d' "$folder" "$step")
  run resumed "$validation, \"load_best_model_at_end\": true, \"save_steps\": 1" --resume "$checkpoint"
  [[ $(digest resumed) == "$(digest best)" ]] || fail "resumed after step $step it keeps other bits"
  rm -rf "$folder/resumed"
done
echo "ok: resumed before, at and after the best step it keeps the same"

echo '{"input": "Sing", "output": "Do re mi."}' >>"$folder/other.jsonl"
run_fails() { ! (run "$@") 2>"$folder/err" || fail "$1 should have failed"; }
run_fails changed "$validation, \"load_best_model_at_end\": true, \"save_steps\": 1" --resume "$folder/best/checkpoints/step-00000003"
grep -q "validation_dataset has changed since the checkpoint was written" "$folder/err" || fail "$(cat "$folder/err")"

# a checkpoint belongs to the base model whose bytes it was made from
cp -r "$model" "$folder/model"
model=$folder/model steps=4
run based ', "save_steps": 1'
checkpoint=$folder/based/checkpoints/step-00000002
run resumed ', "save_steps": 1' --resume "$checkpoint"
[[ $(digest resumed) == "$(digest based)" ]] || fail "the same model: other bits"
cp "$model/model.safetensors" "$folder/kept"
printf 'x' | dd of="$model/model.safetensors" bs=1 seek=100001 conv=notrunc status=none
run_fails changed ', "save_steps": 1' --resume "$checkpoint"
grep -q "the base model has changed since the checkpoint was written: $model/model.safetensors is another file" "$folder/err" ||
  fail "$(cat "$folder/err")"
mv "$folder/kept" "$model/model.safetensors"
echo '{}' >"$model/new.json"
run_fails changed ', "save_steps": 1' --resume "$checkpoint"
grep -q "$model/new.json is new" "$folder/err" || fail "$(cat "$folder/err")"
rm "$model/new.json"
echo "ok: a checkpoint of another base model is refused by name"

# save_total_limit: the newest ones stay, nothing of an interrupted removal, nothing of another run's later steps
steps=6
mkdir -p "$folder/few/checkpoints/step-00000009" "$folder/few/checkpoints/step-00000001.removed/part"
run few "$validation, \"load_best_model_at_end\": true, \"save_steps\": 1, \"save_total_limit\": 2"
[[ $(cd "$folder/few/checkpoints" && echo *) == "step-00000005 step-00000006 step-00000009" ]] ||
  fail "save_total_limit: $(ls "$folder/few/checkpoints")"
run resumed "$validation, \"load_best_model_at_end\": true, \"save_steps\": 1, \"save_total_limit\": 2" \
  --resume "$folder/few/checkpoints/step-00000005"
[[ $(digest resumed) == "$(digest few)" ]] || fail "resumed from one of the last: other bits"
echo "ok: save_total_limit keeps the newest"

refuse "rows for evaluation come from one of them" "$validation, \"eval_split\": 0.5"
refuse "nothing asks what is best" ', "metric_for_best_model": "eval_loss"'
refuse "without rows for evaluation" ', "load_best_model_at_end": true, "eval_split": 0'
refuse 'metric_for_best_model: "f1" is not one of eval_loss, eval_perplexity' ', "metric_for_best_model": "f1", "load_best_model_at_end": true'
refuse "nothing.jsonl" ', "validation_dataset": "nothing.jsonl"'
echo "ok: what contradicts itself is refused"
