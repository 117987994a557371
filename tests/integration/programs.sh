#!/usr/bin/env bash
# Providers that are programs of their own, by way of Kafka and a worker: a good one beside ours in run_history, the Python
# trainers where there are some, and what hostile ones come to.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

[[ -x $real_trainer ]] || fail "no $real_trainer"
unset "${!HF_@}" "${!AWS_@}"
export HF_TOKEN=hf_hidden AWS_SECRET_ACCESS_KEY=hidden MODELFORGE_TRAINER_PROVIDER_SECONDS=20
umask 022
places=$work/providers
mkdir "$places"
cp tests/worker/trainer/program.sh "$work/program.sh"
install_program() { # NAME [LINE]...
  printf '%s\n' "exec = $work/program.sh" "environment.TRAINER = $real_trainer" "${@:2}" >"$places/$1.conf"
}
bad=(liar climber falls-while-running newer garbage cheat backwards shouting-log spy inventive)
for name_ in ours missing "${bad[@]}"; do install_program "$name_"; done
trusted=$(IFS=,; echo "ours,missing,${bad[*]}")
if [[ -n ${MF_TEST_PYTHON:-} ]]; then
  cp providers/python/provider.py "$work/provider.py"
  for name_ in transformers-python unsloth-python; do
    sed "s#^exec = .*#exec = $MF_TEST_PYTHON $work/provider.py#" "providers/python/$name_.conf" >"$places/$name_.conf"
    trusted+=,$name_
  done
fi
for ((i = 1; i <= 16; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$work/rows.jsonl"

set_up
# ---- what the guide's tables say of built-in providers is what a worker says
write_config "$work/plain.conf" trainer.path="$real_trainer" providers.folder="$work/none"
start_worker "$work/plain.conf" "$work/plain.log"
wait_sql 30 1 "SELECT count(*) FROM worker_status WHERE stopped_at IS NULL"
client providers --markdown >"$work/tables.md"
sed -n '/^<!-- modelforge providers --markdown -->$/,/^<!-- end -->$/p' providers/README.md | sed '1d;$d' | cmp - "$work/tables.md" ||
  fail "providers/README.md has other tables than: $(cat "$work/tables.md")"
stop_worker "$worker_pid"
passed "the tables of providers/README.md are those that modelforge providers --markdown prints"

write_config "$work/worker.conf" trainer.path="$real_trainer" providers.folder="$places" providers.trusted="$trusted" \
  worker.slots=2 provider.grace_seconds=1 cancel.seconds=5
start_worker "$work/worker.conf" "$work/worker.log"
train() { # REQUEST_ID PROVIDER [NAME=VALUE]...
  submit "$1" "provider=$2" "model_name=$PWD/tests/golden/models/tied-gqa" "dataset=$work/rows.jsonl" max_steps=4 device=cpu \
    max_seq_length=32 max_attempts=1 "${@:3}"
}
of() { sql "SELECT $2 FROM jobs WHERE request_id = '$1'"; }

# ---- through the contract, and not
train direct huggingface
train external ours
[[ -z ${MF_TEST_PYTHON:-} ]] || train python-exact transformers-python save_steps=2
[[ -z ${MF_TEST_PYTHON:-} ]] || train python transformers-python save_steps=2 exact_resume=false
[[ -z ${MF_TEST_PYTHON:-} ]] || train python-narrow transformers-python strategy=qlora
for name_ in direct external; do wait_state 60 "$name_" succeeded; done
digests=$(sql "SELECT count(DISTINCT sha256) FROM artifacts AS artifact JOIN jobs ON jobs.id = job_id WHERE kind = 'adapter'
  AND request_id IN ('direct', 'external')")
sql_is "4|4" "SELECT count(*) FILTER (WHERE request_id = 'direct'), count(*) FILTER (WHERE request_id = 'external')
  FROM step_metrics JOIN jobs ON jobs.id = job_id" || fail "4 steps each"
weights() { # REQUEST_ID
  local uri
  uri=$(sql "SELECT uri FROM artifacts JOIN jobs ON jobs.id = job_id WHERE kind = 'adapter' AND request_id = '$1'")
  sha256sum <"${uri#file://}/adapter_model.safetensors"
}
[[ $(weights direct) == "$(weights external)" ]] || fail "the same rows through the contract give another adapter ($digests)"
sql_is "$(sha256sum <"$work/rows.jsonl" | cut -d' ' -f1)|t" "SELECT encode(dataset_sha256, 'hex'), versions ->> 'trainer' LIKE '% ours: %'
  FROM job_attempts JOIN jobs ON jobs.id = job_id WHERE request_id = 'external'" || fail "what the attempt's record says of it"
passed "our trainer as a program of its own: the same adapter, byte for byte; steps, artifacts and record as ever"

# ---- hostile ones
expect() { # REQUEST_ID CODE MESSAGE
  wait_state 180 "$1" failed # Python trainers may have both places
  local got
  got=$(of "$1" "error_code || '|' || error_message")
  [[ $got == $2\|$3 ]] || fail "$1: expected '$2|$3', got '$got'"
  passed "$1: $2"
}
for name_ in liar climber falls-while-running newer garbage cheat backwards inventive; do train "$name_" "$name_"; done
expect liar provider_protocol "ProviderError: the program named the artifact '/etc', which is not in its folder for that, *"
expect climber provider_protocol "ProviderError: the program named the artifact '*/output/../..', which is not in its folder for that, *"
expect falls-while-running trainer_crashed "TrainingError: the program of provider 'falls-while-running' ended without saying why: killed by signal 11 (Segmentation fault) in phase load after step 0; it wrote: matrix is on fire"
expect newer provider_protocol "ProviderError: the program speaks protocol 2, this version 1"
expect garbage provider_protocol "ProviderError: trainer protocol: a line is not a JSON object: '[[]' or '{' expected near 'Traceback'*"
expect cheat trainer_crashed "TrainingError: the program of provider 'cheat' said done but then ended with exit code 5"
expect backwards provider_protocol "ProviderError: the program said step 4 after step 5"
expect inventive flux_inverted "InfrastructureError: the flux is inverted"
sql_is 0 "SELECT count(*) FROM artifacts JOIN jobs ON id = job_id WHERE state = 'failed'" || fail "an artifact of a failed job"

train spy spy
expect spy spied "InfrastructureError: it has seen enough"
sql_is 0 "SELECT count(*) FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'spy' AND (message ILIKE '%hidden%' OR message ILIKE '%token%'
  OR message ILIKE '%secret%' OR message ILIKE '%postgres%')" || fail "a program sees a secret"
wait_sql 20 t "SELECT count(*) > 5 FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'spy' AND message LIKE 'saw %'"
passed "a program sees no secret of the worker"

train shouting-log shouting-log
wait_sql 60 10000 "SELECT count(*) FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'shouting-log'"
resident_kb=$(awk '/VmRSS/{print $2}' "/proc/$worker_pid/status")
((resident_kb < 200000)) || fail "the worker holds $resident_kb kB"
cancel shouting-log
wait_state 60 shouting-log cancelled
wait_for 10 "its processes to be gone" eval "! pgrep -f '$work/program.sh run' >/dev/null"
passed "endless output is cut, one that ignores cancel is killed, with all that it started ($resident_kb kB)"

# ---- the check, by the command that users have
check() { MODELFORGE_TRAINER_PROVIDERS_FOLDER=$places client --set "trainer.path=$real_trainer" provider check "$@" >"$work/check.log" 2>&1; }
refused() { # PATTERN COMMAND...
  local status=0
  "${@:2}" || status=$?
  [[ $status == 1 ]] || fail "${*:2}: exit status $status: $(cat "$work/check.log")"
  grep -q -e "$1" "$work/check.log" || fail "${*:2}: no '$1' in: $(cat "$work/check.log")"
}
refused '^BROKEN  capabilities: .*name it in providers.trusted' check cheat
refused "^BROKEN  a whole run: the program of provider 'cheat' said done but then ended with exit code 5" check cheat --trust
check ours --trust || fail "check of ours: $(cat "$work/check.log")"
status=0
check || status=$?
[[ $status == 2 ]] || fail "check without a name: $status"
passed "modelforge provider check says what a program breaks, and that ours breaks nothing"

# ---- one that is there but cannot run
train absent missing
expect absent provider_unavailable "ProviderError: Flux is not installed: pip install flux"
if [[ -n ${MF_TEST_PYTHON:-} ]]; then
  train absent-unsloth unsloth-python
  expect absent-unsloth provider_unavailable "ProviderError: Unsloth is not installed: *pip install unsloth*"
fi
client providers >"$work/providers.log"
grep -q -E '^missing +program +cannot be used: Flux is not installed: pip install flux$' "$work/providers.log" || fail "modelforge providers: $(cat "$work/providers.log")"
grep -q -E '^llama +text-generation +sft +supported' "$work/providers.log" || fail "its levels"
client --json providers | jq -e '.workers[0].trainer.providers | map(.name) | index("ours") != null' >/dev/null || fail "its JSON"
passed "modelforge providers says what is there, what it can do and what is missing"

if [[ -n ${MF_TEST_PYTHON:-} ]]; then
  wait_state 300 python succeeded
  sql_is "4|t|t" "SELECT count(*), bool_and(loss > 0), bool_and(tokens > 0) FROM step_metrics JOIN jobs ON jobs.id = job_id WHERE request_id = 'python'" ||
    fail "the steps of the Python trainer"
  sql_is "huggingface|succeeded|4,ours|succeeded|4,transformers-python|succeeded|4" "SELECT string_agg(provider || '|' || state || '|' || steps, ',' ORDER BY provider)
    FROM (SELECT DISTINCT provider, job.state, (SELECT max(step) FROM step_metrics WHERE step_metrics.job_id = job.job_id) AS steps
          FROM job_overview AS job WHERE job.state = 'succeeded') AS runs" || fail "run_history"
  uri=$(sql "SELECT uri FROM artifacts JOIN jobs ON jobs.id = job_id WHERE kind = 'adapter' AND request_id = 'python'")
  "$real_trainer" evaluate --model tests/golden/models/tied-gqa --adapter "${uri#file://}" --dataset "$work/rows.jsonl" --max-length 32 --json >"$work/evaluation.log" ||
    fail "our own trainer cannot read its adapter"
  sql_is t "SELECT count(*) > 0 FROM checkpoints JOIN jobs ON jobs.id = job_id WHERE request_id = 'python'" || fail "its checkpoint"
  wait_state 300 python-exact succeeded
  sql_is "0|1" "SELECT (SELECT count(*) FROM checkpoints JOIN jobs ON jobs.id = job_id WHERE request_id = 'python-exact'),
    (SELECT count(*) FROM job_logs JOIN jobs ON jobs.id = job_id WHERE request_id = 'python-exact' AND message LIKE 'no checkpoint is kept: %')" ||
    fail "exact_resume"
  passed "Transformers and PEFT by way of Kafka: steps, evaluation, checkpoint and adapter beside ours in run_history"
fi
if [[ -n ${MF_TEST_PYTHON:-} ]]; then
  expect python-narrow unsupported_field "RequestError: use_4bit: bitsandbytes on a CPU takes layers whose input is a multiple of 64 wide; *down_proj has 96.*"
  # A model whose layers it takes, and the limit of checkpoints, which only a run by hand keeps itself.
  "$MF_TEST_PYTHON" - "$PWD/tests/golden/models/tied-gqa" "$work/wide" 2>"$work/wide.log" <<'PYTHON'
import pathlib, shutil, sys
import torch, transformers
source, target = map(pathlib.Path, sys.argv[1:])
config = transformers.AutoConfig.from_pretrained(source)
config.intermediate_size = 128
torch.manual_seed(1)
transformers.AutoModelForCausalLM.from_config(config).save_pretrained(target)
for path in source.glob("*token*"):
    shutil.copy(path, target)
PYTHON
  jq -n --arg model "$work/wide" --arg rows "$work/rows.jsonl" '{task: "text-generation", model_name: $model, dataset: $rows, max_steps: 6,
    provider: "transformers-python", strategy: "qlora", device: "cpu", max_seq_length: 32, save_steps: 2, save_total_limit: 1,
    exact_resume: false, learning_rate: 0.005, warmup_ratio: 0}' >"$work/four.json"
  MODELFORGE_TRAINER_PROVIDERS_FOLDER=$places MODELFORGE_TRAINER_PROVIDERS_TRUSTED=transformers-python \
    "$real_trainer" run "$work/four.json" --output "$work/four" >"$work/four.log" 2>&1 || fail "qlora in Python: $(tail -n 5 "$work/four.log")"
  [[ $(ls "$work/four/checkpoints") == checkpoint-6 ]] || fail "save_total_limit: 1 leaves $(ls "$work/four/checkpoints")"
  jq -e '[.log[] | .loss | numbers] | length == 6 and .[5] < .[0]' "$work/four/training.json" >"$work/jq.log" || fail "its loss: $(jq -c .log "$work/four/training.json")"
  passed "Transformers, PEFT and bitsandbytes in 4 bits on a CPU: the loss falls; save_total_limit is kept"
fi
stop_worker "$worker_pid"

# ---- another user: its programs get at their own attempts, and at no other
if [[ $(id -u) == 0 ]]; then
  chmod 711 "$work"
  write_config "$work/worker.conf" trainer.path="$real_trainer" providers.folder="$places" providers.user=nobody worker.slots=2 cancel.seconds=5
  start_worker "$work/worker.conf" "$work/worker.log"
  train built-in huggingface max_steps=1000000
  train foreign shouting-log
  wait_sql 60 t "SELECT count(*) > 0 FROM job_logs JOIN jobs ON id = job_id WHERE request_id = 'foreign' AND message LIKE '%another line'"
  wait_sql 60 t "SELECT count(*) > 0 FROM step_metrics JOIN jobs ON id = job_id WHERE request_id = 'built-in'"
  as_nobody() { setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups "$@"; }
  may_enter() {
    as_nobody test -x "$work/worker/runs/$(sql "SELECT attempt_id FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = '$1'")/output"
  }
  may_enter foreign || fail "the program's user cannot get at its own output"
  ! may_enter built-in || fail "the user of programs gets at a built-in provider's attempt"
  ! as_nobody ls "$work/worker/runs" 2>/dev/null || fail "the user of programs can list the attempts"
  for name_ in built-in foreign; do cancel "$name_"; done
  for name_ in built-in foreign; do wait_state 60 "$name_" cancelled; done
  stop_worker "$worker_pid"
  passed "a program's user gets at its own attempt, and at no other"
fi
echo "$checks checks passed"
