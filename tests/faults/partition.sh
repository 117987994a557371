#!/usr/bin/env bash
# One of three brokers dies and two of six partitions of the events topic with it: the events of their jobs, thousands at the
# head of every shard, hold up nobody else's, and all of them arrive when it is back. On a stack of its own.
build=${MF_TEST_BUILD:?the build folder}
stack=$(mktemp -d "${TMPDIR:-/tmp}/mf_partition.XXXXXX")
own_clean_up() { ops/stack wipe "$stack" >/dev/null 2>&1; }
trap own_clean_up EXIT
[[ -n ${MF_TEST_KAFKA_BROKERS:-} ]] || {
  echo "skipped: no services are set up"
  exit 77
}
ops/stack up "$stack" --no-sync --brokers 3 >"$stack.log" 2>&1 || {
  cat "$stack.log"
  exit 1
}
rm -f "$stack.log"
eval "$(ops/stack env "$stack")"
MF_TEST_BUILD=$build
. "$(dirname "${BASH_SOURCE[0]}")/../integration/support.sh"

# Everything but the events lies on the first broker.
topic() { # NAME BROKERS: one partition on each of the brokers, a single copy
  ops/stack kafka-tool "$stack" org.apache.kafka.tools.TopicCommand --bootstrap-server "$brokers" --create --topic "$1" \
    --replica-assignment "$2" >>"$work/setup-topics.log" 2>&1 || fail "topic $1: $(tail -n 3 "$work/setup-topics.log")"
}
for name_ in "$requests" "$commands" "$dlq"; do topic "$name_" 1; done
topic "$events" 1,2,3,1,2,3
set_up
write_config "$work/worker.conf" worker.slots=4
start_worker "$work/worker.conf" "$work/worker.log"
submit good-before
wait_state 60 good-before succeeded
wait_sql 30 0 "SELECT count(*) FROM outbox"

ops/stack kill "$stack" kafka-3 >/dev/null 2>&1
count=12000
for ((i = 0; i < count; i++)); do
  printf '{"task":"text-generation","model_name":"/m","dataset":"/d","run_at":"2099-01-01T00:00:00Z","seed":%d}\n' "$i"
done >"$work/many.jsonl"
client batch "$work/many.jsonl" --batch-id many >/dev/null 2>"$work/err" || fail "the batch: $(cat "$work/err")"
wait_sql 60 "$count" "SELECT count(*) FROM jobs WHERE batch_id = 'many'"

# Two thirds are there; what waits is of the dead partitions, and in some shard more than a page of it comes first.
began=$SECONDS
settled() { (($(sql "SELECT count(*) FROM outbox") < count * 4 / 10)); }
wait_for 60 "the events of living partitions" settled
passed "two thirds of $count events went past the others within $((SECONDS - began)) s"
sql_is t "SELECT max(rows) > 200 FROM (SELECT count(*) AS rows FROM outbox GROUP BY shard) AS shards" ||
  fail "no shard with more than a page of waiting rows"
# New jobs: their events wait for a turn at most, though every failing one is tried again in between.
for i in $(seq 30); do submit "good-$i"; done
wait_sql 60 31 "SELECT count(*) FROM jobs WHERE state = 'succeeded'"
on_live() { # every event of at least half of the new jobs is there
  (($(sql "SELECT count(*) FROM jobs WHERE request_id LIKE 'good-%' AND id NOT IN (SELECT job_id FROM outbox)") >= 15))
}
began=$SECONDS
wait_for 15 "the events of new jobs" on_live
passed "events of new jobs arrive after $((SECONDS - began)) s, with $(sql "SELECT count(*) FROM outbox") failing ones before them"

ops/stack start "$stack" kafka-3 >/dev/null 2>&1
wait_sql 120 0 "SELECT count(*) FROM outbox"
sql_is 0 "SELECT count(*) FROM outbox_parked" || fail "a row was parked"
kcat -C -b "$brokers" -t "$events" -e -q -f '%k\n' | sort -u >"$work/keys"
equals $((count + 31)) wc -l <"$work/keys" || fail "events of $(wc -l <"$work/keys") jobs of $((count + 31))"
passed "with the broker back the events of all $((count + 31)) jobs are there"
stop_worker "$worker_pid"
echo "$checks checks passed"
