#!/usr/bin/env bash
# tests/errors.tsv: what a user gets for each kind of bad input, through a real worker and the real trainer.
# Columns: input (sent by the function of that name below), code, exact text ({...} is filled in here), the job's state
# ("-": there is no job, the record is in ingest_rejects), dlq ("yes": the original bytes with headers are on the
# dead-letter topic). Rows with the state "client N" are what the modelforge command says, with that exit status. Rows with
# the state "exit N" are produced by tests/worker/trainer/faults.sh, which runs the trainer
# alone; it also checks that every code of common/errors.def has a row, or a line that begins with "#" and says where it is met.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

[[ -x $real_trainer ]] || fail "no $real_trainer"
set_up
mkdir "$work/providers"
cp tests/worker/trainer/program.sh "$work/program.sh"
for name_ in liar falls-while-running; do printf 'exec = %s\n' "$work/program.sh" >"$work/providers/$name_.conf"; done
chmod -R go-w "$work"
export HF_ENDPOINT=http://127.0.0.1:9 HF_HOME=$work/hub
unset HF_TOKEN
write_config "$work/worker.conf" trainer.path="$real_trainer" worker.slots=3 worker.gpus=none provider.grace_seconds=2 ingest.schema_wait=1 \
  tenants="$requests=default" tenants.roots="*=/,hf://,https://127.0.0.1:9/" \
  providers.folder="$work/providers" providers.trusted=liar,falls-while-running
start_worker "$work/worker.conf" "$work/worker.log"

model=$PWD/tests/golden/models/tied-gqa
rows() { # COUNT FILE
  local i
  for ((i = 1; i <= $1; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$2"
}
rows 20 "$work/good.jsonl"

# ---- the inputs
request() { # INPUT [NAME=VALUE]...
  submit "$1" device=cpu max_attempts=1 max_steps=2 model_name="$model" dataset="$work/good.jsonl" "${@:2}"
}
raw() { kcat -P -b "$brokers" -t "$requests" -k "default/$1" "$2"; } # INPUT FILE

not_avro() {
  printf '{"task": "text-generation"}' >"$work/raw"
  raw "$1" "$work/raw"
}
empty_message() { printf 'default/%s:\n' "$1" | kcat -P -b "$brokers" -t "$requests" -K :; }
unknown_schema_id() {
  "$send_raw" "$brokers" "$registry_url" "$requests" frame:4000000 "default/$1" request_id="$1" >/dev/null
}
truncated_avro() {
  local id
  id=$(curl -fsS "$registry_url/subjects/$requests-value/versions/latest" | jq .id)
  # shellcheck disable=SC2059 # the format is the bytes
  printf "\\x00$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((id >> 24 & 255)) $((id >> 16 & 255)) $((id >> 8 & 255)) $((id & 255)))\\x1e" >"$work/raw"
  raw "$1" "$work/raw"
}
gpu_missing() { request "$1" device=cuda; }
unknown_provider() { request "$1" provider=xyz; }
field_out_of_range() { request "$1" learning_rate=0.123456789 "#0.123456789=3"; }
unsupported_feature() { request "$1" strategy=sft ~sft=dpo; }
unknown_tenant() { request "$1" tenant=team-b; }
same_id_other_content() {
  request "$1" run_at=2999-01-01T00:00:00Z
  request "$1" run_at=2999-01-01T00:00:00Z learning_rate=0.5
}
model_missing() { request "$1" model_name="$work/no-such-model"; }
dataset_missing() { request "$1" dataset="$work/no-such.jsonl"; }
dataset_invalid_json() {
  rows 20 "$work/broken.jsonl"
  sed -i '7s/.*/{"prompt": "question 7", "completion": /' "$work/broken.jsonl"
  request "$1" dataset="$work/broken.jsonl"
}
dataset_row_without_field() {
  rows 20 "$work/lacking.jsonl"
  sed -i '3s/.*/{"prompt": "question 3"}/' "$work/lacking.jsonl"
  request "$1" dataset="$work/lacking.jsonl"
}
dataset_too_small() {
  rows 9 "$work/small.jsonl"
  request "$1" dataset="$work/small.jsonl"
}
weights_lying_header() {
  cp -r "$model" "$work/lying"
  # The first 8 bytes of a safetensors file are its header's length: one that is longer than the file.
  printf '\xff\xff\xff\xff\x00\x00\x00\x00' | dd of="$work/lying/model.safetensors" bs=8 count=1 conv=notrunc status=none
  request "$1" model_name="$work/lying"
}
# The trainer dies after its checkpoint was damaged: the next attempt must not begin at step 0 as if there were none.
checkpoint_damaged() {
  local job="JOIN jobs ON id = job_id WHERE request_id = '$1'" attempt trainer
  request "$1" max_attempts=2 max_steps=1000000 save_steps=500
  wait_sql 90 t "SELECT count(*) > 0 FROM checkpoints $job"
  attempt=$(sql "SELECT attempt_id FROM job_attempts $job")
  trainer=$(pgrep -f "$real_trainer run $work/worker/runs/$attempt/")
  kill -STOP "$trainer" # no newer one shall come
  checkpoint=$(sql "SELECT uri FROM checkpoints $job ORDER BY step DESC LIMIT 1")
  checkpoint=${checkpoint#file://}
  truncate -s -1 "$checkpoint/state.safetensors"
  kill -KILL "$trainer"
}
past_its_deadline() { request "$1" max_steps=1000000 deadline="$(date -u -d '+3 seconds' +%FT%TZ)"; }
program_that_lies() { request "$1" provider=liar; }
program_that_crashes() { request "$1" provider=falls-while-running; }
hub_away() { request "$1" model_name=hf://org/model; }
dataset_server_away() { request "$1" dataset=https://127.0.0.1:9/rows.jsonl; }
control() { request "$1"; }

# ---- what the command itself says
no_such_job() { client status no_such_job; }
registry_away() {
  printf '{"task":"text-generation","model_name":"m","dataset":"d"}' | client --set registry.url=http://127.0.0.1:9 submit -
}
database_away() { client --set database.url=postgresql://127.0.0.1:9/x status; }
broker_away() {
  printf '{"task":"text-generation","model_name":"m","dataset":"d"}' |
    client --set kafka.bootstrap.servers=127.0.0.1:9 --set kafka.message.timeout.ms=1000 submit -
}
option_misspelt() { client --set databse.url=x status; }

# ---- the check of one row
fill() {
  local text=$1
  text=${text//'{work}'/$work}
  text=${text//'{requests}'/$requests}
  text=${text//'{worker}'/$name}
  text=${text//'{model}'/$model}
  text=${text//'{checkpoint}'/${checkpoint:-}}
  text=${text//'{step}'/${step:-}}
  text=${text//'{attempt}'/${attempt:-}}
  printf '%s' "$text"
}
# same TEXT WANTED: {reason} is what a library calls it, which its versions word otherwise
same() {
  local head=${2%%'{reason}'*} tail=${2#*'{reason}'}
  [[ $1 == "$2" || ($2 == *'{reason}'* && $1 == "$head"?*"$tail") ]]
}

check_dead_letter() { # REJECT_ID CODE TEXT
  local line offset partition
  line=$(kcat -C -b "$brokers" -t "$dlq" -e -q -f '%p %o %h\n' | grep "reject_id=$1\(,\|\$\)") || fail "reject $1 is not on the dead-letter topic"
  read -r partition offset _ <<<"$line"
  [[ $line == *"code=$2,reason=$3,source_topic=$requests,source_partition="*",source_offset="*",reject_id=$1"* ]] ||
    fail "headers of reject $1: $line"
  kcat -C -b "$brokers" -t "$dlq" -p "$partition" -o "$offset" -c 1 -q -D '' >"$work/dead"
  sql_is "$(sha256sum <"$work/dead" | cut -d' ' -f1)" "SELECT encode(value_sha256, 'hex') FROM ingest_rejects WHERE id = $1" ||
    fail "the dead letter of reject $1 is not the original message"
}

check() { # INPUT CODE TEXT STATE DLQ
  local got reject
  if [[ $4 == - ]]; then
    wait_sql 40 "$2" "SELECT code FROM ingest_rejects WHERE record_key = 'default/$1'"
    got=$(sql "SELECT reason FROM ingest_rejects WHERE record_key = 'default/$1'")
  else
    wait_state 60 "$1" "$4"
    got=$(sql "SELECT error_code FROM jobs WHERE request_id = '$1'")
    [[ $got == "$2" ]] || fail "$1: expected code '$2', got '$got'"
    got=$(sql "SELECT error_message FROM jobs WHERE request_id = '$1'")
  fi
  same "$got" "$3" || fail "$1: expected text '$3', got '$got'"
  reject=$(sql "SELECT id FROM ingest_rejects WHERE record_key = 'default/$1'")
  if [[ $5 == yes ]]; then
    wait_sql 30 0 "SELECT count(*) FROM outbox"
    check_dead_letter "$reject" "$2" "$3"
  else
    [[ -z $reject ]] || fail "$1 has a row in ingest_rejects"
  fi
  passed "$1: $2"
}

of_a_job() { [[ $input != input && -n $input && $input != "#" && $state != exit* && $state != client* ]]; }
check_client() { # INPUT TEXT STATE
  local said status=0
  said=$("$1" 2>&1 >/dev/null) || status=$?
  [[ "client $status" == "$3" ]] || fail "$1: status $status, not $3: $said"
  same "$said" "modelforge: $2" || fail "$1: expected text '$2', got '$said'"
  passed "$1"
}

while IFS=$'\t' read -r input code text state dead; do
  of_a_job || continue
  declare -F "$input" >/dev/null || fail "no input '$input'"
  "$input" "$input" >/dev/null
done <tests/errors.tsv
control control >/dev/null
while IFS=$'\t' read -r input code text state dead; do
  [[ $state != client* ]] || check_client "$input" "$(fill "$text")" "$state" </dev/null
  of_a_job || continue
  [[ $text != *'{step}'* && $text != *'{attempt}'* ]] || wait_state 60 "$input" "$state"
  step=$(sql "SELECT coalesce(max(step), 0) FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = '$input'")
  attempt=$(sql "SELECT attempt_id FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = '$input' ORDER BY epoch DESC LIMIT 1")
  check "$input" "$code" "$(fill "$text")" "$state" "$dead"
done <tests/errors.tsv
wait_state 60 control succeeded
passed "a good job between all of them succeeds"
echo "$checks checks passed"
