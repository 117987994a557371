#!/usr/bin/env bash
# A Kafka message becomes exactly one job; what cannot become one is told apart; nothing is lost, nothing taken twice.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

partitions=2 set_up
port=$(free_port)
write_config "$work/worker.conf" worker.slots=0 tenants="$requests=default,team-a;$commands=default" http.listen="127.0.0.1:$port"
start_worker "$work/worker.conf" "$work/worker.log"
worker=$worker_pid

# ---- one message, one job
submit first-1 learning_rate=0.001 submitted_by=alice
wait_state 30 first-1 queued
sql_is "0.001|text-generation|alice" "SELECT config->>'learning_rate', config->>'task', submitted_by
  FROM job_configs JOIN jobs ON id = job_id WHERE request_id = 'first-1'" || fail "the stored request"
read -r partition offset <"$work/sent.log"
sql_is "$requests|$partition|$offset" "SELECT source_topic, source_partition, source_offset FROM job_configs JOIN jobs ON id = job_id
  WHERE request_id = 'first-1'" || fail "the source of the request"
sql_is "$((offset + 1))" "SELECT next_offset FROM ingest_offsets WHERE topic = '$requests' AND partition = $partition" ||
  fail "the offset is not where the record ends"
passed "a message becomes a queued job with its whole request and source"

# ---- the same again, and another under the same id
submit first-1 learning_rate=0.001 submitted_by=alice
submit first-1 learning_rate=0.002 submitted_by=alice
wait_sql 30 "request_conflict" "SELECT code FROM ingest_rejects"
sql_is 1 "SELECT count(*) FROM jobs" || fail "a duplicate made a second job"
passed "a duplicate is dropped, another request under its id is a conflict"

# ---- tenants by topic
"$send_raw" "$brokers" "$registry_url" "$requests" request team-a/x request_id=x tenant=team-a >/dev/null
wait_sql 30 team-a "SELECT tenant FROM jobs WHERE request_id = 'x'"
"$send_raw" "$brokers" "$registry_url" "$commands" command team-a/x tenant=team-a request_id=x >/dev/null
wait_sql 30 "topic '$commands' may not name tenant 'team-a'" \
  "SELECT reason FROM ingest_rejects WHERE code = 'tenant_not_allowed'"
sql_is queued "SELECT state FROM jobs WHERE request_id = 'x'" || fail "a foreign command acted"
passed "a topic may name its tenants and no others, for commands too"

# ---- cancel before and after
cancel later-1
wait_sql 30 "t" "SELECT count(*) > 0 FROM commands WHERE request_id = 'later-1'"
submit later-1
wait_state 30 later-1 cancelled
cancel first-1
wait_state 30 first-1 cancelled
passed "a cancel acts at once on a queued job, and waits for a request that comes after it"

# ---- many, with the worker killed while it takes them in
submit_many burst 1 40
kill_worker "$worker"
submit_many burst 41 60
start_worker "$work/worker.conf" "$work/worker.log"
worker=$worker_pid
wait_sql 60 60 "SELECT count(*) FROM jobs WHERE request_id LIKE 'burst-%'"
total=$(wc -l <"$work/sent.log")
wait_sql 30 t "SELECT sum(next_offset) >= $total + 2 FROM ingest_offsets"
sql_is 2 "SELECT count(*) FROM ingest_rejects" || fail "something was rejected"
passed "60 requests around a kill -9: each exactly once"

# ---- lag and health as Kafka's and Prometheus' tools see them
metric() { curl -fsS "http://127.0.0.1:$port/metrics" | awk -v name="$1" '$1 == name {print $2}'; }
wait_for 20 "the lag to be 0" equals 0 metric modelforge_ingest_lag_records
wait_for 20 "all partitions to be read" equals 4 metric 'modelforge_ingest_partitions{state="reading"}'
wait_for 10 "the jobs to be counted" equals 61 metric 'modelforge_jobs{state="queued"}'
equals 1 metric modelforge_database_up || fail "database_up"
[[ $(curl -fsS "http://127.0.0.1:$port/healthz" | jq -r .status) == ok ]] || fail "/healthz"
[[ $(curl -s -o /dev/null -w '%{http_code}' -X POST "http://127.0.0.1:$port/metrics") == 405 ]] || fail "POST"
passed "/metrics and /healthz"

# ---- a second worker takes over without taking anything twice
write_config "$work/second.conf" worker.slots=0 worker.id="$name-2" work.dir="$work/second" ingest.schema_wait=3
start_worker "$work/second.conf" "$work/second.log"
second=$worker_pid
wait_for 30 "the second worker to get partitions" grep -q '"partitions were assigned"' "$work/second.log"
submit_many shared 1 10
wait_sql 60 10 "SELECT count(*) FROM jobs WHERE request_id LIKE 'shared-%'"
stop_worker "$worker"
submit_many shared 11 20
wait_sql 60 20 "SELECT count(*) FROM jobs WHERE request_id LIKE 'shared-%'"
sql_is 2 "SELECT count(*) FROM ingest_rejects" || fail "a rebalance rejected something"
sql_is 0 "SELECT count(*) FROM ingest_gaps" || fail "a rebalance halted a partition"
passed "partitions move between workers, every record is taken exactly once"

# ---- an offset that Kafka does not hold any more halts the partition instead of skipping
stop_worker "$second"
sql "UPDATE ingest_offsets SET next_offset = next_offset + 1000 WHERE topic = '$requests' AND partition = 0"
sql "UPDATE ingest_offsets SET anchor_key_hash = sha256('another') WHERE topic = '$requests' AND partition = 1"
start_worker "$work/second.conf" "$work/second.log"
wait_sql 30 "0|out_of_range
1|anchor_mismatch" "SELECT partition, kind FROM ingest_gaps ORDER BY partition"
before=$(sql "SELECT count(*) FROM jobs")
submit halted-1
"$send_raw" "$brokers" "$registry_url" "$commands" command default/none tenant=default request_id=none >/dev/null
wait_sql 30 t "SELECT count(*) = 1 FROM commands WHERE request_id = 'none'"
sql_is "$before" "SELECT count(*) FROM jobs" || fail "a halted partition was read on"
passed "a cut or exchanged partition halts, the others go on"

# ---- an operator lets them go on; the running worker notices by itself
client() {
  "$client_program" --set kafka.bootstrap.servers="$brokers" --set database.url="$database_url" "$@"
}
client ingest status | grep -q "$requests *0 .*out_of_range" || fail "ingest status does not show the halt"
client ingest reset "$requests" 0 --from 999999 2>"$work/reset.log" && fail "an offset beyond the end was taken"
grep -q "is not beginning, end or an offset" "$work/reset.log" || fail "$(cat "$work/reset.log")"
for partition in 0 1; do client ingest reset "$requests" "$partition" --from beginning; done
wait_sql 30 1 "SELECT count(*) FROM jobs WHERE request_id = 'halted-1'"
client ingest reset "$requests" 0 --from end 2>"$work/reset.log" && fail "a partition that is not halted was reset"
sql_is "$((before + 1))" "SELECT count(*) FROM jobs" || fail "records taken before were taken as new jobs"
passed "a reset partition goes on; what was taken before is recognised"

# ---- who sends a request and waits is told that it was rejected
told() { # CODE TEXT FLAG...
  local status=0
  client --set registry.url="$registry_url" --set topics.requests="$requests" submit --task text-generation --model-name m --dataset d "${@:3}" \
    --wait --timeout 60 >"$work/told.log" 2>&1 || status=$?
  [[ $status == 2 ]] || fail "$1: exit status $status: $(cat "$work/told.log")"
  grep -q "the request was rejected: $2" "$work/told.log" || fail "$1: $(cat "$work/told.log")"
  sql_is "$1" "SELECT code FROM reject_log ORDER BY reject_id DESC LIMIT 1" || fail "not $1"
}
told tenant_not_allowed "topic '$requests' may not name tenant 'team-z'" --tenant team-z
told request_conflict "request_id 'first-1' of tenant 'default' was used before" --tenant default --request-id first-1
passed "submit --wait says why a request was rejected"

# ---- a schema id that nobody registered holds a partition up once, not for every record
before=$(sql "SELECT count(*) FROM ingest_rejects WHERE code = 'unknown_schema'")
printf '\0\0\xff\0\0x' >"$work/foreign"
for ((i = 0; i < 20; i++)); do kcat -P -b "$brokers" -t "$requests" -p 0 "$work/foreign"; done
submit_many after 1 8
wait_sql 30 "$((before + 20))" "SELECT count(*) FROM ingest_rejects WHERE code = 'unknown_schema'"
wait_sql 30 8 "SELECT count(*) FROM jobs WHERE request_id LIKE 'after-%'"
passed "20 records of an unknown schema wait once; what comes behind them is taken"

# ---- a worker that ends does not wait for a database that does not answer its ingest
psql -X -q -d "$database_url" -c "BEGIN; LOCK modelforge.ingest_offsets; SELECT pg_sleep(300)" >/dev/null 2>&1 &
wait_sql 20 t "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'modelforge.ingest_offsets'::regclass AND mode = 'AccessExclusiveLock' AND granted"
submit stuck-1
wait_sql 20 t "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'modelforge-worker ingest' AND wait_event_type = 'Lock'"
stop_worker "$worker_pid"
sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'" >/dev/null
start_worker "$work/second.conf" "$work/second.log"
wait_state 30 stuck-1 queued
passed "a blocked ingest does not hold up SIGTERM; the next worker takes what was left"
echo "$checks checks passed"
