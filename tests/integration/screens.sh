#!/usr/bin/env bash
# What a person sees: every command on a terminal of 80 columns, where no line is longer and nothing that one needs is cut.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

[[ -x $real_trainer ]] || fail "no $real_trainer"
set_up
write_config "$work/worker.conf" trainer.path="$real_trainer" worker.slots=2 worker.id=a-worker-with-quite-a-long-name-of-its-own \
  provider.grace_seconds=3600
start_worker "$work/worker.conf" "$work/worker.log"
for ((i = 1; i <= 40; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$work/rows.jsonl"
printf '{"task":"text-generation","model_name":"%s","dataset":"%s","device":"cpu","max_steps":40,"eval_steps":20,"logging_steps":1}' \
  "$PWD/tests/golden/models/tied-gqa" "$work/rows.jsonl" >"$work/request.json"

# on_screen COMMAND...: sets $seen to what stood on the terminal, without colours; lines that were drawn over count, too.
on_screen() {
  printf 'stty cols 80 rows 24\n%s' "$client_program" >"$work/run.sh"
  printf ' %q' "$@" >>"$work/run.sh"
  MODELFORGE_KAFKA_BOOTSTRAP_SERVERS=$brokers MODELFORGE_REGISTRY_URL=$registry_url MODELFORGE_DATABASE_URL=$database_url \
    MODELFORGE_TOPICS_REQUESTS=$requests MODELFORGE_TOPICS_COMMANDS=$commands MODELFORGE_TOPICS_EVENTS=$events \
    MODELFORGE_TOPICS_DLQ=$dlq TERM=xterm script -qec "bash $work/run.sh" /dev/null >"$work/typed" || :
  seen=$(tr '\r' '\n' <"$work/typed" | sed 's/\x1b\[[0-9;]*[A-Za-z]//g')
}
# Of UTF-8 every byte but the continuing ones is a cell. A single word that is longer may go on in the next line.
fits() {
  local LC_ALL=C long
  long=$(printf '%s\n' "${seen//[$'\x80'-$'\xBF']/}" | grep -E '^.{81}' | grep -v -E '^ *[^ ]+$|^[a-z_]+ +([0-9]+ +)?[^ ]+$|^2[-0-9]+ [:0-9+]+ .* [^ ]{25,}$' || :)
  [[ -z $long ]] || fail "wider than 80 columns: $long"
}
shows() { # WORDS...
  local words
  for words in "$@"; do grep -q -- "$words" <<<"$seen" || fail "no '$words' in: $seen"; done
  fits
}

on_screen submit "$work/request.json" --request-id a-request-with-a-name-of-some-length --watch
shows '^job ' 'succeeded in ' '^result  *steps 40, ' 'eval_loss [0-9]*\.[0-9]*' '^adapter  *file:///.*/adapter$'
grep -q $'\x1b\[32msucceeded' "$work/typed" || fail "success is not green"
on_screen submit "$work/request.json" --request-id failing --model-name /nowhere/at/all --max-attempts 1 --wait
submit waiting provider=unsloth-python
wait_state 30 waiting queued
wait_sql 30 t "SELECT waiting_reason <> '' FROM jobs WHERE request_id = 'waiting'"
on_screen status
shows '^request_id  *state ' '^a-request-.*succeeded  *40/40  *[0-9.]* ' '^failing  *failed .* model_not_found' '^waiting  *queued .* no live'
passed "modelforge status lists what waits, failed and succeeded"
on_screen status failing
shows '^error  *model_not_found: ' 'hf://organisation/name$'
on_screen history
shows 'outcome' 'failed .*model_not_found'
on_screen history a-request-with-a-name-of-some-length
shows 'training loss' 'adapter  *[0-9]* *file:///' '/adapter$'
on_screen events a-request-with-a-name-of-some-length
shows '^recorded_at ' '^2[-0-9]* [0-9:]*+[0-9]*  *artifact ' 'succeeded'
printf 'no avro at all' | kcat -P -b "$brokers" -t "$requests" -p 0
wait_sql 30 1 "SELECT count(*) FROM reject_log"
on_screen dlq list
shows 'not_avro' 'registry' 'framing$'
on_screen ingest status
shows 'next_offset'
on_screen queues
shows '^provider ' '^unsloth-python '
on_screen doctor
shows '^FAULT  *kafka ' 'to mend: '
for command in $("$client_program" complete ''); do
  on_screen "$command" --help
  shows '^usage: '
done
on_screen --help
shows '^  doctor ' '^  database.url '
on_screen providers
shows '^worker ' '^huggingface  *built-in' '^llama  *text-generation  *sft  *supported'
for ((i = 0; i < 3; i++)); do cat "$work/request.json"; echo; done >"$work/batch.jsonl"
sed 's/tied-gqa/gone/' "$work/request.json" >>"$work/batch.jsonl"
on_screen batch "$work/batch.jsonl" --batch-id nightly --watch
shows '^3 of 4 succeeded' 'model_not_found'
passed "each fits a terminal of 80 columns"

client --json status | jq -e 'map(.state) | index("queued") != null' >/dev/null || fail "status --json"
client --json submit "$work/request.json" --request-id machine --wait >"$work/out" || fail "submit --json --wait"
jq -s -e '.[0].accepted and .[1].state == "succeeded" and .[1].result.steps == 40' "$work/out" >/dev/null || fail "submit --json: $(cat "$work/out")"
NO_COLOR=1 on_screen status failing
! grep -q $'\x1b\[3[0-9]m' "$work/typed" || fail "colours though NO_COLOR is set"
client status | grep -q '^job_id .* note' || fail "into a pipe: all columns"
passed "JSON and pipes have it all, without colours"
stop_worker "$worker_pid"
echo "$checks checks passed"
