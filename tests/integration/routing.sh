#!/usr/bin/env bash
# Where jobs run: devices, memory, labels and numbers of GPUs against what workers have; GPUs locked for the job that has
# them, several workers of a host, health. The GPUs are those of an inventory file; the trainer is the fake one, which
# says which GPUs it sees.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
inventory=$work/gpus.json
export TMPDIR=$work/tmp # where trainers say which GPUs they use
mkdir "$TMPDIR"
gpu() { # LETTER GIB [USED_GIB [FAULT]]
  jq -n --arg uuid "GPU-$1" --argjson gib "$2" --argjson used "${3:-0}" --arg fault "${4:-}" \
    '{uuid: $uuid, name: "Card", memory_bytes: ($gib * 1073741824), used_bytes: ($used * 1073741824), fault: $fault}'
}
gpus() { # JSON objects on standard input
  jq -s '{gpus: .}' >"$inventory.new"
  mv "$inventory.new" "$inventory"
}
{ gpu A 80; gpu B 80; gpu C 40; gpu D 24; } | gpus
quick=(lease.seconds=3 provider.grace_seconds=3600 gpu.lock_dir="$work/locks")
write_config "$work/cpu.conf" "${quick[@]}" worker.id="$name-cpu" work.dir="$work/cpu" worker.gpus=none claim.poll_ms=60000
write_config "$work/one.conf" "${quick[@]}" worker.slots=4 gpu.inventory_file="$inventory" gpu.poll_ms=50 worker.labels=zone=eu,tier=a
write_config "$work/two.conf" "${quick[@]}" worker.id="$name-two" work.dir="$work/two" worker.slots=4 \
  gpu.inventory_file="$inventory" gpu.poll_ms=50
free() { flock -n "$work/locks/modelforge-$1.lock" true; } # UUID: its lock is to be had
taken() { ! free "$1"; }
on() { sql "SELECT attempt.device FROM job_attempts AS attempt JOIN jobs ON id = job_id WHERE request_id = '$1' ORDER BY epoch DESC LIMIT 1"; }
wait_on() { wait_sql 20 "$2" "SELECT attempt.device FROM job_attempts AS attempt JOIN jobs ON id = job_id WHERE request_id = '$1' ORDER BY epoch DESC LIMIT 1"; }
reason() { sql "SELECT waiting_reason FROM jobs WHERE request_id = '$1'"; }
wait_reason() { wait_sql 20 "$2" "SELECT waiting_reason FROM jobs WHERE request_id = '$1'"; }

# ---- a worker without GPUs
start_worker "$work/cpu.conf" "$work/cpu.log"
cpu_worker=$worker_pid
submit slow-cuda device=cuda
submit good-labelled labels=zone=eu device=cpu # no GPU, so that it takes none before slow-cuda does
wait_reason slow-cuda "needs a GPU; no live worker has one that works for provider 'huggingface'"
wait_reason good-labelled "no live worker of provider 'huggingface' has the labels {\"zone\": \"eu\"}"
client status "$(sql "SELECT id FROM jobs WHERE request_id = 'slow-cuda'")" >"$work/status"
grep -q "needs a GPU; no live worker has one" "$work/status" || fail "modelforge status: $(cat "$work/status")"
submit good-cpu device=cpu
wait_state 20 good-cpu succeeded
[[ $(on good-cpu) == "cpu: a fake processor" ]] || fail "good-cpu ran on $(on good-cpu)"
passed "a job of a GPU or of labels waits while no worker has them, and says so; others pass it"

# ---- a slot that becomes free is used at once, whatever the time between two looks
for i in $(seq 1 15); do submit "good-idle-$i" device=cpu; done
wait_sql 40 15 "SELECT count(*) FROM jobs WHERE request_id LIKE 'good-idle-%' AND state = 'succeeded'"
idle_ms=$(sql "SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY 1000 * extract(epoch FROM started_at - before)))
  FROM (SELECT attempt.started_at, lag(attempt.ended_at) OVER (ORDER BY attempt.started_at) AS before
        FROM job_attempts AS attempt JOIN jobs ON id = job_id WHERE request_id LIKE 'good-idle-%') AS turn")
((idle_ms < 50)) || fail "between an end and the next claim lie $idle_ms ms"
passed "the next claim comes $idle_ms ms (median) after an end"

# ---- GPUs: the smallest that is enough, each for one job, seen by its trainer and no other
start_worker "$work/one.conf" "$work/one.log"
one=$worker_pid
wait_on slow-cuda "cuda: GPU-D"
sql_is '["GPU-D"]' "SELECT gpu_uuids FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = 'slow-cuda'" || fail "gpu_uuids"
wait_state 20 good-labelled succeeded
submit slow-large min_gpu_memory_gib=60
wait_on slow-large "cuda: GPU-B"
submit slow-middle min_gpu_memory_gib=30
wait_on slow-middle "cuda: GPU-C"
submit slow-last device=cuda
wait_on slow-last "cuda: GPU-A"
for uuid in GPU-A GPU-B GPU-C GPU-D; do taken $uuid || fail "$uuid is not locked"; done
passed "four jobs on one host have a GPU each: the smallest that is enough"
sql_is "4|80.0|t" "SELECT jsonb_array_length(gpus), round((gpus -> 0 ->> 'memory_bytes')::numeric / 1073741824, 1), labels = '{\"zone\": \"eu\", \"tier\": \"a\"}'
  FROM worker_status WHERE worker_id = '$name'" || fail "worker_status: $(sql "SELECT gpus, labels FROM worker_status")"
passed "worker_status shows GPUs and labels"
for id in slow-large slow-middle slow-last; do cancel $id; done
wait_sql 20 0 "SELECT count(*) FROM jobs WHERE request_id IN ('slow-large', 'slow-middle', 'slow-last') AND state = 'running'"
for uuid in GPU-A GPU-B GPU-C; do wait_for 10 "$uuid to be free" free $uuid; done
passed "the lock of a GPU is free when its job has ended"

# ---- a worker that is killed leaves no lock; the one that comes back has its GPUs and its job
kill_worker "$one"
wait_for 10 "the killed worker's GPU" free GPU-D
start_worker "$work/one.conf" "$work/one.log"
one=$worker_pid
wait_sql 20 "running|2" "SELECT state, lease_epoch FROM jobs WHERE request_id = 'slow-cuda'"
wait_for 10 "the GPU to be locked again" taken GPU-D
# A process that outlives its worker keeps its GPU to itself.
(
  exec 9<"$work/locks/modelforge-GPU-C.lock"
  flock 9
  exec sleep 60
) &
survivor=$!
worker_pids+=("$survivor")
wait_for 10 "the survivor" taken GPU-C
submit slow-beside min_gpu_memory_gib=30
wait_on slow-beside "cuda: GPU-B"
cancel slow-beside
wait_state 20 slow-beside cancelled
kill "$survivor"
wait_for 10 "the survivor's GPU" free GPU-C
passed "a killed worker's GPUs are free, and not before the last process that uses one has ended"

# ---- several GPUs at once: all or nothing, by two workers of one host
start_worker "$work/two.conf" "$work/two.log"
two=$worker_pid
cancel slow-cuda
wait_state 20 slow-cuda cancelled
for i in 1 2 3 4; do submit "alone-wide-$i" gpus=3; done
submit alone-wide-5 gpus=4
wait_sql 60 5 "SELECT count(*) FROM jobs WHERE request_id LIKE 'alone-wide-%' AND state = 'succeeded'"
submit slow-pair gpus=2 min_gpu_memory_gib=60
wait_on slow-pair "cuda: GPU-B,GPU-A"
sql_is 1 "SELECT max(lease_epoch) FROM jobs WHERE request_id LIKE 'alone-wide-%'" || fail "a job was given back, or met another one on its GPU"
passed "jobs of three and four GPUs take turns, whichever of two workers of the host has them"
cancel slow-pair
wait_state 20 slow-pair cancelled
stop_worker "$two"

# ---- health: what the inventory says changes what is advertised and taken
{ gpu A 80 0 "Xid 79"; gpu B 80 3; gpu C 40; gpu D 24; } | gpus
wait_sql 20 "Xid 79" "SELECT gpus -> 0 ->> 'fault' FROM worker_status WHERE worker_id = '$name'"
grep -q '"a GPU is taken out of service","uuid":"GPU-A","name":"Card","reason":"Xid 79"' "$work/one.log" || fail "the log says nothing"
submit slow-free min_gpu_memory_gib=60
submit good-pair gpus=4
wait_reason good-pair "needs 4 GPUs at once; no live worker gives a job of provider 'huggingface' so many"
wait_state 20 slow-free queued
submit good-beside device=cpu # claimed after a look at both
wait_state 20 good-beside succeeded
sql_is "queued|0" "SELECT state, lease_epoch FROM jobs WHERE request_id = 'slow-free'" || fail "slow-free took a GPU that is used or out"
{ gpu A 80 0 "Xid 79"; gpu B 80; gpu C 40; gpu D 24; } | gpus
wait_on slow-free "cuda: GPU-B"
passed "a GPU with a fault is out of the advertisement, one that others use waits until it is free"
{ gpu A 80; gpu B 80; gpu C 40; gpu D 24; } | gpus
wait_reason good-pair ""
cancel slow-free
wait_state 20 good-pair succeeded
passed "a GPU that is well again is used again"
{ gpu C 40; gpu D 24; } | gpus
wait_sql 20 2 "SELECT jsonb_array_length(gpus) FROM worker_status WHERE worker_id = '$name'"
echo '{"gpus": 7}' >"$inventory"
wait_sql 20 t "SELECT gpus -> 0 ->> 'fault' LIKE 'it cannot be looked at: gpu.inventory_file: %' FROM worker_status WHERE worker_id = '$name'"
passed "GPUs that cannot be looked at are not used"
stop_worker "$one"
stop_worker "$cpu_worker"

# ---- nowhere to be had: failed with the list, after the grace time
{ gpu C 40; gpu D 24 0 "Xid 48"; } | gpus
write_config "$work/one.conf" "${quick[@]}" gpu.inventory_file="$inventory" worker.labels=zone=eu worker.gpus=GPU-C,1 \
  provider.grace_seconds=1
start_worker "$work/one.conf" "$work/one.log"
submit good-nowhere min_gpu_memory_gib=60
wait_state 20 good-nowhere failed
sql_is "unplaceable|ResourceError: needs a GPU of at least 60.0 GiB of memory; no live worker of provider 'huggingface' has that. What the live workers of this provider have: $name: Card, 40.0 GiB + Card, 24.0 GiB (out: Xid 48), labels {\"zone\": \"eu\"}" \
  "SELECT error_code, error_message FROM jobs WHERE request_id = 'good-nowhere'" ||
  fail "$(sql "SELECT error_code, error_message FROM jobs WHERE request_id = 'good-nowhere'")"
passed "what is nowhere to be had fails with the list of what is there"
stop_worker "$worker_pid"

# ---- settings that cannot be
refuses() { # TEXT NAME=VALUE...
  local text=$1 status=0
  shift
  write_config "$work/wrong.conf" "${quick[@]}" "$@"
  timeout 20 "$worker_program" --config "$work/wrong.conf" >"$work/wrong.log" 2>&1 || status=$?
  if [[ $status != 2 ]] || ! grep -qF "$text" "$work/wrong.log"; then fail "$*: $status, $(cat "$work/wrong.log")"; fi
}
refuses "worker.gpus: 'GPU-' names several of the 2 GPUs here" gpu.inventory_file="$inventory" worker.gpus=GPU-
refuses "worker.gpus: '2' names none of the 2 GPUs here" gpu.inventory_file="$inventory" worker.gpus=2
refuses "gpu.inventory_file: " gpu.inventory_file="$work/none.json"
refuses "worker.labels: 'zone' is not name=value" worker.labels=zone=eu,zone=us
refuses "gpu.lock_dir: " gpu.inventory_file="$inventory" gpu.lock_dir="$work/gpus.json/locks"
passed "settings that name what is not there are refused"
echo "$checks checks passed"
