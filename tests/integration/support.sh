# shellcheck shell=bash
# shellcheck disable=SC2034 # used by those who read this file
# What the integration tests share: a database, topics and a work folder of their own, a worker under test, waiting for
# conditions. Witnesses are the services' own tools: psql, kcat, curl.
#
# ctest gives MF_TEST_BUILD (the build folder) and the services' addresses (MF_TEST_DATABASE_URL, a superuser;
# MF_TEST_KAFKA_BROKERS; MF_TEST_REGISTRY_URL). Without them a test ends with 77: skipped.
set -euo pipefail

[[ -n ${MF_TEST_DATABASE_URL:-} && -n ${MF_TEST_KAFKA_BROKERS:-} && -n ${MF_TEST_REGISTRY_URL:-} ]] || {
  echo "skipped: MF_TEST_DATABASE_URL, MF_TEST_KAFKA_BROKERS and MF_TEST_REGISTRY_URL are not all set"
  exit 77
}
: "${MF_TEST_BUILD:?the build folder}"

unset "${!MODELFORGE_@}" # the environment would override a test's configuration

name=$(printf 'mf_%s_%s_%s' "$(basename "$0" .sh)" "$$" "$(date +%s)")
work=$(mktemp -d "${TMPDIR:-/tmp}/$name.XXXXXX")
worker_program=$MF_TEST_BUILD/worker/modelforge-worker
failpoint_program=$MF_TEST_BUILD/worker/modelforge-worker-failpoints
real_trainer=$MF_TEST_BUILD/worker/trainer/modelforge-trainer
fake_trainer=$MF_TEST_BUILD/tests/worker/fake_trainer
send_raw=$MF_TEST_BUILD/tests/integration/send_raw
client_program=$MF_TEST_BUILD/producer/modelforge
requests=$name.requests commands=$name.commands events=$name.events dlq=$name.dlq
database_url=${MF_TEST_DATABASE_URL%/*}/$name
registry_url=$MF_TEST_REGISTRY_URL
brokers=$MF_TEST_KAFKA_BROKERS
worker_pids=()
checks=0

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
passed() {
  checks=$((checks + 1))
  echo "ok $checks - $*"
}

sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database_url" -c "$1"; }

clean_up() {
  local status=$? pid
  for pid in "${worker_pids[@]}"; do kill -KILL "$pid" 2>/dev/null || :; done
  if [[ $status != 0 ]]; then
    for log in "$work"/*.log; do
      [[ ! -e $log ]] || { echo "---- ${log##*/}"; tail -n 40 "$log"; } >&2
    done
  fi
  ! declare -F own_clean_up >/dev/null || own_clean_up || :
  psql -X -q -d "$MF_TEST_DATABASE_URL" -c "DROP DATABASE IF EXISTS \"$name\" WITH (FORCE)" 2>/dev/null || :
  rm -rf "$work"
}
trap clean_up EXIT

# A port of the loopback that nobody listens on.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  printf '%s' "$port"
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "waited for $what"
    sleep 0.1
  done
}
equals() { [[ $("${@:2}") == "$1" ]]; } # TEXT COMMAND...
sql_is() { equals "$1" sql "$2"; }      # TEXT QUERY
# wait_sql SECONDS TEXT QUERY: until the query gives the text.
wait_sql() {
  local end=$((SECONDS + $1)) got=
  until got=$(sql "$3" 2>/dev/null) && [[ $got == "$2" ]]; do
    ((SECONDS < end)) || fail "waited for '$2' from: $3 (last: '$got')"
    sleep 0.1
  done
}

client() {
  MODELFORGE_KAFKA_BOOTSTRAP_SERVERS=$brokers MODELFORGE_REGISTRY_URL=$registry_url \
    MODELFORGE_DATABASE_URL=$database_url MODELFORGE_TOPICS_REQUESTS=$requests \
    MODELFORGE_TOPICS_COMMANDS=$commands MODELFORGE_TOPICS_EVENTS=$events MODELFORGE_TOPICS_DLQ=$dlq \
    "$client_program" "$@"
}

# The database, topics and schemas of this test. The worker gets a login that is only a member of modelforge_worker.
set_up() {
  psql -X -q -d "$MF_TEST_DATABASE_URL" -c "CREATE DATABASE \"$name\""
  client setup --partitions "${partitions:-2}" --replication-factor 1 >"$work/setup.log" 2>&1 || fail "modelforge setup"
  MODELFORGE_WORKER_PASSWORD="test" client migrate --worker-login modelforge_test_worker >>"$work/setup.log" 2>&1 ||
    fail "modelforge migrate"
}
# URL with the worker's login.
worker_database_url() { printf '%s' "$database_url" | sed 's#//[^@]*@#//modelforge_test_worker:test@#'; }

# write_config FILE [NAME=VALUE]...: a worker's properties, quick for tests.
write_config() {
  local file=$1 name_ pair
  local -A value=(
    [database.url]=$(worker_database_url) [kafka.bootstrap.servers]=$brokers [kafka.group.id]=$name
    [registry.url]=$registry_url [topics.requests]=$requests [topics.commands]=$commands [topics.events]=$events
    [topics.dlq]=$dlq [work.dir]=$work/worker [storage.url]=file://$work/storage [worker.id]=$name
    [kafka.session.timeout.ms]=6000 [http.listen]=none [claim.poll_ms]=200 [retry.base_ms]=200 [trainer.path]=$fake_trainer
  )
  shift
  for pair in "$@"; do value[${pair%%=*}]=${pair#*=}; done
  for name_ in "${!value[@]}"; do printf '%s = %s\n' "$name_" "${value[$name_]}"; done >"$file"
  chmod 600 "$file"
}

# start_worker CONFIG LOG [PROGRAM]: sets worker_pid.
start_worker() {
  "${3:-$worker_program}" --config "$1" >>"$2" 2>&1 &
  worker_pid=$!
  worker_pids+=("$worker_pid")
}
ended() { ! kill -0 "$1" 2>/dev/null; }
# stop_worker PID: SIGTERM, and the exit status must be 0.
stop_worker() {
  local status=0
  kill -TERM "$1"
  wait_for 40 "worker $1 to drain" ended "$1"
  wait "$1" || status=$?
  [[ $status == 0 ]] || fail "worker $1 ended with $status"
}
kill_worker() {
  kill -KILL "$1" 2>/dev/null || :
  wait "$1" 2>/dev/null || :
}

# submit REQUEST_ID [NAME=VALUE]...: a request by way of send_raw.
submit() {
  local id=$1
  shift
  "$send_raw" "$brokers" "$registry_url" "$requests" request "default/$id" "request_id=$id" "$@" >>"$work/sent.log"
}
# submit_many PREFIX FIRST LAST: PREFIX-FIRST to PREFIX-LAST, four at a time.
submit_many() {
  seq "$2" "$3" | xargs -P 4 -I{} "$send_raw" "$brokers" "$registry_url" "$requests" request "default/$1-{}" \
    "request_id=$1-{}" >>"$work/sent.log"
}
cancel() { "$send_raw" "$brokers" "$registry_url" "$commands" command "default/$1" tenant=default "request_id=$1" >>"$work/sent.log"; }
state_of() { sql "SELECT state FROM jobs WHERE request_id = '$1' ORDER BY generation DESC LIMIT 1"; }
wait_state() { wait_sql "$1" "$3" "SELECT state FROM jobs WHERE request_id = '$2' ORDER BY generation DESC LIMIT 1"; }
