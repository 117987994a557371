#!/usr/bin/env bash
# cancel, pause, resume and retry from the command line through Kafka to a running trainer: what each does, what the
# user is told of it, and the exit status.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
write_config "$work/worker.conf" worker.slots=2 lease.seconds=6 cancel.seconds=1 drain.seconds=7 preempt.seconds=1

# expect STATUS TEXT COMMAND...: the exit status, and a line of output that holds the text.
expect() {
  local status=0
  client "${@:3}" >"$work/out" 2>&1 || status=$?
  [[ $status == "$1" ]] || fail "$3 $4: exit status $status instead of $1: $(cat "$work/out")"
  grep -qF -- "$2" "$work/out" || fail "$3 $4: no '$2' in: $(cat "$work/out")"
}
job_is() { sql_is "$2" "SELECT concat_ws('|', state, desired, attempts, interruptions, drains) FROM jobs WHERE request_id = '$1' ORDER BY generation DESC LIMIT 1"; }
training() { wait_sql 30 t "SELECT count(*) > 3 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = '$1' AND state = 'running'"; }

# ---- nobody there to take it in
expect 2 "whole number" pause early-1 --timeout 0.5
expect 0 "pause of default/early-1 accepted" pause early-1 --timeout 0
expect 6 "no worker has taken it in yet" pause early-1 --timeout 1
start_worker "$work/worker.conf" "$work/worker.log"
wait_sql 30 2 "SELECT count(*) FROM command_log WHERE outcome = 'waiting'"
expect 0 "there is no request default/nobody yet" cancel nobody
submit early-1
wait_state 30 early-1 paused
job_is early-1 "paused|pause|0|0|0" || fail "the early pause"
sql_is "applied ignored" "SELECT string_agg(outcome, ' ' ORDER BY received_at) FROM command_log WHERE request_id = 'early-1'" ||
  fail "the second pause says nothing new"
expect 0 "default/early-1 is cancelled" cancel early-1
passed "a pause before its request holds it; a paused job is cancelled at once"

# ---- pause and resume while it runs
submit slow-1
training slow-1
expect 0 "default/slow-1" pause slow-1 --reason "the node is needed"
wait_state 20 slow-1 paused
job_is slow-1 "paused|pause|0|0|0" || fail "a pause was charged"
sql_is "paused" "SELECT outcome FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = 'slow-1'" || fail "the attempt's outcome"
sql_is 0 "SELECT count(*) FROM job_leases JOIN jobs ON id = job_id WHERE request_id = 'slow-1'" || fail "a paused job has a lease"
sql_is "the node is needed" "SELECT detail->>'reason' FROM job_events JOIN jobs ON id = job_id WHERE request_id = 'slow-1' AND type = 'pause_requested'" ||
  fail "the reason is not in the audit trail"
expect 1 "pause of default/slow-1 was ignored: the job is paused" pause slow-1
expect 0 "default/slow-1 is" resume default/slow-1
training slow-1
sql_is 2 "SELECT lease_epoch FROM jobs WHERE request_id = 'slow-1'" || fail "not a second attempt"
expect 1 "was ignored: the job is running and run is wanted already" resume slow-1
expect 0 "default/slow-1" cancel slow-1
wait_state 20 slow-1 cancelled
passed "a running job is paused uncharged, resumed, cancelled; what means nothing says why, with status 1"

# ---- a trainer that obeys nothing is paused by force
submit deaf-1
training deaf-1
expect 0 "default/deaf-1" pause deaf-1
wait_state 30 deaf-1 paused
! pgrep -f "$fake_trainer run $work" >/dev/null || fail "a trainer is left"
job_is deaf-1 "paused|pause|0|0|0" || fail "the forced pause"
expect 0 "default/deaf-1 is cancelled" cancel deaf-1
passed "a trainer that does not obey is killed, and its job is paused all the same"

# ---- retry: the next generation, by name or by job id
submit failing-1
wait_state 30 failing-1 failed
first=$(sql "SELECT id FROM jobs WHERE request_id = 'failing-1'")
expect 0 "generation 2" retry failing-1
wait_sql 30 "failed failed" "SELECT string_agg(state, ' ' ORDER BY generation) FROM jobs WHERE request_id = 'failing-1'"
second=$(sql "SELECT id FROM jobs WHERE retry_of = '$first'")
expect 1 "the job's generation is 2, the command names 1" retry "$first"
expect 0 "generation 3" retry "$second" --reason "once more"
wait_sql 30 3 "SELECT count(*) FROM jobs WHERE request_id = 'failing-1' AND state = 'failed'"
expect 1 "the job's generation is 3, the command names 2" cancel "$second"
submit good-1
wait_state 30 good-1 succeeded
expect 1 "only a failed or cancelled job is tried again; this one is succeeded" retry good-1
expect 1 "the job has ended: it is succeeded" cancel good-1
expect 5 "unheard-of" retry unheard-of
passed "a retry is a new generation, once; a job id means its own generation"

# ---- a preemptible job gives way to one of higher priority, and goes on after it
submit slow-low preemptible=true
submit slow-firm
training slow-low
training slow-firm
submit timed-high priority=10
wait_state 30 timed-high running
sql_is "preempted" "SELECT outcome FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = 'slow-low'" || fail "who gave way"
job_is slow-low "queued|run|0|0|0" || fail "giving way was charged"
sql_is 1 "SELECT lease_epoch FROM jobs WHERE request_id = 'slow-firm'" || fail "a job that is not preemptible was stopped"
wait_state 30 timed-high succeeded
wait_sql 30 "running 2" "SELECT state || ' ' || lease_epoch FROM jobs WHERE request_id = 'slow-low'"
sql_is "queued running preempt_requested released" "SELECT string_agg(type, ' ' ORDER BY sequence) FROM job_events JOIN jobs ON id = job_id
  WHERE request_id = 'slow-low' AND sequence <= 4" || fail "the audit trail of the job that gave way"
cancel slow-low
cancel slow-firm
wait_state 20 slow-low cancelled
wait_state 20 slow-firm cancelled
passed "a preemptible job gives way after a moment, uncharged, and goes on afterwards"

# ---- rejected, and said so
expect 2 "the command was rejected" pause stranger/slow-1
client --json pause slow-1 >"$work/out" 2>/dev/null && fail "a pause of a cancelled job has status 0"
equals "ignored cancelled" jq -r '.outcome + " " + .state' "$work/out" || fail "--json: $(cat "$work/out")"
passed "a rejected command is told apart, and --json says the outcome"

sql_is 0 "SELECT count(*) FROM jobs WHERE NOT audit_chain_whole(id)" || fail "an audit chain is broken"
sql_is "0 0" "SELECT sum(ready) || ' ' || sum(running) FROM tenant_load" || fail "the counts"
wait_sql 30 0 "SELECT count(*) FROM outbox"
stop_worker "$worker_pid"
echo "$checks checks passed"
