#!/usr/bin/env bash
# A trainer's life under the worker: what it reports reaches PostgreSQL, and whatever it does instead of its work is
# told apart, ends within its limits, and harms neither the worker nor other jobs.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
# Memory is measured below: what a sanitizer holds back of freed memory is not the worker's.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=16"
quick=(worker.slots=4 watchdog.train_seconds=1.5)
write_config "$work/worker.conf" "${quick[@]}" lease.seconds=6 cancel.seconds=0.5 drain.seconds=10
start_worker "$work/worker.conf" "$work/worker.log"
worker=$worker_pid

one() { sql "SELECT $2 FROM jobs WHERE request_id = '$1'"; }
job() { one "$1" id; }

# ---- the way of a good job
submit good-1 seed=7
wait_state 30 good-1 succeeded
id=$(job good-1)
sql_is 20 "SELECT count(*) FROM step_metrics WHERE job_id = '$id'" || fail "20 steps were reported"
sql_is "1|4|20|0.2" "SELECT min(step), max(loss), max(step), min(loss) FROM loss_curve('$id')" || fail "the loss curve"
sql_is "20|0.3|1.35" "SELECT step, loss, perplexity FROM eval_metrics WHERE job_id = '$id'" || fail "the evaluation"
sql_is trained "SELECT message FROM job_logs WHERE job_id = '$id'" || fail "the log line"
sql_is "7|cpu: a fake processor|20|90|10|4000|1|2|fake" "SELECT seed, device, total_steps, train_rows, eval_rows, train_tokens,
  truncated_rows, dropped_rows, versions->>'trainer' FROM job_attempts WHERE job_id = '$id'" || fail "the attempt's record"
sql_is "20|0.2|800" "SELECT result->>'steps', result->>'train_loss', result->>'trained_tokens' FROM job_configs
  WHERE job_id = '$id'" || fail "the result"
uri=$(sql "SELECT uri FROM artifacts WHERE job_id = '$id' AND kind = 'adapter'")
folder=${uri#file://}
[[ $folder == "$work/storage/default/$id/"* && -s $folder/adapter_model.safetensors ]] || fail "the adapter is not at $uri"
digest=$(cd "$folder" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
sql_is "$digest|30" "SELECT encode(sha256, 'hex'), size_bytes FROM artifacts WHERE job_id = '$id' AND kind = 'adapter'" || fail "the digest"
passed "a good job: steps, evaluation, log, provenance, result, adapter with its digest"
[[ -z $(ls -A "$work/worker/runs" 2>/dev/null) ]] || fail "the attempt's folder is still there"
passed "its attempt folder is gone"

wait_sql 30 0 "SELECT count(*) FROM outbox" # a row leaves it when the broker has it
kcat -C -b "$brokers" -t "$events" -e -q -f '%k %S\n' >"$work/events"
grep -q '^default/good-1 ' "$work/events" || fail "no event of the job on the events topic"
passed "its events are on the events topic under the job's key"

# ---- what a trainer may do wrong: request id, then exact state, code and message of the job
expect() { # REQUEST_ID STATE CODE MESSAGE
  submit "$1" max_attempts=1
  wait_state 30 "$1" "$2"
  local got
  got=$(one "$1" "error_code || '|' || error_message")
  [[ $got == "$3|$4" ]] || fail "$1: expected '$3|$4', got '$got'"
  passed "$1: $3"
}
expect crash-1 failed trainer_crashed "TrainingError: the trainer ended without saying why: killed by signal 11 (Segmentation fault) in phase train after step 1; it wrote: matrix is on fire"
expect leave-1 failed trainer_crashed "TrainingError: the trainer ended without saying why: exit code 7 in phase load after step 0"
expect lying-1 failed trainer_crashed "TrainingError: the trainer said done but then ended with exit code 5"
expect garbage-1 failed provider_protocol "ProviderError: trainer protocol: a line is not a JSON object: '[' or '{' expected near 'Traceback' at byte 9"
expect longline-1 failed provider_protocol "ProviderError: trainer protocol: a line is longer than 65536 bytes"
expect outside-1 failed provider_protocol "ProviderError: the trainer named the artifact '/etc', which leads out of the attempt's folder"
expect climbing-1 failed provider_protocol "ProviderError: the trainer named the artifact 'output/../../../worker.lock', which leads out of the attempt's folder"
expect linked-1 failed provider_protocol "ProviderError: the trainer named the artifact 'output/adapter', which holds a symbolic link"
expect missing-1 failed provider_protocol "ProviderError: the trainer named the artifact 'output/nothing', which cannot be opened"
expect empty-1 failed provider_protocol "ProviderError: the trainer said done but named no artifact"
expect rude-1 failed provider_protocol "ProviderError: the trainer said progress before hello"
expect unasked-1 failed provider_protocol "ProviderError: the trainer said cancelled without being asked to"
expect backwards-1 failed provider_protocol "ProviderError: the trainer said step 4 after step 5"
expect failing-1 failed bad_weights "ModelAccessError: model.safetensors: tensor 'w' ends at byte 9 of 8"
expect inventive-1 failed flux_inverted "InfrastructureError: the flux is inverted"
sql_is 0 "SELECT count(*) FROM artifacts JOIN jobs ON id = job_id WHERE request_id <> 'good-1'" || fail "an artifact of a failed job"
[[ -z $(find "$work/storage" -name '*.tmp' -o -name passwd) ]] || fail "the storage holds what it must not"
passed "no failed job left anything in the storage"

# ---- values that PostgreSQL refuses must not keep a job running for ever
sql "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN
  IF (SELECT request_id FROM modelforge.jobs WHERE id = NEW.job_id) = TG_ARGV[0] THEN
    RAISE EXCEPTION 'this value cannot be' USING ERRCODE = '22003'; END IF; RETURN NEW; END \$\$;
  GRANT EXECUTE ON FUNCTION public.refuse() TO PUBLIC;
  CREATE TRIGGER refuse BEFORE INSERT ON artifacts FOR EACH ROW EXECUTE FUNCTION public.refuse('good-refused-artifact');
  CREATE TRIGGER refuse BEFORE UPDATE OF result ON job_configs FOR EACH ROW EXECUTE FUNCTION public.refuse('good-refused-result');
  CREATE TRIGGER refuse BEFORE UPDATE OF versions ON job_attempts FOR EACH ROW EXECUTE FUNCTION public.refuse('good-refused-detail')"
expect good-refused-artifact failed unstorable "RequestError: PostgreSQL refuses what this attempt ended with"
expect good-refused-result failed unstorable "RequestError: PostgreSQL refuses what this attempt ended with"
submit good-refused-detail
wait_state 30 good-refused-detail succeeded
sql_is 1 "SELECT count(*) FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'good-refused-detail'
  AND message LIKE 'what is known of the attempt could not be stored: %this value cannot be%'" || fail "the log says nothing of the detail"
passed "an end that cannot be stored fails its job; a detail that cannot is let go with a line in the log"

# ---- silence is an interruption: the job goes back to the queue, and its log says why
submit silent-1
wait_sql 30 1 "SELECT count(*) FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'silent-1'
  AND message LIKE 'trainer_timeout: nothing was heard from the trainer for 1 s in phase train after step 0'"
sql_is "0|t" "SELECT attempts, interruptions > 0 FROM jobs WHERE request_id = 'silent-1'" || fail "silence was charged as an attempt"
passed "a silent trainer is stopped by the watchdog of its phase"
cancel silent-1
wait_state 30 silent-1 cancelled

# ---- retries
submit crash-2 max_attempts=2
wait_state 30 crash-2 failed
sql_is 2 "SELECT attempts FROM jobs WHERE request_id = 'crash-2'" || fail "two attempts were allowed"
passed "a crash is tried again with back-off, up to max_attempts"

# ---- cancel
submit slow-1
wait_sql 30 t "SELECT count(*) > 3 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'slow-1'"
cancel slow-1
wait_state 20 slow-1 cancelled
passed "a running job is cancelled by message and its trainer obeys"
submit deaf-1
wait_sql 30 t "SELECT count(*) > 3 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'deaf-1'"
cancel deaf-1
wait_state 20 deaf-1 cancelled
passed "a trainer that ignores cancel and SIGTERM is killed and the job is cancelled"

# ---- endless output is bounded
submit flood-1
wait_sql 30 running "SELECT state FROM jobs WHERE request_id = 'flood-1'"
wait_sql 60 10000 "SELECT count(*) FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'flood-1'"
submit good-2
wait_state 30 good-2 succeeded
resident_kb=$(awk '/VmRSS/{print $2}' "/proc/$worker/status")
((resident_kb < 200000)) || fail "the worker holds $resident_kb kB"
cancel flood-1
wait_state 60 flood-1 cancelled
passed "endless log output is cut at its bound, other jobs go on, memory stays small ($resident_kb kB)"

# ---- drain: the job goes back without charge, the worker ends well
submit slow-2
wait_sql 30 t "SELECT count(*) > 3 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'slow-2'"
before=$(date +%s%N)
stop_worker "$worker"
took_ms=$((($(date +%s%N) - before) / 1000000))
sql_is "queued|0|0" "SELECT state, attempts, interruptions FROM jobs WHERE request_id = 'slow-2'" || fail "a drain was charged"
sql_is 0 "SELECT count(*) FROM job_leases" || fail "a lease is left"
! pgrep -f "$fake_trainer run $work" >/dev/null || fail "a trainer is left"
passed "SIGTERM gives the job back uncharged and leaves nothing behind ($took_ms ms)"

# ---- a second SIGTERM ends at once, and the next start takes the job over without waiting for the lease
write_config "$work/worker.conf" "${quick[@]}" lease.seconds=120 cancel.seconds=300 drain.seconds=300
start_worker "$work/worker.conf" "$work/worker2.log"
submit deaf-2
wait_state 30 deaf-2 running
wait_sql 30 t "SELECT count(*) > 3 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'deaf-2'"
kill -TERM "$worker_pid"
wait_for 10 "the drain to begin" grep -q '"draining"' "$work/worker2.log"
kill -TERM "$worker_pid"
wait_for 5 "the worker to end at once" ended "$worker_pid"
wait_for 5 "its trainers to die with it" eval "! pgrep -f '$fake_trainer run $work' >/dev/null"
sql_is running "SELECT state FROM jobs WHERE request_id = 'deaf-2'" || fail "the lease should still stand"
start_worker "$work/worker.conf" "$work/worker3.log"
wait_sql 20 t "SELECT lease_epoch >= 2 AND state = 'running' FROM jobs WHERE request_id = 'deaf-2'"
passed "a second SIGTERM ends at once; the same worker takes its own lease back at its next start"
echo "$checks checks passed"
