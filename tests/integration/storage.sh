#!/usr/bin/env bash
# Artifacts and checkpoints in a bucket of S3, and the collector, against a real server that checks every signature.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

[[ -x $real_trainer ]] || fail "no $real_trainer"
[[ -n ${MF_TEST_PYTHON:-} ]] || {
  echo "skipped: MF_TEST_PYTHON is not set"
  exit 77
}
unset "${!AWS_@}"
export AWS_SHARED_CREDENTIALS_FILE=$work/credentials AWS_CONFIG_FILE=$work/none
bucket=modelforge-test
port=$(free_port)
endpoint=http://127.0.0.1:$port
serve_s3() {
  "$MF_TEST_PYTHON" tests/integration/s3_server.py "$port" "$bucket" "$work/credentials" >>"$work/s3.log" 2>&1 &
  s3_pid=$!
  worker_pids+=("$s3_pid")
  wait_for 30 "the S3 server" test -s "$work/credentials"
}
serve_s3
key_of() { sed -n "s/^$1 = //p" "$work/credentials"; }
secret=$(key_of aws_secret_access_key)

# ---- a job whose storage is a bucket
set_up
quick=(trainer.path="$real_trainer" worker.slots=1 lease.seconds=3 drain.seconds=20 storage.keep_seconds=0
  storage.collect_seconds=0)
in_bucket=(storage.url="s3://$bucket/runs/" storage.s3_endpoint="$endpoint")
write_config "$work/folder.conf" "${quick[@]}"
write_config "$work/worker.conf" "${quick[@]}" "${in_bucket[@]}"
write_config "$work/second.conf" "${quick[@]}" "${in_bucket[@]}" worker.id="$name-2" work.dir="$work/second"
for ((i = 1; i <= 40; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$work/rows.jsonl"
train() { # REQUEST_ID [NAME=VALUE]...
  submit "$1" device=cpu max_steps=600 model_name="$PWD/tests/golden/models/tied-gqa" dataset="$work/rows.jsonl" "${@:2}"
}
artifact() { sql "SELECT $2 FROM artifacts JOIN jobs ON id = job_id WHERE request_id = '$1' AND kind = 'adapter'"; }
checkpoints() { sql "SELECT $2 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = '$1'"; }
sum_of() { "$MF_TEST_PYTHON" tests/integration/s3_sum.py "$endpoint" "$1"; }
listed() { "$MF_TEST_PYTHON" tests/integration/s3_sum.py "$endpoint" "s3://$bucket/runs" | cut -d' ' -f2; }

start_worker "$work/folder.conf" "$work/folder.log"
train whole
wait_state 120 whole succeeded
stop_worker "$worker_pid"
whole=$(artifact whole "encode(sha256, 'hex')")

start_worker "$work/worker.conf" "$work/worker.log"
train stored save_steps=100
wait_sql 60 t "SELECT count(*) >= 2 FROM checkpoints"
kill_worker "$worker_pid"
step=$(checkpoints stored "max(step)")
start_worker "$work/second.conf" "$work/second.log"
wait_state 120 stored succeeded
[[ $(artifact stored "encode(sha256, 'hex')") == "$whole" ]] || fail "another adapter than that of the uninterrupted run in a folder"
uri=$(artifact stored uri)
[[ $uri == "s3://$bucket/runs/default/$(artifact stored job_id)/"*/adapter ]] || fail "the adapter is at $uri"
[[ $(sum_of "$uri") == "$(artifact stored "encode(sha256, 'hex') || ' ' || size_bytes")" ]] || fail "the bucket holds another adapter"
sql_is "$step" "SELECT max(resumed_from_step) FROM job_attempts" || fail "the job did not go on at step $step from the bucket"
passed "a killed worker's job goes on at step $step from the bucket and ends with the same bits"

# ---- modelforge-worker check: the bucket is written, read back and emptied; what refuses says so
check() { "$worker_program" check --config "$work/worker.conf" "$@"; }
before=$(listed)
check >"$work/check.txt" || fail "the check of a bucket that works: $(cat "$work/check.txt")"
grep -q "^ok *storage *s3://$bucket/runs/: 64 KiB written, read back and removed" "$work/check.txt" || fail "the check: $(cat "$work/check.txt")"
[[ $(listed) == "$before" ]] || fail "the check left something in the bucket"
! AWS_SECRET_ACCESS_KEY=wrong AWS_ACCESS_KEY_ID=$(key_of aws_access_key_id) check >"$work/check.txt" || fail "the check found nothing wrong with wrong keys"
grep -q "^FAULT *storage .*SignatureDoesNotMatch" "$work/check.txt" || fail "the check with wrong keys: $(cat "$work/check.txt")"
! check --set storage.url="s3://missing-$bucket/x" >"$work/check.txt" || fail "the check found nothing wrong with a missing bucket"
grep -q "^FAULT *storage .*NoSuchBucket" "$work/check.txt" || fail "the check of a missing bucket: $(cat "$work/check.txt")"
passed "the check tells a bucket that works from wrong keys and a missing one"

# ---- the storage is away: nothing is lost, and the job is not charged
train away save_steps=100
wait_sql 60 t "SELECT count(*) >= 1 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = 'away'"
kill -STOP "$s3_pid"
kill_worker "$worker_pid"
kill -KILL "$s3_pid"
start_worker "$work/worker.conf" "$work/worker.log"
wait_sql 90 t "SELECT count(*) >= 1 FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = 'away' AND outcome = 'watchdog'"
sql_is "0" "SELECT attempts FROM jobs WHERE request_id = 'away'" || fail "a storage that is away was charged to the job"
wait_sql 30 t "SELECT count(*) >= 1 FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'away' AND message LIKE 'given back: the checkpoint to go on from: s3: %'"
cancel away
wait_state 60 away cancelled
rm "$work/credentials" # this server keeps its objects and keys in memory: both are others now
serve_s3
passed "a storage that is away: the job is given back without charge"

# ---- renewed credentials: the worker goes on without a restart
train renewed
wait_state 120 renewed succeeded
[[ $(sum_of "$(artifact renewed uri)") == "$(artifact renewed "encode(sha256, 'hex') || ' ' || size_bytes")" ]] || fail "the renewed adapter"
passed "credentials that were replaced in their file are used without a restart"

# ---- save_total_limit, and what the collector may and may not remove
train limited save_steps=50 save_total_limit=2
wait_state 120 limited succeeded
wait_sql 30 t "SELECT count(*) >= 9 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = 'limited' AND removed_at IS NOT NULL"
[[ $(checkpoints limited "string_agg(step::text, ',' ORDER BY step) FILTER (WHERE removed_at IS NULL)") =~ ^[0-9]+,[0-9]+$ ]] || fail "save_total_limit=2 keeps $(checkpoints limited "string_agg(step::text, ',') FILTER (WHERE removed_at IS NULL)")"
kept=$(checkpoints limited "min(uri) FILTER (WHERE removed_at IS NULL)")
[[ $(sum_of "$kept") == "$(sql "SELECT encode(sha256, 'hex') || ' ' || size_bytes FROM checkpoints WHERE uri = '$kept'")" ]] || fail "a kept checkpoint is not whole"
gone=$(checkpoints limited "min(uri) FILTER (WHERE removed_at IS NOT NULL)")
[[ $(sum_of "$gone") == *" 0" ]] || fail "a removed checkpoint is still in the bucket"
passed "save_total_limit keeps the newest two checkpoints"

stop_worker "$worker_pid"
collect() { "$worker_program" collect --config "$work/worker.conf" "$@"; }
attempt=$(sql "SELECT attempt_id FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = 'renewed'")
job=$(artifact renewed job_id)
put() { "$MF_TEST_PYTHON" -c 'import boto3,sys; boto3.client("s3", endpoint_url=sys.argv[1]).put_object(Bucket=sys.argv[2], Key=sys.argv[3], Body=b"left over")' "$endpoint" "$bucket" "$1"; }
put "runs/default/$job/$attempt/merged_16bit/config.json"                       # of an ended attempt, without a row
put "runs/default/$job/00000000-0000-4000-8000-000000000000/adapter/other"      # of nobody that this database knows
put "elsewhere/file"
before=$(listed)
collect --dry-run >"$work/dry.txt"
[[ $(listed) == "$before" ]] || fail "the dry run removed something"
grep -q "^would remove.*9 bytes.*named by no row.*/$attempt/merged_16bit$" "$work/dry.txt" || fail "the dry run does not name the left-over"
[[ $(grep -c "the job has ended" "$work/dry.txt") == 2 ]] || fail "the dry run does not name the two checkpoints"
collect >"$work/collected.txt"
grep -q "^removed 2 checkpoints .* and 1 left-overs (9 bytes)$" "$work/collected.txt" || fail "collected: $(cat "$work/collected.txt")"
collect | grep -q "^removed 0 checkpoints (0 bytes) and 0 left-overs (0 bytes)$" || fail "a second look found more"
[[ $(sum_of "s3://$bucket/runs/default/$job/00000000-0000-4000-8000-000000000000/adapter") == *" 9" ]] || fail "the collector removed what is not its database's"
for request in renewed limited; do
  [[ $(sum_of "$(artifact $request uri)") == "$(artifact $request "encode(sha256, 'hex') || ' ' || size_bytes")" ]] || fail "the collector touched an artifact"
done
passed "the collector removes what ended and what is left over, says so before, and nothing else"

# ---- a job that goes on keeps its checkpoint; so does an attempt that holds its lease
start_worker "$work/worker.conf" "$work/worker.log"
train live save_steps=50 max_steps=100000
wait_sql 60 t "SELECT count(*) >= 3 FROM checkpoints JOIN jobs ON id = job_id WHERE request_id = 'live'"
job=$(sql "SELECT id FROM jobs WHERE request_id = 'live'")
attempt=$(sql "SELECT attempt_id FROM job_attempts WHERE job_id = '$job'")
put "runs/default/$job/$attempt/adapter/half"
collect >"$work/live.txt"
grep -q "^removed 0 checkpoints (0 bytes) and 0 left-overs (0 bytes)$" "$work/live.txt" || fail "collected of a live job: $(cat "$work/live.txt")"
cancel live
wait_state 60 live cancelled
passed "nothing of a job that goes on is collected"
stop_worker "$worker_pid"

# ---- secrets
! grep -rqF -- "$secret" "$work"/*.log || fail "the secret key is in a log"
! pg_dump -d "$database_url" | grep -qF -- "$secret" || fail "the secret key is in the database"
echo "$checks checks passed"
