#!/usr/bin/env bash
# Providers that are shared libraries, through the queue: what a worker advertises, how a request chooses one by file, flag
# and event, and what is said of those that are not there, not fit, or crash.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
folder=$work/providers model=$PWD/tests/golden/models/tied-gqa
mkdir -m 755 "$folder"
install -m 755 "$MF_TEST_BUILD/lib/modelforge/providers/libmodelforge-provider-gguf.so" "$folder"
for case in good crash_model other_abi hang; do
  install -m 755 "$MF_TEST_BUILD/tests/providers/plugins/libmodelforge-provider-$case.so" "$folder"
done
export OMP_NUM_THREADS=1 MODELFORGE_TRAINER_PROVIDER_SECONDS=1
write_config "$work/worker.conf" trainer.path="$real_trainer" worker.slots=1 provider.grace_seconds=2 tenants="$requests=default" \
  providers.folder="$folder" providers.trusted="gguf,good,crash_model,other_abi,hang"
start_worker "$work/worker.conf" "$work/worker.log"
wait_sql 60 "{crash_model,gguf,good,huggingface,unsloth}" "SELECT array_agg(provider ORDER BY provider) FROM workers, UNNEST(providers) AS provider"
# Those that are refused are told, with the reason.
sql_is "provider_unavailable" "SELECT provider ->> 'code' FROM workers, jsonb_array_elements(details::jsonb -> 'trainer' -> 'providers') AS provider
  WHERE provider ->> 'name' = 'hang' AND provider ->> 'reason' LIKE '%was not loaded within 1 s'" || fail "what the worker says of a plug-in that hangs"
passed "a worker advertises the plug-ins that can be used, and says why the others cannot"

for index in $(seq 1 24); do printf '{"prompt": "Say %d", "completion": " It is %d."}\n' "$index" "$index"; done >"$work/rows.jsonl"
request() { # FILE MODEL [FILTER]
  jq -n --arg model "$2" --arg rows "$work/rows.jsonl" '{task: "text-generation", model_name: $model, dataset: $rows,
    max_steps: 2, max_attempts: 1, bf16: false, device: "cpu"}'" | ${3:-.}" >"$work/$1.json"
}
send() { # ID FILE [OPTION]...: by the client, from a file
  client submit "$work/$2.json" --request-id "$1" "${@:3}" >"$work/submit.log" 2>&1 || fail "submit $1: $(cat "$work/submit.log")"
}
ends() { # ID STATE [ERROR]
  wait_sql 90 "$2" "SELECT state FROM jobs WHERE request_id = '$1'"
  [[ -z ${3:-} ]] || sql_is "$3" "SELECT error_message FROM jobs WHERE request_id = '$1'" ||
    fail "$1: $(sql "SELECT error_message FROM jobs WHERE request_id = '$1'")"
}

# ---- a model in a GGUF file, made here; the provider is named in the file
jq -n --arg model "$model" --arg rows "$work/rows.jsonl" '{task: "text-generation", model_name: $model, dataset: $rows, max_steps: 1,
  bf16: false, device: "cpu"}' >"$work/first.json"
"$real_trainer" run "$work/first.json" --output "$work/first" >"$work/first.log" 2>&1 || fail "the first run"
"$real_trainer" merge --model "$model" --adapter "$work/first/adapter" --output "$work/merged" --gguf f16 >"$work/merge.log" 2>&1 || fail "merge"
request file "$work/merged/model.gguf" '.provider = "gguf"'
send by-file file
ends by-file succeeded
request plain "$work/merged/model.gguf"
send by-flag plain --provider gguf
ends by-flag succeeded
submit by-event provider=gguf device=cpu max_steps=2 max_attempts=1 model_name="$work/merged/model.gguf" dataset="$work/rows.jsonl"
ends by-event succeeded
sql_is "gguf|3" "SELECT provider, count(*) FROM run_history WHERE outcome = 'succeeded' GROUP BY 1" || fail "the history: $(sql 'SELECT provider, outcome FROM run_history')"
[[ -z $(find "$work/worker" "$work/storage" -name 'modelforge-model-*') ]] || fail "a made folder is still there"
passed "a request chooses a plug-in by file, by flag and by event; it trains from the GGUF file"

# ---- what goes wrong ends one job
request crash "$model" '.provider = "crash_model"'
send crash crash
ends crash failed
sql_is trainer_crashed "SELECT error_code FROM jobs WHERE request_id = 'crash'" || fail "the code of a crash"
request setting "$work/merged/model.gguf" '.provider = "gguf" | .provider_config = {speed: "high"}'
send setting setting
ends setting failed "RequestError: provider_config.speed: gguf has no such setting (it has dtype)"
request strategy "$model" '.provider = "good" | .strategy = "qlora"'
send strategy strategy
ends strategy failed "ProviderError: good cannot train llama for text-generation with qlora: this is a test. What it trains here: llama (text-generation, sft)"
request unknown "$model" '.provider = "xyz"'
send unknown unknown
wait_sql 60 1 "SELECT count(*) FROM jobs WHERE request_id = 'unknown' AND (waiting_reason LIKE '%xyz%' OR state = 'failed')"
ends unknown failed
sql_is t "SELECT error_message LIKE 'ProviderError: Unknown provider ''xyz''. Valid providers: crash_model, gguf, good, huggingface, unsloth%' FROM jobs WHERE request_id = 'unknown'" ||
  fail "the list: $(sql "SELECT error_message FROM jobs WHERE request_id = 'unknown'")"
request after "$model" '.provider = "good"'
send after after
ends after succeeded
passed "a crash, an unknown setting, strategy or name end one job, with the reason; the worker goes on"

stop_worker "$worker_pid"
echo "$checks checks passed"
