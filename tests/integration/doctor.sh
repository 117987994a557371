#!/usr/bin/env bash
# doctor: each fault is found, named and told how to mend; a system that works has none. The faults are made with the
# services' own tools.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

[[ -x $real_trainer ]] || fail "no $real_trainer"
PATH=${worker_program%/*}:$PATH
write_config "$work/worker.conf" trainer.path="$real_trainer"
doctor() { client doctor --development "$@" >"$work/doctor" 2>&1; }
# finds LEVEL CHECK WORDS [FLAG...]: doctor names it so, and says by its exit status whether it is a fault.
finds() {
  local level=$1 check=$2 words=$3 status=0
  shift 3
  client --json doctor "$@" >"$work/doctor" 2>&1 || status=$?
  jq -e --arg level "$level" --arg check "$check" --arg words "$words" \
    'any(.[]; .level == $level and .check == $check and (.detail + " " + (.mend // "") | contains($words)))' \
    "$work/doctor" >/dev/null || fail "no $level of $check with '$words': $(cat "$work/doctor")"
  [[ $status == $([[ $level == fault ]] && echo 1 || echo 0) ]] || fail "$level of $check: exit status $status"
}

# ---- nothing is there yet
! doctor || fail "doctor finds nothing wrong where nothing was set up"
for words in "$requests *does not exist" "$requests-value *this version's schema is not registered" "FAULT *database " \
  "to mend: modelforge setup"; do
  grep -q -- "$words" "$work/doctor" || fail "no '$words': $(cat "$work/doctor")"
done
passed "missing topics, schemas and database are named, with what makes them"

# ---- everything is there
set_up
finds fault kafka "3 are needed"
finds fault "$requests" "kafka-configs.sh --alter --topic $requests --add-config min.insync.replicas=2"
finds fault workers "start modelforge-worker"
start_worker "$work/worker.conf" "$work/worker.log"
wait_sql 30 1 "SELECT count(*) FROM worker_status WHERE stopped_at IS NULL"
submit first
wait_sql 30 1 "SELECT count(*) FROM ingest_status"
doctor --worker "$work/worker.conf" || fail "a system that works: $(cat "$work/doctor")"
for words in "ok *kafka *1 broker" "ok *$requests-value *schema [0-9]*, BACKWARD" "ok *database *PostgreSQL 1" \
  "ok *roles *logins of workers: .*modelforge_test_worker" "ok *clock *0\.[0-9] s" "ok *workers *1 live, offering .*huggingface" \
  "ok *partitions *1 read, 0 halted" "ok *storage *file://$work/storage: 64 KiB written, read back and removed" \
  "ok *work.dir .*GiB free" "ok *trainer .*offers huggingface" "ok *devices *the CPU and 0 GPU" "ok *worker's kafka *answers" \
  "ok *worker's registry *answers" "ok *worker's login *modelforge_test_worker has the rights of a worker and no more" \
  "^nothing to mend$"; do
  grep -q -- "$words" "$work/doctor" || fail "no '$words': $(cat "$work/doctor")"
done
[[ -z $(find "$work/storage" -type f) ]] || fail "the check left something in the storage"
passed "a system that works has nothing to mend, host and worker's login included"

MODELFORGE_READER_PASSWORD="test" client migrate --reader-login modelforge_test_reader >>"$work/setup.log"
reader_url=$(worker_database_url | sed 's#modelforge_test_worker#modelforge_test_reader#')
client --set "database.url=$reader_url" doctor --development >"$work/doctor" || fail "as a reader: $(cat "$work/doctor")"
grep -q "ok *workers *1 live" "$work/doctor" || fail "as a reader: $(cat "$work/doctor")"
passed "a login that may only read sees all of it"

# ---- each fault by itself
with_worker() { # LEVEL CHECK WORDS NAME=VALUE...
  write_config "$work/bad.conf" trainer.path="$real_trainer" "${@:4}"
  finds "$1" "$2" "$3" --development --worker "$work/bad.conf"
}
with_worker fault storage "/proc/nothing" storage.url=file:///proc/nothing
with_worker fault storage "keys" storage.url=s3://nowhere/prefix storage.s3_endpoint=http://127.0.0.1:9
with_worker fault tenants.roots "make the folder" "tenants.roots=team-a=$work/missing"
with_worker fault trainer "cannot start /nonexistent" trainer.path=/nonexistent
with_worker fault providers.user "no user 'mf-nobody-at-all'" providers.user=mf-nobody-at-all
gpus=$work/gpus.json
printf '{"gpus": [{"uuid": "GPU-1", "name": "A GPU", "memory_bytes": 8589934592, "used_bytes": 0, "fault": "Xid 79"}]}' >"$gpus"
with_worker fault GPU "A GPU, 0.0 of 8.0 GiB used, GPU-1: Xid 79" gpu.inventory_file="$gpus"
with_worker fault "worker's registry" "registry" registry.url=http://127.0.0.1:9
with_worker fault "worker's login" "" database.url=postgresql://nobody@127.0.0.1:9/nothing
with_worker fault "worker's configuration" "slots" worker.slots=many
finds fault "worker's configuration" "$work/no_such_file" --development --worker "$work/no_such_file"
PATH=/usr/bin:/bin finds fault "this host" "no modelforge-worker" --development --worker "$work/worker.conf"
write_config "$work/bad.conf" trainer.path="$real_trainer" database.url="$database_url"
client --json doctor --worker "$work/bad.conf" >"$work/doctor" || :
jq -e 'any(.[]; .check == "worker'"'"'s login" and .level == "warning" and (.detail | contains("more rights")))' "$work/doctor" \
  >/dev/null || fail "a superuser's login: $(cat "$work/doctor")"
passed "storage, folders, trainer, users, logins and configuration of a host"

curl --silent --fail --output /dev/null -X PUT -H 'Content-Type: application/json' -d '{"compatibility":"NONE"}' \
  "$registry_url/config/$requests-value"
finds fault "$requests-value" "compatibility is NONE" --development
client setup --replication-factor 1 >/dev/null # as it says
finds ok "$requests-value" BACKWARD --development
sql "INSERT INTO ingest_gaps (cluster_id, topic, partition, kind, expected_offset, found_offset, detail) SELECT cluster_id, topic, partition, 'low_watermark', 5, 9, 'by a test' FROM ingest_offsets LIMIT 1"
finds fault partitions "modelforge ingest reset" --development
sql "DELETE FROM ingest_gaps"
kill_worker "$worker_pid" # it would write its own version again
sql "UPDATE workers SET version = '0.0.1', heard_at = now(), gpus = '[{\"name\": \"A GPU\", \"uuid\": \"GPU-1\", \"fault\": \"Xid 79\"}]'"
finds warning GPUs "A GPU GPU-1: Xid 79" --development
finds warning "workers' versions" "$name 0.0.1" --development
sql "UPDATE workers SET heard_at = now() - interval '5 min'"
finds warning "silent workers" "$name" --development
finds fault workers "none is live"
passed "compatibility, a halted partition, other versions and silent workers"
echo "$checks checks passed"
