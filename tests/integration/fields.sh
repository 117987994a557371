#!/usr/bin/env bash
# The request's fields that the queue reads, each at another value than its default: what PostgreSQL shows of the job.
# tests/worker/trainer/fields.sh does the same for those that the trainer reads, and fails for a field of neither.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
write_config "$work/worker.conf" "tenants=$requests=*"
start_worker "$work/worker.conf" "$work/worker.log"
cat >"$work/request.json" <<'TEXT'
{"task": "text-generation", "model_name": "/models/m", "dataset": "/data/d.jsonl", "request_id": "changed", "tenant": "team-a",
 "submitted_by": "alice", "batch_id": "night", "priority": -7, "run_at": "2033-01-01T00:00:00Z",
 "deadline": "2033-01-02T00:00:00Z", "max_attempts": 5, "preemptible": true, "labels": {"team": "x"}, "metadata": {"a": "1"}}
TEXT
client submit "$work/request.json" >"$work/submit.log" 2>&1 || fail "submit: $(cat "$work/submit.log")"
wait_sql 60 1 "SELECT count(*) FROM jobs WHERE request_id = 'changed'"
# What each field changes, and what it would be without it.
checked=()
shows() { # FIELD EXPRESSION VALUE
  sql_is "$3" "SELECT $2 FROM job_overview AS job JOIN job_configs AS config USING (job_id) WHERE request_id = 'changed'" ||
    fail "$1: $(sql "SELECT $2 FROM job_overview AS job JOIN job_configs AS config USING (job_id) WHERE request_id = 'changed'"), not $3"
  checked+=("$1")
}
shows request_id job.request_id changed
shows tenant job.tenant team-a
shows submitted_by job.submitted_by alice
shows batch_id job.batch_id night
shows priority job.priority -7
shows run_at "job.run_at = '2033-01-01T00:00:00Z' AND job.state = 'queued' AND job.attempt = 0" t
shows deadline "job.deadline = '2033-01-02T00:00:00Z'" t
shows max_attempts job.max_attempts 5
shows preemptible "(SELECT preemptible FROM jobs WHERE id = job_id)" t
shows labels "(SELECT needs -> 'labels' ->> 'team' FROM jobs WHERE id = job_id)" x
shows metadata "config.config -> 'metadata' ->> 'a'" 1
sql_is "team-a|night|1" "SELECT tenant, batch_id, jobs FROM batch_summary" || fail "batch_summary"
left=$(sed -n "s/^queue='\(.*\)'$/\1/p" tests/worker/trainer/fields.sh)
[[ -n $left && $left == "${checked[*]}" ]] || fail "the trainer's test leaves to this one: $left; looked at here: ${checked[*]}"
passed "${#checked[@]} fields that the queue reads"

stop_worker "$worker_pid"
echo "$checks checks passed"
