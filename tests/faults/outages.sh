#!/usr/bin/env bash
# Each of PostgreSQL, the registry and the broker away when the worker starts, and stopped for 20 s (with --long 60 s) in
# mid-run: every job still ends well, none is aborted or run twice, no metric is lost. On a stack of its own, for it stops
# services.
build=${MF_TEST_BUILD:?the build folder}
stack=$(mktemp -d "${TMPDIR:-/tmp}/mf_outages.XXXXXX")
own_clean_up() { ops/stack wipe "$stack" >/dev/null 2>&1; }
trap own_clean_up EXIT
[[ -n ${MF_TEST_KAFKA_BROKERS:-} ]] || {
  echo "skipped: no services are set up"
  exit 77
}
ops/stack up "$stack" --no-sync >/dev/null 2>&1 || exit 1
eval "$(ops/stack env "$stack")"
MF_TEST_BUILD=$build
. "$(dirname "${BASH_SOURCE[0]}")/../integration/support.sh"
# The long outage is shorter than the training: its steps are reported while nobody takes them.
outage_s=20 job=timed steps=300
[[ -z ${MF_TEST_LONG:-} ]] || outage_s=60 job=lasting steps=4000

set_up
write_config "$work/worker.conf" worker.slots=4 lease.seconds=6
away() { ops/stack stop "$stack" "$1" >/dev/null 2>&1; }
back() { ops/stack start "$stack" "$1" >/dev/null 2>&1; }

# ---- away at start
for service in postgres registry kafka; do
  id=timed-start-$service
  [[ $service == kafka ]] || submit "$id" # with the registry or database away a message can still be there
  away "$service"
  start_worker "$work/worker.conf" "$work/worker.log"
  sleep 3 # the outage itself, not a synchronisation
  ! ended "$worker_pid" || fail "the worker ended because $service is away"
  back "$service"
  [[ $service != kafka ]] || submit "$id"
  wait_state 60 "$id" succeeded
  sql_is "1|300" "SELECT lease_epoch, (SELECT count(*) FROM step_metrics WHERE job_id = id) FROM jobs WHERE request_id = '$id'" ||
    fail "$id: not one whole attempt"
  stop_worker "$worker_pid"
  passed "$service away at start: the job ends well"
done

# ---- stopped in mid-run; the lease is shorter than the outage, and a second worker watches for leases to rescue
write_config "$work/second.conf" worker.slots=4 lease.seconds=6 worker.id="$name-2" work.dir="$work/second"
start_worker "$work/worker.conf" "$work/worker.log"
first=$worker_pid
start_worker "$work/second.conf" "$work/second.log"
second=$worker_pid
for service in postgres registry kafka; do
  id=$job-mid-$service
  submit "$id"
  wait_sql 60 t "SELECT count(*) > 5 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = '$id'"
  away "$service"
  sleep "$outage_s" # the outage itself
  back "$service"
  wait_state 120 "$id" succeeded
  sql_is "1|$steps|0|0" "SELECT lease_epoch, (SELECT count(*) FROM step_metrics WHERE job_id = id), attempts, interruptions
    FROM jobs WHERE request_id = '$id'" || fail "$id: aborted, rescued, or metrics are missing"
  submit "timed-after-$service"
  wait_state 90 "timed-after-$service" succeeded
  passed "$service stopped for $outage_s s in mid-run: one attempt, $steps of $steps steps, and the next job ends well"
done
wait_sql 60 0 "SELECT count(*) FROM outbox"
kcat -C -b "$brokers" -t "$events" -e -q -f '%k\n' | grep -c "^default/$job-mid-" >/dev/null || fail "events are missing"
jobs=$(sql "SELECT count(*) FROM jobs")
sql_is "$jobs" "SELECT count(*) FROM job_events WHERE state = 'succeeded'" || fail "a job ended twice or not at all"
passed "every job has exactly one end"
stop_worker "$first"
stop_worker "$second"
echo "$checks checks passed"
