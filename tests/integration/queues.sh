#!/usr/bin/env bash
# modelforge queues: caps and weights set by command are what running workers obey, and only the owner may set them.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
write_config "$work/worker.conf" worker.slots=4 claim.poll_ms=60000
start_worker "$work/worker.conf" "$work/worker.log"
wait_sql 30 1 "SELECT count(*) FROM workers"

[[ $(client queues) == "no tenant has had a job yet"* ]] || fail "an empty list"
client queues set huggingface default --cap 1 >"$work/out" 2>"$work/err" || fail "queues set: $(cat "$work/err")"
[[ $(cat "$work/out") == "huggingface/default: at most 1 at once, weight 1" && ! -s $work/err ]] || fail "what set says"
for i in $(seq 6); do submit "good-$i"; done
wait_sql 60 6 "SELECT count(*) FROM jobs WHERE state = 'succeeded'"
sql_is 0 "SELECT count(*) FROM job_attempts a JOIN job_attempts b ON a.job_id < b.job_id
          AND a.started_at < b.ended_at AND b.started_at < a.ended_at" || fail "two ran at once under a cap of 1"
passed "6 jobs under a cap of 1 ran one after another on 4 slots"

client --json queues set huggingface default --cap 0 --weight 2.5 | jq -e '.cap == 0 and .weight == 2.5 and .offered' \
  >/dev/null || fail "--json of set"
for i in 1 2 3; do submit "slow-$i"; done
wait_sql 30 3 "SELECT ready FROM tenant_load WHERE tenant = 'default'"
client --json queues --tenant default | jq -e '.[0] | .waiting == "3" and .running == "0" and .cap == "0" and .share_percent == "100.0"' \
  >/dev/null || fail "--json of list: $(client --json queues)"
client queues list | grep -qE '^huggingface +default +0 +3 ' || fail "the table"
sql_is 0 "SELECT count(*) FROM job_leases" || fail "a held queue started a job"
# It polls once a minute: the worker hears of it by a notification.
client queues set huggingface default --cap none >/dev/null
wait_sql 10 3 "SELECT count(*) FROM job_leases"
for i in 1 2 3; do cancel "slow-$i"; done
wait_sql 30 3 "SELECT count(*) FROM jobs WHERE state = 'cancelled'"
passed "a cap of 0 holds the queue, and its end is heard of at once"

client queues set nosuch team-b --weight 3 2>"$work/err" >/dev/null || fail "a tenant without jobs"
grep -q "no worker has offered provider 'nosuch'" "$work/err" || fail "a provider that nobody offers is not said"
for words in "set huggingface" "set huggingface default" "set huggingface default --cap -1" "set huggingface default --cap 1x" \
  "set huggingface default --weight 0" "set huggingface default --weight nan" "set Hugging default --cap 1" \
  "set huggingface a/b --cap 1" "set huggingface default --cap" "remove" "list --tenant"; do
  code=0
  # shellcheck disable=SC2086  # words
  client queues $words >/dev/null 2>"$work/err" || code=$?
  [[ $code == 2 ]] || fail "queues $words: status $code"
done
code=0
client --set "database.url=$(worker_database_url)" queues set huggingface default --cap 9 2>"$work/err" || code=$?
[[ $code == 1 && $(cat "$work/err") == *"set with the rights of modelforge_owner"* ]] || fail "a worker's login: $code, $(cat "$work/err")"
sql_is "$(id -un)|4" "SELECT min(changed_by), count(*) FROM queue_change_log" || fail "the log of changes"
passed "who set what is logged; faulty values and logins without the right are refused"
stop_worker "$worker_pid"
echo "$checks checks passed"
