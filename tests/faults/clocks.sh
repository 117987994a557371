#!/usr/bin/env bash
# Clocks that jump by an hour and processes that stand still for longer than a lease: no job is taken from a worker that
# lives, and one that does not is noticed in time all the same. A worker that cannot reach PostgreSQL for too long stops its
# trainers, also where the server hangs rather than goes; after a restore no lease of before counts. PostgreSQL is one of
# this test's own.
build=${MF_TEST_BUILD:?the build folder}
stack=$(mktemp -d "${TMPDIR:-/tmp}/mf_clocks.XXXXXX")
own_clean_up() { ops/stack wipe "$stack" >/dev/null 2>&1; }
trap own_clean_up EXIT
[[ -n ${MF_TEST_KAFKA_BROKERS:-} ]] || {
  echo "skipped: no services are set up"
  exit 77
}
shared_brokers=$MF_TEST_KAFKA_BROKERS shared_registry=$MF_TEST_REGISTRY_URL
chmod 755 "$stack" # the server runs as another user
for who in postgres holder watcher; do printf '%-20d' 0 >"$stack/clock-$who"; done
clock=$build/tests/integration/clock_shift.so
LD_PRELOAD=$clock MF_TEST_CLOCK=$stack/clock-postgres ops/stack up "$stack" --only postgres --no-sync >/dev/null 2>&1 || exit 1
eval "$(ops/stack env "$stack")"
MF_TEST_BUILD=$build MF_TEST_KAFKA_BROKERS=$shared_brokers MF_TEST_REGISTRY_URL=$shared_registry
. "$(dirname "${BASH_SOURCE[0]}")/../integration/support.sh"

set_up
lease=(lease.seconds=3 worker.slots=2)
write_config "$work/holder.conf" "${lease[@]}" lease.blind_limit=4
write_config "$work/watcher.conf" "${lease[@]}" worker.id="$name-2" work.dir="$work/watcher" worker.slots=0
start() { # holder|watcher
  ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=$clock MF_TEST_CLOCK=$stack/clock-$1 start_worker "$work/$1.conf" "$work/$1.log"
}
jump() { printf '%-20d' "$2" 1<>"$stack/clock-$1"; } # WHO SECONDS
start holder
holder=$worker_pid
submit slow-held
wait_state 30 slow-held running
start watcher
watcher=$worker_pid
wait_sql 30 t "SELECT live FROM worker_status WHERE worker_id = '$name-2'"

beat() { sql "SELECT beat FROM job_leases JOIN jobs ON id = job_id WHERE request_id = 'slow-held'"; }
# kept WHAT: while the holder's heart beats for longer than a lease nobody takes its job. It beats 12 times a lease.
kept() {
  local from
  from=$(beat)
  wait_sql 30 t "SELECT beat >= $from + 15 FROM job_leases JOIN jobs ON id = job_id WHERE request_id = 'slow-held'"
  sql_is "1|0|running" "SELECT lease_epoch, interruptions, state FROM jobs WHERE request_id = 'slow-held'" || fail "$1: the job was taken"
  submit "good-${1//[^a-z0-9]/-}"
  wait_state 30 "good-${1//[^a-z0-9]/-}" succeeded
  passed "$1: the job is kept, and others are trained"
}
now() { sql "SELECT round(extract(epoch FROM clock_timestamp()) - $(date +%s.%N))"; }
sql_is 0 "SELECT round(extract(epoch FROM clock_timestamp()) - $(date +%s.%N))" || fail "the server's clock: $(now)"
jump postgres 3600
[[ $(now) == 3600 ]] || fail "the server's clock did not jump: $(now)"
kept "the database's clock an hour ahead"
jump postgres -3600
kept "the database's clock two hours back"
jump postgres 0
jump holder 3600
jump watcher -3600
kept "the workers' clocks an hour off, to either side"
jump holder -3600
jump watcher 3600
kept "the workers' clocks the other way round"
tail -n 1 "$work/holder.log" | grep -q "\"time\":\"$(date -u -d '1 hour ago' +%FT%H)" || fail "the holder's clock did not jump: $(tail -n 1 "$work/holder.log")"

# ---- processes that stand still
lease_passes() { sleep 4; } # the pause itself, not a synchronisation
kill -STOP "$watcher"
lease_passes
kill -CONT "$watcher"
kept "the watcher slept for longer than the lease"
kill -STOP "$holder" "$watcher"
lease_passes
kill -CONT "$watcher"
sleep 1 # the watcher looks before the holder beats
kill -CONT "$holder"
kept "the host of both slept"
ops/stack pause "$stack" postgres >/dev/null 2>&1
sleep 3.5 # longer than the lease, shorter than the holder bears it
ops/stack resume "$stack" postgres >/dev/null 2>&1
kept "the database's host slept"

# ---- a database that hangs: its kernel acknowledges everything, and the holder stops after lease.blind_limit of 4 s
ops/stack pause "$stack" postgres >/dev/null 2>&1
stopped() { ! pgrep -f "$fake_trainer run $work/worker/" >/dev/null; }
! stopped || fail "no trainer runs"
wait_for 40 "the trainer to be stopped" stopped
ops/stack resume "$stack" postgres >/dev/null 2>&1
wait_sql 40 "running|2" "SELECT state, lease_epoch FROM jobs WHERE request_id = 'slow-held'"
sql_is "watchdog" "SELECT outcome FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = 'slow-held' AND epoch = 1" || fail "how it ended"
passed "a server that hangs for longer than lease.blind_limit: the trainer is stopped, and the job goes on afterwards"

# ---- a restore: what the holder does for the lost time is not taken
client migrate --restored >/dev/null || fail "modelforge migrate --restored"
wait_sql 40 "running|3" "SELECT state, lease_epoch FROM jobs WHERE request_id = 'slow-held'"
grep -q '"end":"lease lost"' "$work/holder.log" || fail "the holder went on"
passed "after a restore the lease of before is nobody's, and the job is taken anew"

# ---- and who is gone is noticed, whatever the clocks say
write_config "$work/watcher.conf" "${lease[@]}" worker.id="$name-2" work.dir="$work/watcher"
stop_worker "$watcher"
start watcher
jump postgres 3600
kill_worker "$holder"
wait_sql 30 "running|4|$name-2" "SELECT state, epoch, worker_id FROM job_leases JOIN jobs ON id = job_id WHERE request_id = 'slow-held'"
passed "the job of a worker that is gone is rescued"
echo "$checks checks passed"
