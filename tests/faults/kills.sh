#!/usr/bin/env bash
# kill -9 of the worker between any two steps of a job's way: every job still ends exactly once, and at every point the
# next start goes on from there. The places are those of worker/failpoint.h.
. "$(dirname "${BASH_SOURCE[0]}")/../integration/support.sh"

set_up
write_config "$work/worker.conf" worker.slots=2 lease.seconds=60
places=(ingest.before_commit ingest.after_commit claim.before claim.after recorder.before_metrics recorder.after_metrics
  recorder.before_metrics:3 recorder.before_finish recorder.after_finish outbox.before_delivered)
for place in "${places[@]}"; do
  id=good-$place steps=20
  [[ $place != *:* ]] || id=timed-$place steps=300 # long enough to pass a place several times
  id=${id//[:.]/-}
  submit "$id"
  MF_TEST_FAILPOINT=$place start_worker "$work/worker.conf" "$work/worker.log" "$failpoint_program"
  wait_for 40 "the worker to be killed at $place" ended "$worker_pid"
  status=0
  wait "$worker_pid" || status=$?
  [[ $status == 137 ]] || fail "$place: the worker ended with $status, not by the failpoint"
  start_worker "$work/worker.conf" "$work/worker.log" # the lease of 60 s must not be waited for
  wait_state 30 "$id" succeeded
  sql_is "$steps|$steps|1" "SELECT (SELECT count(*) FROM loss_curve(id)), (SELECT max(step) FROM loss_curve(id)),
    (SELECT count(*) FROM job_events WHERE job_id = id AND state = 'succeeded') FROM jobs WHERE request_id = '$id'" ||
    fail "$place: the curve is not $steps steps, or there is not exactly one end"
  sql_is 0 "SELECT attempts FROM jobs WHERE request_id = '$id'" || fail "$place: the kill was charged to the job"
  wait_sql 30 0 "SELECT count(*) FROM outbox"
  stop_worker "$worker_pid"
  passed "killed at $place"
done

# What consumers of the events topic saw: no job lacks its end, and what is new comes in order.
kcat -C -b "$brokers" -t "$events" -e -q -f '%k %o\n' | cut -d' ' -f1 | sort -u >"$work/keys"
[[ $(wc -l <"$work/keys") == "${#places[@]}" ]] || fail "events of $(wc -l <"$work/keys") jobs of ${#places[@]}"
sql_is 0 "SELECT count(*) FROM job_leases" || fail "a lease is left"
sql_is "${#places[@]}" "SELECT count(*) FROM jobs" || fail "a message was taken twice"
sql_is 0 "SELECT count(*) FROM ingest_rejects" || fail "a message was rejected"
passed "${#places[@]} jobs, ${#places[@]} ends, all on the events topic"

# A worker that vanishes for good is rescued by another once its lease stood still.
write_config "$work/worker.conf" worker.slots=2 lease.seconds=3
write_config "$work/second.conf" worker.slots=2 lease.seconds=3 worker.id="$name-2" work.dir="$work/second"
start_worker "$work/worker.conf" "$work/worker.log"
gone=$worker_pid
submit timed-rescue
wait_sql 30 t "SELECT count(*) > 5 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'timed-rescue'"
start_worker "$work/second.conf" "$work/second.log"
kill_worker "$gone"
wait_sql 30 "2|$name-2" "SELECT lease_epoch, worker_id FROM jobs JOIN job_leases ON job_id = id WHERE request_id = 'timed-rescue'"
wait_state 60 timed-rescue succeeded
sql_is "300|0|1" "SELECT (SELECT count(*) FROM loss_curve(id)), attempts, interruptions FROM jobs WHERE request_id = 'timed-rescue'" ||
  fail "the rescued job"
passed "a vanished worker's job is rescued and ends well"

# A paused worker (longer than its lease) finds its lease gone, stops its trainer and writes nothing.
start_worker "$work/worker.conf" "$work/worker.log"
paused=$worker_pid
stop_worker "${worker_pids[-2]}"
submit slow-paused
wait_sql 30 t "SELECT count(*) > 5 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'slow-paused'"
kill -STOP "$paused"
start_worker "$work/second.conf" "$work/second.log"
wait_sql 30 "2|$name-2" "SELECT lease_epoch, worker_id FROM jobs JOIN job_leases ON job_id = id WHERE request_id = 'slow-paused'"
stale=$(sql "SELECT count(*) FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'slow-paused' AND epoch = 1")
kill -CONT "$paused"
wait_for 20 "the paused worker to notice" grep -q '"end":"lease lost"' "$work/worker.log"
sql_is "$stale" "SELECT count(*) FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'slow-paused' AND epoch = 1" ||
  fail "a stale write came through"
passed "a worker that slept through its lease writes nothing more"
echo "$checks checks passed"
