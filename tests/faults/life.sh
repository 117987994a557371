#!/usr/bin/env bash
# The life of a batch: 200 real trainings of three tenants on three workers, with priorities, weights and caps; one job is
# cancelled, one paused and resumed, one has rows that cannot be trained, one message is poison, one worker is killed, and
# PostgreSQL is away for 60 s. What came of it is read back by SQL, checked and printed. On a stack of its own.
build=${MF_TEST_BUILD:?the build folder}
stack=$(mktemp -d "${TMPDIR:-/tmp}/mf_life.XXXXXX")
own_clean_up() { ops/stack wipe "$stack" >/dev/null 2>&1; }
trap own_clean_up EXIT
[[ -n ${MF_TEST_KAFKA_BROKERS:-} ]] || {
  echo "skipped: no services are set up"
  exit 77
}
ops/stack up "$stack" >/dev/null 2>&1 || exit 1
eval "$(ops/stack env "$stack")"
MF_TEST_BUILD=$build
. "$(dirname "${BASH_SOURCE[0]}")/../integration/support.sh"

began=$SECONDS
say() { printf '[%4d s] %s\n' $((SECONDS - began)) "$*"; }
show() { # TITLE QUERY
  printf '\n%s\n' "$1"
  psql -X -q -P footer=off -P pager=off -d "$database_url" -c "$2"
}
id_of() { sql "SELECT id FROM jobs WHERE request_id = '$1'"; }

set_up
for ((i = 1; i <= 40; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$work/rows.jsonl"
sed '7s/.*/{"prompt": "question 7"}/' "$work/rows.jsonl" >"$work/bad.jsonl"
workers=()
for i in 1 2 3; do
  write_config "$work/$i.conf" trainer.path="$real_trainer" worker.slots=2 lease.seconds=8 worker.id="worker-$i" work.dir="$work/$i" \
    tenants="$requests=alpha,beta,gamma;$commands=alpha,beta,gamma" batch.settle_seconds=3
  start_worker "$work/$i.conf" "$work/$i.log"
  workers[i]=$worker_pid
done
say "three workers, two slots each: ${workers[*]}"

# ---- the batch, held until all of it is there, so that priorities decide from the first claim on
for tenant in alpha beta gamma; do client queues set huggingface "$tenant" --cap 0 >/dev/null 2>&1; done
request() { # TENANT REQUEST_ID PRIORITY STEPS [MORE]
  printf '{"task":"text-generation","model_name":"%s","dataset":"%s","device":"cpu","tenant":"%s","request_id":"%s","priority":%d,"max_steps":%d,"logging_steps":1,"eval_split":0%s}\n' \
    "$PWD/tests/golden/models/tied-gqa" "$work/rows.jsonl" "$1" "$2" "$3" "$4" "${5:-}"
}
{
  request alpha killed 9 6000 ',"save_steps":200'
  request alpha outage 9 20000
  request alpha cancelled 9 200000
  request alpha paused 9 6000
  request beta broken 9 5 | sed "s#$work/rows.jsonl#$work/bad.jsonl#"
  request alpha twin 0 6000 # of the killed and the paused one, and left alone
  for ((i = 1; i <= 99; i++)); do request alpha "a-$i" $((i % 3)) 5; done
  for ((i = 1; i <= 75; i++)); do request beta "b-$i" $((i % 3)) 5; done
  for ((i = 1; i <= 20; i++)); do request gamma "c-$i" 0 5; done
} >"$work/batch.jsonl"
client batch "$work/batch.jsonl" --batch-id life >"$work/sent" || fail "modelforge batch"
printf 'no avro at all' | kcat -P -b "$brokers" -t "$requests" -p 0
wait_sql 60 200 "SELECT count(*) FROM jobs WHERE batch_id = 'life'"
say "200 requests are queued, and one poison message between them"
client queues set huggingface alpha --cap 4 --weight 3
client queues set huggingface beta --cap 2 --weight 1
client queues set huggingface gamma --cap 1 --weight 1

# ---- a worker is killed while its job is beyond its second checkpoint
wait_sql 120 t "SELECT count(*) >= 2 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = 'killed'"
victim=$(sql "SELECT worker_id FROM job_leases JOIN jobs ON id = job_id WHERE request_id = 'killed'")
held=$(sql "SELECT count(*) FROM job_leases WHERE worker_id = '$victim'")
kill_worker "${workers[${victim#worker-}]}"
say "kill -9 $victim, which held $held job(s), at checkpoint step $(sql "SELECT max(step) FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = 'killed'")"

# by_living REQUEST_ID STEPS: an attempt on a worker that lives has trained so far
by_living() {
  wait_sql 180 t "SELECT count(*) >= $2 FROM job_leases AS l JOIN jobs ON id = l.job_id JOIN step_metrics AS m ON m.job_id = id AND m.epoch = l.epoch
    WHERE request_id = '$1' AND l.worker_id <> '$victim'"
}
by_living cancelled 20
client cancel alpha/cancelled --reason "seen enough" | sed 's/^/         /'
wait_state 60 cancelled cancelled
say "cancelled, after $(sql "SELECT max(step) FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'cancelled'") steps"
by_living paused 200
client pause alpha/paused | sed 's/^/         /'
wait_state 60 paused paused
say "paused at step $(sql "SELECT max(step) FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = 'paused'")"

# ---- PostgreSQL is away for a minute; jobs train on
by_living outage 50
before_outage=$(sql "SELECT lease_epoch FROM jobs WHERE request_id = 'outage'")
running=$(sql "SELECT string_agg(request_id, ' ' ORDER BY request_id) FROM jobs WHERE state = 'running'")
ops/stack stop "$stack" postgres >/dev/null 2>&1
say "PostgreSQL is stopped; running: $running"
sleep 60 # the outage itself
ops/stack start "$stack" postgres >/dev/null 2>&1
say "PostgreSQL is back"
wait_sql 30 t "SELECT true"
client resume alpha/paused | sed 's/^/         /'

client batch "$work/batch.jsonl" --batch-id life --wait --timeout 900 >"$work/ends" && fail "the batch ends well though a job failed"
say "the batch, sent a second time and waited for, has ended:"
sed 's/^/         /' "$work/ends"
wait_sql 60 3 "SELECT count(*) FROM job_events WHERE type = 'batch_finished'"
wait_sql 60 0 "SELECT count(*) FROM outbox"

show "The batch (view batch_summary)" \
  "SELECT tenant, jobs, queued, running, paused, succeeded, failed, cancelled, round, announced_at IS NOT NULL AS announced FROM batch_summary ORDER BY tenant"
show "The jobs that were meddled with (job_overview)" \
  "SELECT tenant, request_id, state, attempt, attempts, interruptions, step, total_steps, error_code FROM job_overview
   WHERE priority = 9 ORDER BY request_id"
show "Their attempts (run_history)" \
  "SELECT request_id, attempt, worker_id, outcome, resumed_from_step AS from_step, step, round(duration_seconds::numeric, 1) AS seconds
   FROM run_history WHERE request_id IN ('killed', 'outage', 'cancelled', 'paused', 'broken') ORDER BY request_id, attempt"
show "Attempts of all jobs by worker and outcome" \
  "SELECT worker_id, outcome, count(*) FROM run_history GROUP BY 1, 2 ORDER BY 1, 2"
show "When jobs of each priority were first claimed, seconds after the batch was let go" \
  "SELECT tenant, priority, count(*), round(min(extract(epoch FROM started_at - origin)), 1) AS first, round(max(extract(epoch FROM started_at - origin)), 1) AS last
   FROM job_overview, (SELECT min(started_at) AS origin FROM job_overview) AS o WHERE request_id ~ '^[abc]-' GROUP BY 1, 2 ORDER BY 1, 2 DESC"
show "What was rejected (reject_log)" "SELECT code, left(reason, 60) AS reason, value_bytes FROM reject_log"
show "Why it failed (failure_reasons)" "SELECT tenant, error_code, jobs, left(last_message, 90) AS message FROM failure_reasons"
show "Who set caps and weights (queue_change_log)" "SELECT provider, tenant, cap, weight, changed_by FROM queue_change_log ORDER BY change_id"
show "The events of the batch, one a tenant (audit_trail)" "SELECT request_id, type, detail FROM audit_trail WHERE type = 'batch_finished'"

sql_is 200 "SELECT count(*) FROM jobs" || fail "not 200 jobs"
sql_is "198|1|1" "SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'cancelled') FROM jobs" ||
  fail "the ends"
passed "200 jobs: 198 succeeded, the one with bad rows failed, the cancelled one is cancelled; one poison message rejected"
sql_is "1|1" "SELECT count(*), count(*) FILTER (WHERE code = 'not_avro') FROM reject_log" ||
  fail "the poison message: $(sql "SELECT code FROM reject_log")"
sql_is 0 "SELECT count(*) FROM (SELECT job_id FROM job_events WHERE type IN ('succeeded', 'failed', 'cancelled') GROUP BY job_id HAVING count(*) <> 1) AS twice" ||
  fail "a job ended twice"
sql_is t "SELECT bool_and(audit_chain_whole(id)) FROM jobs" || fail "an audit chain is not whole"
passed "every job ended once, and every audit chain is whole"
sql_is "0" "SELECT attempts FROM jobs WHERE request_id = 'killed'" || fail "the kill was charged to the job"
sql_is t "SELECT resumed_from_step >= 400 FROM run_history WHERE request_id = 'killed' ORDER BY attempt DESC LIMIT 1" || fail "it did not go on from its checkpoint"
sql_is "6000|6000" "SELECT count(*), count(DISTINCT step) FROM loss_curve('$(id_of killed)')" || fail "the loss curve of the killed job"
passed "the killed worker's job went on from its checkpoint elsewhere, uncharged, each of its 6,000 steps once"
sql_is "20000|0" "SELECT (SELECT count(*) FROM loss_curve(id)), attempts FROM jobs WHERE request_id = 'outage'" ||
  fail "the outage: aborted, rescued, or metrics are missing"
sql_is "$before_outage" "SELECT lease_epoch FROM jobs WHERE request_id = 'outage'" || fail "the outage job was rescued though its worker lived"
passed "a minute without PostgreSQL: the same attempt, all 20,000 steps recorded"
sql_is "6000|0|1" "SELECT (SELECT count(DISTINCT step) FROM loss_curve(job_id)), attempts,
  (SELECT count(*) FROM run_history AS r WHERE r.job_id = o.job_id AND outcome = 'paused') FROM job_overview AS o WHERE request_id = 'paused'" ||
  fail "the paused job"
sql_is t "SELECT resumed_from_step >= 200 FROM run_history WHERE request_id = 'paused' ORDER BY attempt DESC LIMIT 1" || fail "it did not go on from its pause"
passed "paused and resumed where it was, nothing charged"
weights=$(for name_ in killed paused twin; do
  uri=$(sql "SELECT uri FROM artifacts JOIN jobs ON id = job_id WHERE request_id = '$name_' AND kind = 'adapter'")
  sha256sum <"${uri#file://}/adapter_model.safetensors"
done | sort -u)
equals 1 wc -l <<<"$weights" || fail "the killed, the paused and the undisturbed job have other weights: $weights"
passed "their weights are those of a job that nobody disturbed, bit by bit"
# No tenant had more at once than its cap; within a tenant none started a second before one of higher priority.
sql_is 0 "SELECT count(*) FROM run_history AS a JOIN (VALUES ('alpha', 4), ('beta', 2), ('gamma', 1)) AS cap (tenant, jobs) USING (tenant)
          WHERE jobs < (SELECT count(*) FROM run_history AS b WHERE b.tenant = a.tenant AND b.started_at <= a.started_at AND b.ended_at > a.started_at)" ||
  fail "a cap"
sql_is 0 "SELECT count(*) FROM jobs AS low JOIN jobs AS high ON high.tenant = low.tenant AND high.priority > low.priority
          AND low.started_at < high.started_at - interval '1 second'" || fail "priorities"
passed "the caps and the priorities were kept"
kcat -C -b "$brokers" -t "$events" -e -q -f '%s\n' >"$work/events" 2>/dev/null
equals 3 eval "grep -ao '{\"batch_id\":\"life\"' '$work/events' | wc -l" || fail "batch_finished on the topic"
passed "one batch_finished for each tenant's part on the topic"
for i in 1 2 3; do [[ worker-$i == "$victim" ]] || stop_worker "${workers[i]}"; done
say "$checks checks passed"
