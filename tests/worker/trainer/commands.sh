#!/usr/bin/env bash
# The subcommands as a person types them.  usage: commands.sh TRAINER
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"
trainer=$1

cat >"$folder/request.json" <<TEXT
{"task": "text-generation", "model_name": "$model", "dataset": "$folder/rows.jsonl", "bf16": false,
 "use_chat_template": true, "learning_rate": 0.005, "num_train_epochs": 2, "logging_steps": 4}
TEXT

expect 2 'usage' "$trainer"
expect 2 "no command 'fly'" "$trainer" fly
expect 0 'generate' "$trainer" --help
expect 2 'REQUEST.json is needed' "$trainer" run
expect 2 'model is needed' "$trainer" score
expect 2 'dtype must be' "$trainer" score --model x --text y --dtype int4
expect 2 'unknown option' "$trainer" score --model x --prompt y
expect 1 '^InfrastructureError: .*nothing.json' "$trainer" run "$folder/nothing.json"

mkdir "$folder/claimed"
expect 1 "^InfrastructureError: $folder/claimed: another run writes into this folder; .* --output" \
  flock "$folder/claimed" "$trainer" run "$folder/request.json" --output "$folder/claimed"
[[ -z $(ls "$folder/claimed") ]] || fail "a run into a folder of another run wrote something"

# run alone: plain lines, means over logging_steps, the last step always
expect 0 '^done: 10 steps, [0-9]+ tokens in 0:[0-9]+, training loss [0-9.]+, evaluation loss' \
  "$trainer" run "$folder/request.json" --output "$folder/out"
[[ $(grep -c '^step ' "$folder/output") == 3 ]] || fail "not three step lines: $(cat "$folder/output")"
grep -q '^step 10/10 ' "$folder/output" || fail "the last step is not shown"
grep -q -F "adapter: $folder/out/adapter (" "$folder/output" || fail "the adapter is not named"

# training.json says what is needed to repeat the run
jq --exit-status --arg dataset "$(sha256sum "$folder/rows.jsonl" | cut -d ' ' -f 1)" \
  --arg weights "$(sha256sum $model/model.safetensors | cut -d ' ' -f 1)" '
  .request.learning_rate == 0.005 and .request.seed == 42 and .seed == 42 and .dataset.sha256 == $dataset
  and ([.model.files[] | select(.name == "model.safetensors").sha256] == [$weights])
  and .dataset.train_rows == 19 and .dataset.eval_rows == 5 and .results.steps == 10
  and (.results.history | length) == 10 and (.results.evaluations | length) == 1
  and .results.evaluations[0].step == 10 and .versions.compute_dtype == "f32"
  and (.numeric_plan_sha256 | length) == 64 and (.numeric_plan | type) == "object"' "$folder/out/training.json" \
  >"$folder/verdict" || fail "training.json: $(cat "$folder/out/training.json")"

# plan: what run did, without doing it
expect 0 '^steps +10, of them 1 warm-up; 4 rows each' "$trainer" plan "$folder/request.json"
grep -q -F '<|im_start|>assistant' "$folder/output" || fail "no first row: $(cat "$folder/output")"
grep -q -F '«It is 1.<|im_end|>' "$folder/output" || fail "no labels: $(cat "$folder/output")"
grep -q -F "$(jq --raw-output .numeric_plan_sha256 "$folder/out/training.json")" "$folder/output" ||
  fail "plan and run have different numeric plans"

expect 2 'unknown option' "$trainer" plan "$folder/request.json" --fly
expect 0 '^ +[0-9.]+ MiB optimizer' "$trainer" plan "$folder/request.json" --no-probe
! grep -q '^time' "$folder/output" || fail "an estimate without a probe: $(cat "$folder/output")"
"$trainer" plan "$folder/request.json" --json --ledger >"$folder/plan.json"
jq --exit-status --slurpfile run "$folder/out/training.json" '
  .rows.train == 19 and .rows.evaluate == 5 and .steps.total == 10 and .steps.warmup == 1
  and .memory.managed_bytes == $run[0].managed_bytes and .numeric_plan_sha256 == $run[0].numeric_plan_sha256
  and .memory.managed_bytes == ([.memory.kinds[]] | add) and .memory.pass_tokens == $run[0].pass_tokens
  and ([.first_row.parts[] | select(.labelled).text] | join("|") | startswith("It is 1."))
  and .first_row.tokens == ([.first_row.parts[].tokens] | add)
  and .estimate.train_seconds > 0 and .estimate.evaluations == 1
  and ([.ledger[] | select(.op == "linear" and .phase == "forward").flop] | add) > 1e6
  and ([.ledger[].measured_seconds] | add) > 0' "$folder/plan.json" >"$folder/verdict" ||
  fail "plan --json: $(cat "$folder/plan.json")"

# rows of their own for evaluation, more of them than train
for index in $(seq 1 40); do
  printf '{"input": "Tell %d", "output": "%d it is, and it stays so."}\n' "$index" "$index"
done >"$folder/validation.jsonl"
jq --arg rows "$folder/validation.jsonl" '. + {validation_dataset: $rows, load_best_model_at_end: true, eval_steps: 4}' \
  "$folder/request.json" >"$folder/validated.json"
"$trainer" plan "$folder/validated.json" --json >"$folder/plan.json"
jq --exit-status --arg rows "$folder/validation.jsonl" '
  .rows.validation_path == $rows and .rows.train == 24 and .rows.evaluate == 40 and .estimate.evaluations == 3
  and .estimate.evaluate_seconds > 0 and .memory.kinds.best == .memory.kinds.parameters
  and .memory.managed_bytes == ([.memory.kinds[]] | add)' "$folder/plan.json" >"$folder/verdict" ||
  fail "plan --json: $(cat "$folder/plan.json")"

# evaluate, score and generate agree with each other and see the adapter
base=$("$trainer" evaluate --model $model --dataset "$folder/rows.jsonl" --chat --json | jq .loss)
tuned=$("$trainer" evaluate --model $model --adapter "$folder/out/adapter" --dataset "$folder/rows.jsonl" --chat \
  --json | jq .loss)
oracle=$("$trainer" evaluate --model $model --adapter "$folder/out/adapter" --dataset "$folder/rows.jsonl" --chat \
  --json --reference | jq .loss)
jq --exit-status --null-input "$tuned < $base - 0.5 and (($tuned - $oracle) | fabs) < 1e-4" >/dev/null ||
  fail "evaluate: base $base, tuned $tuned, oracle $oracle"
printf 'It is 3.\n' >"$folder/text"
printf '{"text": "It is 3."}\n' >"$folder/text.jsonl"
expect 0 '"labels":[1-9]' "$trainer" score --model $model --text "$folder/text" --json
jq --exit-status '(.log_probabilities | length) == .labels and .tokens == .labels + 1
  and (((.log_probabilities | add) / .labels + .loss) | fabs) < 1e-6' <(grep '^{' "$folder/output") >/dev/null ||
  fail "score: the log-probabilities are not those of the loss: $(cat "$folder/output")"
expect 0 '^1 rows, [0-9]+ tokens, [0-9]+ labels: loss [0-9.]+, perplexity' \
  "$trainer" evaluate --model $model --dataset "$folder/text.jsonl"
expect 0 '"prompt_tokens":[1-9]' "$trainer" generate --model $model --adapter "$folder/out/adapter" \
  --prompt 'Say 3' --max-new-tokens 5 --json
jq --exit-status '.tokens | length <= 5' <(grep '^{"text"' "$folder/output") >/dev/null || fail "too long an answer"
expect 1 '^ModelAccessError: ' "$trainer" generate --model $model --adapter "$folder" --prompt x
expect 1 '^RequestError: .*128 positions' "$trainer" generate --model $model --prompt x --max-new-tokens 500

# an adapter that was trained over quantised weights is evaluated over them, and not over the whole ones
jq --arg rows "$folder/validation.jsonl" '. + {validation_dataset: $rows, use_4bit: true, use_nested_quant: true, max_steps: 3}' \
  "$folder/request.json" >"$folder/quantized.json"
expect 0 '^done: 3 steps' "$trainer" run "$folder/quantized.json" --output "$folder/quantized"
said=$(jq '.results.evaluations[-1].loss' "$folder/quantized/training.json")
over() { # the loss over weights that are quantised as the options say, less what the run said
  "$trainer" evaluate --model $model --adapter "$folder/quantized/adapter" --dataset "$folder/validation.jsonl" --chat --json "$@" |
    jq --argjson said "$said" '(.loss - $said) | fabs'
}
jq --exit-status --null-input "$(over --quantization nf4 --nested-quantization) < 1e-6 and $(over --quantization nf4) > 1e-6
  and $(over --quantization int8) > 1e-4 and $(over) > 1e-4" >/dev/null ||
  fail "evaluate over quantised weights: run said $said; $(over --quantization nf4 --nested-quantization), $(over)"
expect 2 'quantization must be none, nf4' "$trainer" score --model x --text y --quantization q4_0
expect 2 'nested-quantization needs' "$trainer" score --model x --text y --quantization int8 --nested-quantization

# output: exactly what it names is written and announced, and training.json always
jq '.output = ["merged_16bit", "gguf"]' "$folder/request.json" >"$folder/outputs.json"
mkfifo "$folder/commands"
("$trainer" run "$folder/outputs.json" --output "$folder/outputs" 3>&1 >"$folder/output" 2>&1 4<>"$folder/commands") |
  cat >"$folder/events" || fail "run under a worker: $(tail -n 1 "$folder/events")"
[[ $(jq --raw-output 'select(.type == "artifact") | .kind + " " + .path' "$folder/events") == "merged_16bit $folder/outputs/merged_16bit
gguf $folder/outputs/model.gguf
training_json $folder/outputs/training.json" ]] || fail "other artifacts: $(grep artifact "$folder/events")"
[[ ! -e $folder/outputs/adapter ]] || fail "an adapter that nobody asked for"

# merge writes the same bytes; both forms predict as the adapter does
expect 0 'merged: 14 modules merged; model.gguf beside' "$trainer" merge --model $model   --adapter "$folder/out/adapter" --output "$folder/merged" --gguf q8_0
cmp "$folder/merged/model.gguf" "$folder/outputs/model.gguf" || fail "another model.gguf"
diff -r --exclude model.gguf "$folder/merged" "$folder/outputs/merged_16bit" || fail "another merged folder"
expect 0 'wide: 14 modules merged' "$trainer" merge --model $model --adapter "$folder/out/adapter"   --output "$folder/wide" --dtype f32
expect 0 'parameters in 20 tensors' "$trainer" convert "$folder/outputs/model.gguf" "$folder/back"
# near FOLDER TOLERANCE: its loss over the rows is the adapter's
near() {
  local loss
  loss=$("$trainer" evaluate --model "$folder/$1" --dataset "$folder/rows.jsonl" --chat --json | jq .loss)
  jq --exit-status --null-input "(($loss - $tuned) | fabs) <= $2" >/dev/null || fail "$1: loss $loss, not $tuned"
}
near wide 1e-4
near merged 1e-2
near back 5e-2

# a folder used again: what the new training.json does not speak of goes, but nothing that was no run's
mkdir "$folder/own"
echo mine >"$folder/own/model.gguf"
expect 0 '^done' "$trainer" run "$folder/request.json" --output "$folder/own"
[[ $(cat "$folder/own/model.gguf") == mine ]] || fail "a file that no run wrote was removed"
expect 0 "info: $folder/outputs/model.gguf is of an earlier run: removed" "$trainer" run "$folder/request.json" --output "$folder/outputs"
[[ $(find "$folder/outputs" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs) == "adapter training.json" ]] ||
  fail "outputs of an earlier run stay: $(ls "$folder/outputs")"

# refused by name, before anything is trained or written
expect 2 '^modelforge-trainer merge: --gguf must be' "$trainer" merge --model x --adapter y --output z --gguf q4_0
expect 2 '^modelforge-trainer merge: --model, --adapter and --output' "$trainer" merge --model x --output z
expect 1 '^ModelAccessError: .*adapter' "$trainer" merge --model tests/golden/models/mistral   --adapter "$folder/out/adapter" --output "$folder/none"
expect 1 '^RequestError: output: gguf: a model with a query_pre_attn_scalar of its own' "$trainer" merge --gguf f16 --output "$folder/none"   --model tests/golden/models/gemma2 --adapter tests/golden/models/gemma2/adapter
jq '.model_name = "tests/golden/models/gemma2"' "$folder/outputs.json" >"$folder/refused.json"
expect 1 'RequestError: output: gguf: a model with a query_pre_attn_scalar' "$trainer" run "$folder/refused.json"   --output "$folder/none"
! grep -q '^step' "$folder/output" || fail "trained before it refused: $(cat "$folder/output")"
[[ -z $(find "$folder/none" "$folder/none.partial" -mindepth 1 2>/dev/null) ]] || fail "something was written"

expect 0 '"name":"huggingface"' "$trainer" providers --json
expect 0 'llama +text-generation +sft +supported' "$trainer" providers
expect 1 '^ModelAccessError: ' "$trainer" convert "$folder/rows.jsonl" "$folder/converted"
echo "all commands behave"
