#!/usr/bin/env bash
# From a message produced to its trainer started: Kafka, ingest, claim, fork, by a worker with free slots. Needs what the
# integration tests need (MF_TEST_BUILD and the services' addresses).
# usage: latency.sh [JOBS] [PAUSE_MS]
. "$(dirname "${BASH_SOURCE[0]}")/../integration/support.sh"
jobs=${1:-200} pause=$(printf '0.%03d' "${2:-100}")

cat >"$work/trainer" <<TRAINER
#!/bin/bash
[[ \$1 != run ]] || printf '%s\t%s\n' "\$EPOCHREALTIME" "\$2" >>$work/started
exec $fake_trainer "\$@"
TRAINER
chmod +x "$work/trainer"
: >"$work/started"
set_up
write_config "$work/worker.conf" worker.slots=8 claim.poll_ms=1000 trainer.path="$work/trainer"
start_worker "$work/worker.conf" "$work/worker.log"
wait_sql 30 1 "SELECT count(*) FROM workers"
submit good-0 # the first one finds the schema and fills caches
wait_sql 30 1 "SELECT count(*) FROM jobs WHERE state = 'succeeded'"
for i in $(seq "$jobs"); do
  submit "good-$i"
  sleep "$pause" # the load that is measured, not a synchronisation
done
wait_sql 120 $((jobs + 1)) "SELECT count(*) FROM jobs WHERE state = 'succeeded'"

sed -E 's#\t.*/([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/.*#\t\1#' "$work/started" >"$work/started.tsv"
sql "CREATE TABLE public.started (at double precision, attempt_id uuid)"
psql -X -q -d "$database_url" -c "\copy public.started FROM '$work/started.tsv'"
sql_is $((jobs + 1)) "SELECT count(*) FROM public.started JOIN job_attempts USING (attempt_id)" || fail "trainers without a row"
echo "jobs, then milliseconds from the message produced: until the job's row, its claim, its trainer (p50, p99 each)"
sql "SELECT count(*), percentile_cont(ARRAY [.5, .99]) WITHIN GROUP (ORDER BY row_ms)::numeric(8, 1)[],
       percentile_cont(ARRAY [.5, .99]) WITHIN GROUP (ORDER BY claim_ms)::numeric(8, 1)[],
       percentile_cont(ARRAY [.5, .99]) WITHIN GROUP (ORDER BY trainer_ms)::numeric(8, 1)[]
     FROM (SELECT 1000 * extract(epoch FROM job.created_at - source_timestamp)::double precision AS row_ms,
                  1000 * extract(epoch FROM attempt.started_at - source_timestamp)::double precision AS claim_ms,
                  1000 * (started.at - extract(epoch FROM source_timestamp)::double precision) AS trainer_ms
           FROM public.started JOIN job_attempts AS attempt USING (attempt_id) JOIN job_configs USING (job_id)
           JOIN jobs AS job ON job.id = job_id WHERE job.request_id <> 'good-0') AS latency"
