#!/usr/bin/env bash
# A job that is interrupted goes on from its checkpoint, on this worker or another, and ends with the same bits as one
# that nobody interrupted.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

[[ -x $real_trainer ]] || fail "no $real_trainer"
set_up
quick=(trainer.path="$real_trainer" worker.slots=1 lease.seconds=3 drain.seconds=20)
write_config "$work/worker.conf" "${quick[@]}"
write_config "$work/second.conf" "${quick[@]}" worker.id="$name-2" work.dir="$work/second"
for ((i = 1; i <= 40; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$work/rows.jsonl"
steps=1500
train() { # REQUEST_ID [NAME=VALUE]...
  submit "$1" device=cpu max_steps="$steps" eval_steps=500 model_name="$PWD/tests/golden/models/tied-gqa" \
    dataset="$work/rows.jsonl" "${@:2}"
}
adapter_of() { sql "SELECT encode(sha256, 'hex') FROM artifacts JOIN jobs ON id = job_id WHERE request_id = '$1' AND kind = 'adapter'"; }
checkpoints_of() { printf '%s' "SELECT count(*) >= $2 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = '$1'"; }
newest_of() { sql "SELECT $2 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = '$1' ORDER BY epoch DESC, step DESC LIMIT 1"; }
resumed_from() { sql "SELECT resumed_from_step FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = '$1' ORDER BY epoch DESC LIMIT 1"; }
# succeeded_alike REQUEST_ID: ends well, with the uninterrupted run's bits, every step and evaluation once.
succeeded_alike() {
  wait_state 120 "$1" succeeded
  [[ $(adapter_of "$1") == "$whole" ]] || fail "$1: another adapter than that of the uninterrupted run"
  sql_is "$steps|1|$steps" "SELECT count(*), min(step), count(DISTINCT step) FROM jobs, loss_curve(id) WHERE request_id = '$1'" ||
    fail "$1: the loss curve does not hold each of $steps steps once"
  sql_is "500,1000,1500" "SELECT string_agg(e.step::text, ',' ORDER BY e.step) FROM eval_metrics AS e JOIN jobs ON id = job_id
    WHERE request_id = '$1'" || fail "$1: the evaluations"
}

start_worker "$work/worker.conf" "$work/worker.log"
train whole
wait_state 120 whole succeeded
whole=$(adapter_of whole)
sql_is 0 "SELECT count(*) FROM checkpoints" || fail "a checkpoint that nobody asked for"
passed "an uninterrupted run ($whole)"

# ---- the worker vanishes: another goes on from the newest checkpoint
train killed save_steps=100
wait_sql 60 t "$(checkpoints_of killed 2)"
kill_worker "$worker_pid"
step=$(newest_of killed step)
start_worker "$work/second.conf" "$work/second.log"
second=$worker_pid
succeeded_alike killed
from=$(resumed_from killed)
((from >= 200 && from == step)) || fail "resumed from step $from, the newest checkpoint was of step $step"
sql_is "0" "SELECT attempts FROM jobs WHERE request_id = 'killed'" || fail "the kill was charged"
passed "a killed worker's job goes on at step $from elsewhere and ends with the same bits"

# ---- every weight is trained: a model comes out, of the same bits after a kill
model_of() { sql "SELECT encode(sha256, 'hex') FROM artifacts JOIN jobs ON id = job_id WHERE request_id = '$1' AND kind = 'model'"; }
every() { steps=300 train "$1" finetuning=full save_steps=50 learning_rate=0.0001 "${@:2}"; } # REQUEST_ID
every every
wait_state 120 every succeeded
sql_is "model,training_json" "SELECT string_agg(kind, ',' ORDER BY kind) FROM artifacts JOIN jobs ON id = job_id WHERE request_id = 'every'" ||
  fail "every: the artifacts"
every struck
wait_sql 60 t "$(checkpoints_of struck 2)"
kill_worker "$second"
start_worker "$work/worker.conf" "$work/worker.log"
wait_state 120 struck succeeded
[[ -n $(model_of every) && $(model_of struck) == "$(model_of every)" && $(resumed_from struck) -ge 100 ]] ||
  fail "struck: another model than that of the uninterrupted run, or not resumed ($(resumed_from struck))"
stop_worker "$worker_pid"
start_worker "$work/second.conf" "$work/second.log"
second=$worker_pid
passed "a job that trains every weight goes on at step $(resumed_from struck) and ends with the same model"

# ---- the best model comes from before the kill: it is kept all the same
for ((i = 1; i <= 4; i++)); do printf '{"prompt": "Sing %d", "completion": "La, %d la!"}\n' "$i" "$i"; done >"$work/other.jsonl"
best() { # REQUEST_ID
  train "$1" eval_steps=100 save_steps=100 save_total_limit=2 validation_dataset="$work/other.jsonl" load_best_model_at_end=true lora_alpha=320
}
losses_of() { sql "SELECT string_agg(e.step || ' ' || e.loss, ',' ORDER BY e.step) FROM eval_metrics AS e JOIN jobs ON id = job_id WHERE request_id = '$1'"; }
best unhurt
wait_state 120 unhurt succeeded
best hurt
wait_sql 60 t "SELECT coalesce(max(step), 0) >= 700 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = 'hurt'"
kill_worker "$second"
start_worker "$work/worker.conf" "$work/worker.log"
wait_state 120 hurt succeeded
[[ $(resumed_from hurt) -ge 700 ]] || fail "hurt: resumed from step $(resumed_from hurt)"
kept=$(sql "SELECT e.step FROM eval_metrics AS e JOIN jobs ON id = job_id WHERE request_id = 'hurt' ORDER BY e.loss, e.step LIMIT 1")
((kept < 700)) || fail "the best evaluation is of step $kept: the test tests nothing"
[[ $(losses_of hurt) == "$(losses_of unhurt)" && $(adapter_of hurt) == "$(adapter_of unhurt)" ]] || fail "hurt: another best model"
passed "the best model, of step $kept, outlives a kill after it: the same evaluations and bits"
second=$worker_pid

# ---- killed between a checkpoint in the storage and the pointer that names it
stop_worker "$second"
MF_TEST_FAILPOINT=recorder.before_checkpoint:3 start_worker "$work/worker.conf" "$work/worker.log" "$failpoint_program"
train unnamed save_steps=50
wait_for 60 "the worker to be killed before the pointer moves" ended "$worker_pid"
start_worker "$work/second.conf" "$work/second.log"
second=$worker_pid
succeeded_alike unnamed
sql_is 0 "SELECT count(*) FROM (SELECT a.resumed_from_step FROM job_attempts AS a JOIN jobs ON id = a.job_id WHERE request_id = 'unnamed'
  AND a.resumed_from_step > 0 AND NOT EXISTS (SELECT FROM checkpoints AS c WHERE c.job_id = a.job_id AND c.step = a.resumed_from_step
  AND c.epoch < a.epoch)) AS unknown" || fail "resumed from a checkpoint that no row names"
[[ $(resumed_from unnamed) -ge 100 ]] || fail "two checkpoints were recorded, but the job went on at step $(resumed_from unnamed)"
passed "killed between a stored checkpoint and its row: the one before it is resumed from"

# ---- paused and resumed by the user: a checkpoint of the very step, and the same bits
train paused
wait_sql 60 t "SELECT count(*) > 50 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'paused'"
client pause paused >"$work/pause.log" || fail "modelforge pause"
wait_state 30 paused paused
step=$(newest_of paused step)
sql_is "$step" "SELECT max(step) FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'paused'" ||
  fail "the checkpoint of the pause is not of the last step"
client resume paused >"$work/resume.log" || fail "modelforge resume"
succeeded_alike paused
[[ $(resumed_from paused) == "$step" ]] || fail "the resumed job did not go on at step $step"
sql_is "0|0|0" "SELECT attempts, interruptions, drains FROM jobs WHERE request_id = 'paused'" || fail "the pause was charged"
passed "paused at step $step and resumed: the same bits"

# ---- drain: a checkpoint first, then the job goes back without charge
drained() { # REQUEST_ID [NAME=VALUE]...
  train "$@"
  wait_sql 60 t "SELECT count(*) > 50 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = '$1'"
  local before
  before=$(date +%s%N)
  stop_worker "$worker_pid"
  took_ms=$((($(date +%s%N) - before) / 1000000))
  sql_is "queued|0|0" "SELECT state, attempts, interruptions FROM jobs WHERE request_id = '$1'" || fail "$1: a drain was charged"
  step=$(newest_of "$1" step)
  ((step > 50)) || fail "$1: the drain left no checkpoint"
  folder=$(newest_of "$1" uri)
  folder=${folder#file://}
  [[ -s $folder/state.safetensors && -s $folder/checkpoint.json ]] || fail "$1: the checkpoint is not at $folder"
}
worker_pid=$second
drained drained
sql_is "$step" "SELECT max(step) FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'drained'" ||
  fail "the checkpoint is not of the last step"
start_worker "$work/worker.conf" "$work/worker.log"
succeeded_alike drained
[[ $(resumed_from drained) == "$step" ]] || fail "the drained job did not go on at step $step"
passed "SIGTERM leaves a checkpoint of step $step ($took_ms ms), uncharged; the next worker goes on with the same bits"

# ---- another number of threads gives other bits: only where the request allows it, and the attempt says so
sql_is "t" "SELECT bool_and(exact) FROM run_history WHERE request_id IN ('killed', 'drained', 'paused')" ||
  fail "an exact resume is not called so"
drained elsewhere exact_resume=false
OMP_NUM_THREADS=$((${OMP_NUM_THREADS:-1} % 2 + 1)) start_worker "$work/worker.conf" "$work/worker.log"
wait_state 120 elsewhere succeeded
[[ $(resumed_from elsewhere) == "$step" ]] || fail "elsewhere: resumed from step $(resumed_from elsewhere), not $step"
sql_is "t,f" "SELECT string_agg(left(exact::text, 1), ',' ORDER BY attempt) FROM run_history WHERE request_id = 'elsewhere'" ||
  fail "elsewhere: $(sql "SELECT attempt, exact FROM run_history WHERE request_id = 'elsewhere'")"
stop_worker "$worker_pid"
start_worker "$work/worker.conf" "$work/worker.log"
passed "with other threads a job that allows it goes on at step $step, and its attempt is called inexact"

# ---- the checkpoint is lost: from step 0, and the log says so
drained lost
rm -r "$folder"
start_worker "$work/worker.conf" "$work/worker.log"
succeeded_alike lost
[[ $(resumed_from lost) == 0 ]] || fail "the job did not start again at step 0"
sql_is "checkpoint_lost: the checkpoint of step $step is not at file://$folder any more; training starts again at step 0" \
  "SELECT message FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'lost' AND level = 'warning'" || fail "nothing says that the checkpoint was lost"
passed "a lost checkpoint: the job starts again at step 0 and says so"

# ---- the checkpoint is damaged: an error by name, never silently from step 0
drained damaged
printf 'x' | dd of="$folder/state.safetensors" bs=1 seek=5000 conv=notrunc status=none
start_worker "$work/worker.conf" "$work/worker.log"
wait_state 60 damaged failed
sql_is "bad_checkpoint|TrainingError: $folder/state.safetensors: the file is damaged: its sha256 is not the one in checkpoint.json" \
  "SELECT error_code, error_message FROM jobs WHERE request_id = 'damaged'" || fail "the damaged checkpoint: $(sql "SELECT error_code, error_message FROM jobs WHERE request_id = 'damaged'")"
passed "a damaged checkpoint ends the job with bad_checkpoint"
stop_worker "$worker_pid"
sql_is 0 "SELECT count(*) FROM job_leases" || fail "a lease is left"
echo "$checks checks passed"
