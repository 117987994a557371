#!/usr/bin/env bash
# The connection to PostgreSQL is cut around the COMMIT of every kind of transaction that a job's way has: before the server
# hears of it, when it has committed and the worker does not hear so, and so that the server commits only after the worker
# came back and looked. What is read afterwards decides: everything happens, and happens once.
. "$(dirname "${BASH_SOURCE[0]}")/../integration/support.sh"

set_up
port=$(free_port)
server=${database_url#*@}
server=${server%%/*}
python3 tests/faults/commit_cutter.py "$port" "${server%:*}" "${server##*:}" "$work/order" >"$work/cuts" 2>"$work/cutter.log" &
worker_pids+=("$!")
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
wait_for 10 "the cutter" listening
for ((i = 1; i <= 12; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$work/rows.jsonl"
through() { worker_database_url | sed "s#@[^/]*/#@127.0.0.1:$port/#"; }
# A lease that no case here may wait for, and one that can be waited for.
for lease in 60 2; do
  write_config "$work/$lease.conf" database.url="$(through)" trainer.path="$real_trainer" worker.slots=4 lease.seconds=$lease
done
write_config "$work/second.conf" database.url="$(through)" trainer.path="$real_trainer" lease.seconds=2 \
  worker.id="$name-2" work.dir="$work/second"

train() { # REQUEST_ID STEPS [SAVE_STEPS]
  submit "$1" device=cpu max_steps="$2" logging_steps=1 save_steps="${3:-4}" eval_split=0 model_name="$PWD/tests/golden/models/tied-gqa" \
    dataset="$work/rows.jsonl"
}
order() { # HOW STATEMENT
  printf '%s %s\n' "$1" "$2" >"$work/order.new"
  mv "$work/order.new" "$work/order"
}
was_cut() { [[ ! -e $work/order ]]; }
# whole REQUEST_ID STEPS EPOCHS: it ended once, with each of its steps, uncharged
whole() {
  sql_is "$2|$2|1|0|$3" "SELECT (SELECT count(*) FROM loss_curve(id)), (SELECT count(DISTINCT step) FROM loss_curve(id)),
    (SELECT count(*) FROM job_events WHERE job_id = id AND type = 'succeeded'), attempts, lease_epoch FROM jobs WHERE request_id = '$1'" ||
    fail "$1: $(sql "SELECT (SELECT count(*) FROM loss_curve(id)), state, attempts, interruptions, lease_epoch FROM jobs WHERE request_id = '$1'")"
}
# cut_in HOW STATEMENT EPOCHS [SECONDS]: one job, and one cut on its way
cut_in() {
  local id=$1-${2//[_:]/-}
  order "$1" "$2"
  train "$id" 8
  wait_for 30 "the cut $1 the commit of $2" was_cut
  wait_state "${4:-30}" "$id" succeeded
  whole "$id" 8 "$3"
  passed "cut $1 the commit of $2"
}

start_worker "$work/60.conf" "$work/worker.log"
train first 8
wait_state 60 first succeeded
for how in before after late; do
  for statement in ingest_requests metrics_take checkpoint_insert artifact_insert attempts_end; do
    cut_in $how $statement 1
  done
done
# A claim that did not happen is made again; one that did is seen by comparing leases with trainers, and given back.
cut_in before claim_jobs:row 1
cut_in after claim_jobs:row 2
# Statements of their own: sent again.
for statement in attempt_update outbox_delivered heartbeat worker_register; do cut_in after $statement 1; done
# A command is taken once.
for how in before after late; do
  train "cancelled-$how" 200000 100
  wait_sql 30 t "SELECT count(*) > 3 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'cancelled-$how'"
  order $how command_insert
  cancel "cancelled-$how"
  wait_for 30 "the cut $how the command's commit" was_cut
  wait_state 4 "cancelled-$how" cancelled # a beat of a lease of 60 s would come too late
  passed "cut $how the commit of a command"
done
sql_is "3|3" "SELECT count(*), count(*) FILTER (WHERE outcome = 'applied') FROM commands" || fail "commands: $(sql "SELECT action, outcome FROM commands")"
# A job is given back when its worker drains.
train drained 200000 100
wait_sql 30 t "SELECT count(*) > 0 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = 'drained'"
order after attempts_end
stop_worker "$worker_pid"
was_cut || fail "the drain was not cut"
sql_is "queued|1|0" "SELECT state, drains, interruptions FROM jobs WHERE request_id = 'drained'" || fail "the drained job"
grep -q '"end":"released"' "$work/worker.log" || fail "the worker does not know that it gave the job back"
passed "cut after the commit of a drain"

# ---- what can only be waited for: the lease of a claim that was committed after the comparison; a rescue
start_worker "$work/2.conf" "$work/worker.log"
first=$worker_pid
cancel drained
wait_state 60 drained cancelled
cut_in late claim_jobs:row 2 60
for how in after late; do
  train "rescued-$how" 500 100
  wait_sql 30 "$name" "SELECT worker_id FROM job_leases JOIN jobs ON id = job_id WHERE request_id = 'rescued-$how'"
  start_worker "$work/second.conf" "$work/second.log"
  order $how rescue_lease
  kill_worker "$first"
  wait_for 30 "the cut $how the commit of a rescue" was_cut
  wait_state 60 "rescued-$how" succeeded
  sql_is 1 "SELECT count(*) FROM job_attempts JOIN jobs ON id = job_id WHERE outcome = 'lease_lost' AND request_id = 'rescued-$how'" ||
    fail "rescued-$how: not one rescue"
  whole "rescued-$how" 500 2
  passed "cut $how the commit of a rescue"
  stop_worker "$worker_pid"
  start_worker "$work/2.conf" "$work/worker.log"
  first=$worker_pid
done

wait_sql 30 0 "SELECT count(*) FROM outbox"
sql_is "0|0|0" "SELECT (SELECT count(*) FROM job_leases), sum(ready), sum(running) FROM tenant_load" || fail "leases or counts are left: $(sql "SELECT * FROM tenant_load")"
sql_is t "SELECT bool_and(audit_chain_whole(id)) FROM jobs" || fail "an audit chain is not whole"
sql_is "$(wc -l <"$work/sent.log")" "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM commands)" || fail "a message is missing or was taken twice"
sql_is "" "SELECT job_id FROM job_events GROUP BY job_id HAVING max(sequence) <> count(*)" || fail "a gap in the events of a job"
passed "$(wc -l <"$work/cuts") cuts: no lease, no count and no event too many or too few"
echo "$checks checks passed"
