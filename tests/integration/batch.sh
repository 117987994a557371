#!/usr/bin/env bash
# modelforge batch: many requests from one file, named by content, followed to their ends.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
write_config "$work/worker.conf" worker.slots=4 batch.settle_seconds=1
start_worker "$work/worker.conf" "$work/worker.log"

# run STATUS COMMAND...: the output is kept in $work/out and $work/err.
run() {
  local want=$1 status=0
  shift
  "$@" >"$work/out" 2>"$work/err" || status=$?
  [[ $status == "$want" ]] || {
    cat "$work/out" "$work/err"
    fail "exit status $status instead of $want: $*"
  }
}
row() { printf '{"task":"text-generation","model_name":"/models/m","dataset":"/data/d.jsonl","seed":%s%s}\n' "$1" "${2:-}"; }

# ---- nothing is sent unless everything is valid
{
  row 1
  echo '{"task":"text-generation","model_name":"m","learning_rat":1}'
  echo
  echo '[1]'
  row 2 ',"request_id":"one"'
  row 3 ',"request_id":"one"'
} >"$work/bad.jsonl"
run 2 client batch "$work/bad.jsonl" --batch-id bad
diff <(sed "s#$work/##g" "$work/err") - <<'TEXT' || fail "the faults' texts"
bad.jsonl:2: RequestError: learning_rat: no such field; did you mean learning_rate?
bad.jsonl:4: RequestError: a request is a JSON object, this is an array
bad.jsonl:6: RequestError: request_id 'one' is that of bad.jsonl:5 too; give each its own, or leave it out
modelforge: 3 of 5 requests cannot be sent as they are; nothing was sent
TEXT
passed "every faulty request is named by file and line, and nothing is sent"

# ---- a batch whose jobs all end well; sent again it is the same batch
for seed in $(seq 40); do row "$seed"; done >"$work/good.jsonl"
row 40 >>"$work/good.jsonl" # the same content twice is two jobs
run 0 client batch "$work/good.jsonl" --batch-id good --check
sort -u -o "$work/checked" "$work/out"
[[ $(wc -l <"$work/checked") == 41 ]] || fail "41 requests with ids of their own"
[[ $(grep -cE '  good-[0-9a-f]{16}(-2)?$' "$work/checked") == 41 ]] || fail "the form of the ids"
grep -q -- '-2$' "$work/checked" || fail "the second of two equal requests"
sql_is 0 "SELECT count(*) FROM jobs" || fail "--check sent something"
passed "--check prints the ids and sends nothing"
run 0 client batch "$work/good.jsonl" --batch-id good --wait --timeout 60
sql_is "41|41" "SELECT jobs, succeeded FROM batch_summary WHERE batch_id = 'good'" || fail "the batch's summary"
sql "SELECT id || '  ' || request_id FROM jobs" | sort >"$work/made"
diff "$work/checked" "$work/made" || fail "the jobs are not those that --check named"
run 0 client batch - --batch-id good --wait --timeout 60 <"$work/good.jsonl"
sql_is 41 "SELECT count(*) FROM jobs" || fail "the second sending made jobs"
passed "41 jobs of one file, waited for; sending it again makes none"

wait_sql 20 "1|t" "SELECT round, announced_at IS NOT NULL FROM batch_summary WHERE batch_id = 'good'"
wait_sql 20 0 "SELECT count(*) FROM outbox"
equals 1 eval "kcat -C -b '$brokers' -t '$events' -e -q -f '%s\\n' | grep -ac batch_finished" || fail "one batch_finished on the topic"
kcat -C -b "$brokers" -t "$events" -e -q -f '%s\n' | grep -aq '{"batch_id":"good","cancelled":0,"failed":0,"jobs":41,"round":1,"succeeded":41}' ||
  fail "what batch_finished says"
passed "one event batch_finished, with the counts, and none for the second sending"

# ---- a folder; ends of every kind, and rejections
mkdir "$work/mixed"
row 1 ',"request_id":"good-a"' >"$work/mixed/1.json"
row 2 ',"request_id":"failing-a"' >"$work/mixed/2.json"
row 3 ',"request_id":"slow-a","batch_id":"own"' >"$work/mixed/3.json"
row 4 ',"tenant":"stranger"' >"$work/mixed/4.json"
echo "no request" >"$work/mixed/notes.txt"
client --json batch "$work/mixed" --max-attempts 1 --batch-id mixed --wait --timeout 60 >"$work/out" 2>"$work/err" &
waiting=$!
wait_state 30 slow-a running
cancel slow-a
status=0
wait "$waiting" || status=$?
[[ $status == 1 ]] || fail "exit status $status of a batch with a failure"
equals 1,1,1,1 jq -r '[.succeeded, .failed, .cancelled, .rejected] | join(",")' "$work/out" || fail "the counts"
equals "bad_weights,cancelled,tenant_not_allowed" jq -r '[.not_succeeded[] | .error_code // .state] | sort | join(",")' \
  "$work/out" || fail "what did not succeed"
sql_is mixed "SELECT string_agg(DISTINCT batch_id, ',') FROM jobs WHERE request_id IN ('good-a', 'slow-a')" ||
  fail "a flag goes before the file"
passed "a folder: one succeeded, one failed, one cancelled, one rejected, each told"
row 5 ',"request_id":"slow-b"' >"$work/slow.jsonl"
run 6 client batch "$work/slow.jsonl" --batch-id slow --wait --timeout 2
grep -q "has not ended after 2 s" "$work/err" || fail "the text of a time-out"
(
  wait_state 30 slow-b running
  cancel slow-b
) &
run 4 client batch "$work/slow.jsonl" --batch-id slow --wait --timeout 60
passed "a time-out and a cancelled job have exit statuses of their own"

# ---- a job that is tried again counts by its newest generation
{
  row 6 ',"request_id":"failing-r"'
  row 7 ',"request_id":"slow-r"'
} >"$work/again.jsonl"
client --json batch "$work/again.jsonl" --max-attempts 1 --batch-id again --wait --timeout 60 >"$work/out" 2>"$work/err" &
waiting=$!
wait_state 30 failing-r failed
client queues set huggingface default --cap 0 >/dev/null # the second generation shall wait
client retry failing-r >/dev/null
cancel slow-r
wait_state 30 slow-r cancelled
client cancel failing-r >/dev/null
status=0
wait "$waiting" || status=$?
[[ $status == 4 ]] || fail "exit status $status where the second generation was cancelled: $(cat "$work/out" "$work/err")"
equals 0,2 jq -r '[.failed, .cancelled] | join(",")' "$work/out" || fail "the counts of newest generations"
client queues set huggingface default --cap none >/dev/null
passed "a failed job that is tried again meanwhile is waited for"

# ---- what cannot be followed is not sent
before=$(kcat -C -b "$brokers" -t "$requests" -e -q -f '.' | wc -c)
row 8 ',"request_id":"good-unsent"' >"$work/unsent.jsonl"
for database in "postgresql://nobody@127.0.0.1:1/none" ""; do
  status=0
  client --set "database.url=$database" batch "$work/unsent.jsonl" --batch-id unsent --wait >/dev/null 2>&1 || status=$?
  [[ $status == 3 || $status == 2 ]] || fail "batch --wait without a database: $status"
  status=0
  client --set "database.url=$database" submit "$work/unsent.jsonl" --wait >/dev/null 2>&1 || status=$?
  [[ $status == 3 || $status == 2 ]] || fail "submit --wait without a database: $status"
done
equals "$before" eval "kcat -C -b '$brokers' -t '$requests' -e -q -f '.' | wc -c" || fail "a request was sent that cannot be followed"
passed "with --wait nothing is sent when PostgreSQL cannot be asked"

# ---- a large batch takes little memory
for ((i = 0; i < 20000; i++)); do row "$i"; done >"$work/large.jsonl"
python3 - "$client_program" "$work/large.jsonl" >"$work/kilobytes" <<'PYTHON'
import resource, subprocess, sys
subprocess.run([sys.argv[1], "batch", sys.argv[2], "--batch-id", "large", "--check"], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
PYTHON
sanitized=$(grep -c '^MODELFORGE_SANITIZE:STRING=.' "$MF_TEST_BUILD/CMakeCache.txt" || :)
((sanitized || $(cat "$work/kilobytes") < 40000)) || fail "20,000 requests took $(cat "$work/kilobytes") kB"
passed "20,000 requests take $(cat "$work/kilobytes") kB"
run 2 client batch "$work/mixed/notes.txt"
run 2 client batch "$work/good.jsonl" --wait
grep -q "batch_id: not given; name the batch with --batch-id" "$work/err" || fail "the text of a missing batch id"
run 2 client batch /dev/null --batch-id x
run 1 client batch "$work/nowhere" --batch-id x
passed "no batch id, no request, no file: each says so"
stop_worker "$worker_pid"
echo "$checks checks passed"
