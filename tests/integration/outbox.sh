#!/usr/bin/env bash
# A dead-letter topic that takes nothing holds up no event, however many dead letters wait; once it is there all of them
# arrive, once each and whole.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
http=127.0.0.1:$(free_port)
write_config "$work/worker.conf" worker.slots=4 topics.dlq="$name.later" provider.grace_seconds=3600 http.listen="$http"
# The third time that it sends something, its producer is as broken as a broker's lost sequence numbers make it.
MF_TEST_FAULT=outbox.fatal:3 start_worker "$work/worker.conf" "$work/worker.log" "$failpoint_program"

# Their shard is that of their partition: 0.
letters=400
for ((i = 1; i <= letters; i++)); do printf 'no avro %d\n' "$i"; done | kcat -P -b "$brokers" -t "$requests" -p 0
wait_sql 60 $letters "SELECT count(*) FROM ingest_rejects"
wait_for 60 "the dead letters to fail" grep -q "could not be delivered yet" "$work/worker.log"
metric_is() { equals "$1" eval "curl --silent 'http://$http/metrics' | sed -n 's/^modelforge_outbox_failing_keys //p'"; }
wait_for 20 "the failing partition in the metrics" metric_is 1
# Events of shard 0, behind all of them, are those of jobs whose id ends in 0.
# They come over a time in which dead letters are tried again and again.
# Looked at until the last of them has arrived.
longest_ms=0
for i in $(seq 1 32); do submit "good-$i" && sleep 0.1; done &
sender=$!
watch_end=$((SECONDS + 100))
until age_ms=$(sql "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - recorded_at) * 1000)::bigint, 0) FROM outbox WHERE job_id IS NOT NULL")
  ((age_ms <= longest_ms)) || longest_ms=$age_ms
  sql_is "32|0" "SELECT (SELECT count(*) FROM jobs WHERE state = 'succeeded'), (SELECT count(*) FROM outbox WHERE job_id IS NOT NULL)"; do
  ((SECONDS < watch_end)) || fail "waited for 32 jobs and their events"
done
wait "$sender"
sql_is t "SELECT count(*) > 0 FROM jobs WHERE right(id::text, 1) = '0'" || fail "no job of this test is in the shard"
sql_is "$letters" "SELECT count(*) FROM outbox WHERE reject_id IS NOT NULL AND parked_at IS NULL" || fail "a dead letter is gone"
kcat -C -b "$brokers" -t "$events" -e -q -f '%k\n' | sort -u >"$work/keys"
equals 32 wc -l <"$work/keys" || fail "events of $(wc -l <"$work/keys") jobs of 32 arrived"
((longest_ms < 3000)) || fail "an event waited for $longest_ms ms while dead letters failed"
passed "$letters dead letters without a topic: every event of 32 jobs arrived, none waited longer than $longest_ms ms"

grep -q '"the Kafka producer is made anew"' "$work/worker.log" || fail "the producer was never fatally broken"
passed "a producer that declared itself broken for good was replaced, and no event is missing"

dlq=$name.later client setup --partitions 1 --replication-factor 1 >>"$work/setup.log"
dlq=$name.later
wait_sql 90 0 "SELECT count(*) FROM outbox"
wait_for 20 "no failing key in the metrics" metric_is 0
kcat -C -b "$brokers" -t "$name.later" -e -q -f '%s\n' | sort -u >"$work/letters"
equals "$letters" wc -l <"$work/letters" || fail "$(wc -l <"$work/letters") of $letters dead letters arrived"
sql_is 0 "SELECT count(*) FROM outbox_parked" || fail "a row was parked"
passed "with the topic made, all $letters arrive"

# ---- dlq list, show, replay: a request of a tenant that the topic may not name, and then may
submit good-late tenant=team-z
wait_sql 30 1 "SELECT count(*) FROM reject_log WHERE code = 'tenant_not_allowed'"
id=$(sql "SELECT reject_id FROM reject_log WHERE code = 'tenant_not_allowed'")
client dlq list --code tenant_not_allowed | grep -q "$id .*$requests.*team-z" || fail "dlq list"
equals 20 jq length <<<"$(client --json dlq list)" || fail "dlq list --json"
client dlq show "$id" | grep -q '^rejected *tenant_not_allowed: ' || fail "dlq show"
client dlq show "$id" --raw | cmp -s - <(sql "SELECT encode(record_value, 'hex') FROM ingest_rejects WHERE id = $id" | xxd -r -p) ||
  fail "dlq show --raw are other bytes"
code=0
client dlq replay 999999 >"$work/out" 2>&1 || code=$?
[[ $code == 5 ]] || fail "a dead letter that is not there: status $code"
stop_worker "$worker_pid"
write_config "$work/worker.conf" worker.slots=4 topics.dlq="$name.later" tenants="$requests=default,team-z"
start_worker "$work/worker.conf" "$work/worker.log"
client dlq replay --code tenant_not_allowed | grep -q "^dead letter $id " || fail "dlq replay"
wait_state 30 good-late succeeded
client dlq replay --code tenant_not_allowed | grep -q "nothing to send again" || fail "it was sent a second time"
sql_is "$(id -un)" "SELECT replayed_by FROM replay_log WHERE reject_id = $id" || fail "who replayed it"
client dlq replay "$id" >/dev/null || fail "a second replay by number"
wait_sql 30 t "SELECT sum(next_offset) = $letters + 32 + 3 FROM ingest_offsets WHERE topic = '$requests'"
sql_is 1 "SELECT count(*) FROM jobs WHERE tenant = 'team-z'" || fail "a replay made a second job"
passed "a dead letter is listed, shown byte by byte, replayed once its fault is mended, and is one job"
stop_worker "$worker_pid"
echo "$checks checks passed"
