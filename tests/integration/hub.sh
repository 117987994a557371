#!/usr/bin/env bash
# Models from a hub, by the trainer alone, against a small hub of our own and with Hugging Face's library as the
# witness: what one downloads the other finds.
set -euo pipefail
[[ -n ${MF_TEST_PYTHON:-} ]] || {
  echo "skipped: MF_TEST_PYTHON is not set"
  exit 77
}
trainer=${MF_TEST_BUILD:?the build folder}/worker/trainer/modelforge-trainer
work=$(mktemp -d "${TMPDIR:-/tmp}/mf_hub.XXXXXX")
server_pid=
trap '[[ -z $server_pid ]] || kill "$server_pid" 2>/dev/null || :; [[ ${checks:-0} != failed ]] || tail -n 30 "$work/hub.log" >&2; rm -rf "$work"' EXIT
checks=0
fail() {
  echo "FAILED: $*" >&2
  checks=failed
  exit 1
}
passed() {
  checks=$((checks + 1))
  echo "ok $checks - $*"
}
unset "${!HF_@}" TRANSFORMERS_OFFLINE HUGGING_FACE_HUB_TOKEN
export HF_HOME=$work/home HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_XET=1 NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
cache=$HF_HOME/hub
while :; do
  port=$((20000 + RANDOM % 12000))
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || (exec 3<>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null || break
done
export HF_ENDPOINT=http://127.0.0.1:$port
: >"$work/hub.log"
"$trainer" merge --model tests/golden/models/tied-gqa --adapter tests/golden/models/tied-gqa/adapter --output "$work/merged" \
  --gguf f16 >"$work/merge.log" 2>&1 || fail "merge: $(cat "$work/merge.log")"
python3 tests/integration/hub_server.py "$port" tests/golden/models/tied-gqa "$work/hub.log" "$work/merged/model.gguf" 2>"$work/server.err" &
server_pid=$!
for ((i = 0; ; i++)); do
  curl -s -o /dev/null "$HF_ENDPOINT/_set" && break
  ((i < 100)) || fail "the hub does not start: $(cat "$work/server.err")"
  sleep 0.1
done
set_fault() { curl -s -o /dev/null "$HF_ENDPOINT/_set?$1"; }
requests() { grep -c "$1" "$work/hub.log" || :; }
score() { "$trainer" score --reference --json --model "$1" --text "$work/text" "${@:2}"; }
printf 'a small text to score\n' >"$work/text"
# refused MODEL TEXT: the trainer says exactly this.
refused() {
  local said status=0
  said=$(score "$1" 2>&1) || status=$?
  [[ $status == 1 && $said == "$2" ]] || fail "$1: exit $status, said: $said"
}
# The same, and so says the check that comes before a job.
no_access() { # MODEL TEXT
  local said status=0
  refused "$@"
  said=$("$trainer" access --model "$1" 2>&1) || status=$?
  [[ $status == 1 && $said == "$2" ]] || fail "access to $1: exit $status, said: $said"
}
hub_python() { "$MF_TEST_PYTHON" - "$@"; }
main=$(printf 'org/tiny main' | sha1sum | cut -d' ' -f1)
v1=$(printf 'org/tiny v1' | sha1sum | cut -d' ' -f1)
weights=$(sha256sum <tests/golden/models/tied-gqa/model.safetensors | cut -d' ' -f1)
local_score=$(score tests/golden/models/tied-gqa)

# ---- we download, Hugging Face's library finds it
[[ $(score hf://org/tiny) == "$local_score" ]] || fail "another score than that of the folder"
snapshot=$cache/models--org--tiny/snapshots/$main
[[ $(cat "$cache/models--org--tiny/refs/main") == "$main" && -L $snapshot/model.safetensors &&
  $(readlink "$snapshot/model.safetensors") == "../../blobs/$weights" && ! -e $snapshot/README.md ]] || fail "the cache's layout"
HF_HUB_OFFLINE=1 hub_python "$snapshot" <<'PYTHON' || fail "Hugging Face's library does not find what we downloaded"
import sys
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache
for name in ["config.json", "tokenizer.json", "model.safetensors"]:
    assert hf_hub_download("org/tiny", name) == f"{sys.argv[1]}/{name}", name
    assert try_to_load_from_cache("org/tiny", name) == f"{sys.argv[1]}/{name}", name
report = scan_cache_dir()
assert not report.warnings, report.warnings
(repository,) = report.repos
assert repository.repo_id == "org/tiny" and repository.nb_files == 4, repository
from transformers import AutoConfig
assert AutoConfig.from_pretrained("org/tiny").model_type
PYTHON
passed "Hugging Face's library and Transformers find what we downloaded"
before=$(requests network)
score hf://org/tiny >"$work/again"
[[ $(requests network) == "$before" ]] || fail "a cached model was downloaded again"
score "hf://org/tiny@$main" >"$work/again"
[[ $(requests "$(printf '%s' "resolve/$main/config")") -le 3 ]] || fail "a cached commit was asked for"
passed "what is in the cache is not downloaded again"

# ---- Hugging Face's library downloads, we find it
rm -rf "$HF_HOME"
hub_python <<'PYTHON'
from huggingface_hub import snapshot_download
snapshot_download("org/sharded")
snapshot_download("org/tiny", revision="v1")
PYTHON
before=$(requests .)
[[ $(HF_HUB_OFFLINE=1 score org/sharded) == "$local_score" ]] || fail "the sharded model scores otherwise"
[[ $(HF_HUB_OFFLINE=1 score hf://org/tiny@v1) == "$local_score" ]] || fail "the tag scores otherwise"
[[ $(requests .) == "$before" ]] || fail "offline mode asked the hub"
refused_text="ModelAccessError: model_name: org/tiny at revision main is not whole in the cache $cache, and HF_HUB_OFFLINE forbids to ask the hub"
HF_HUB_OFFLINE=1 refused hf://org/tiny "$refused_text"
passed "offline, we find what Hugging Face's library downloaded, shards and a tag, and ask nobody"
score hf://org/tiny@v1 >"$work/again"
[[ -L $cache/models--org--tiny/snapshots/$v1/generation_config.json ]] || fail "the tag's own file"
rm -rf "$HF_HOME"
[[ $(score org/sharded) == "$local_score" && $(score hf://org/renamed) == "$local_score" ]] || fail "shards or the renamed repository"
HF_HUB_OFFLINE=1 hub_python <<'PYTHON' || fail "Hugging Face's library does not find our shards"
from huggingface_hub import hf_hub_download
hf_hub_download("org/sharded", "model-00002-of-00002.safetensors")
PYTHON
passed "shards and renamed repositories"

# ---- broken, busy, damaged
rm -rf "$HF_HOME"
: >"$work/hub.log"
set_fault cut=3
[[ $(score hf://org/tiny) == "$local_score" ]] || fail "after cut connections"
[[ $(grep -c "network GET.*range=bytes=" "$work/hub.log") -ge 3 ]] || fail "a cut download did not go on by ranges: $(cat "$work/hub.log")"
! grep -q "network.*authorization=yes" "$work/hub.log" || fail "a token went to the content network"
passed "a download that is cut goes on where it stopped"
rm -rf "$HF_HOME"
mkdir -p "$cache/models--org--tiny/blobs"
head -c 100000 tests/golden/models/tied-gqa/model.safetensors >"$cache/models--org--tiny/blobs/$weights.incomplete"
: >"$work/hub.log"
[[ $(score hf://org/tiny) == "$local_score" ]] || fail "after another process's beginning"
grep -q "network GET.*range=bytes=100000-" "$work/hub.log" || fail "the beginning of another process was not used"
passed "what an earlier process began is gone on with"
rm -rf "$HF_HOME"
mkdir -p "$cache/models--org--tiny/blobs"
head -c 100000 /dev/zero >"$cache/models--org--tiny/blobs/$weights.incomplete"
[[ $(score hf://org/tiny) == "$local_score" ]] || fail "after a wrong beginning"
rm -rf "$HF_HOME"
set_fault "corrupt=1&whole=2"
[[ $(score hf://org/tiny) == "$local_score" ]] || fail "after a damaged byte"
rm -rf "$HF_HOME"
set_fault corrupt=5
refused hf://org/tiny "InfrastructureError: model hub: model.safetensors of org/tiny does not have the hash that it is named by"
[[ ! -e $cache/models--org--tiny/blobs/$weights ]] || fail "a damaged file is in the cache"
set_fault corrupt=0
passed "every file is checked against its hash"
rm -rf "$HF_HOME"
set_fault "busy=2&down=1"
[[ $(score hf://org/tiny) == "$local_score" ]] || fail "after 429 and 503"
set_fault down=1000
said=$(score hf://org/tiny 2>&1) || fail "a hub that is down stops a cached model: $said"
set_fault down=0
passed "429 with Retry-After and 503 are waited for; a hub that is down does not stop a cached model"

# ---- refusals, each by name
rm -rf "$HF_HOME"
no_access hf://org/none "ModelAccessError: model_name: there is no model org/none at $HF_ENDPOINT, or it is private and the worker has no token (HF_TOKEN)"
no_access hf://org/private "ModelAccessError: model_name: there is no model org/private at $HF_ENDPOINT, or it is private and the worker has no token (HF_TOKEN)"
no_access hf://org/gated "ModelAccessError: model_name: org/gated is gated: accept its conditions at $HF_ENDPOINT/org/gated and give the worker a token of that account (HF_TOKEN) (Access to model org/gated is restricted.)"
HF_TOKEN=hf_other no_access hf://org/gated "ModelAccessError: model_name: org/gated is gated: accept its conditions at $HF_ENDPOINT/org/gated and give the worker a token of an account that did (HF_TOKEN) (Access to model org/gated is restricted.)"
HF_TOKEN=hf_bad no_access hf://org/tiny "ModelAccessError: model_name: $HF_ENDPOINT asks for another token than the worker's (HF_TOKEN) to read org/tiny (Invalid credentials in Authorization header)"
refused hf://org/tiny@v2 "ModelAccessError: model_name: org/tiny has no revision v2 at $HF_ENDPOINT"
refused hf://org/pickle "ModelAccessError: model_name: org/pickle has no model.safetensors at its hub; pytorch_model.bin is not read, because loading a pickle runs code"
refused hf://org/gguf "ModelAccessError: model_name: org/gguf holds GGUF files only; the provider gguf trains one: hf://org/gguf/model.Q4_1.gguf"
refused hf://org/../x "RequestError: model_name: 'hf://org/../x' is not of the form hf://organisation/name@revision, or hf://organisation/name/FILE.gguf@revision"
refused /nowhere/model "ModelAccessError: model_name: there is no folder '/nowhere/model'; give the path of a Hugging Face model folder on this machine, or the id of a model on a hub: hf://organisation/name"
# The check before a job downloads nothing.
[[ $("$trainer" access --model hf://org/tiny) == "huggingface: hf://org/tiny may be used" ]] || fail "access to a public model"
[[ $(HF_TOKEN=hf_good "$trainer" access --model hf://org/gated) == "huggingface: hf://org/gated may be used" ]] || fail "access with a token"
[[ ! -e $cache/models--org--gated/blobs ]] || fail "something of a gated model is in the cache"
mkdir -p "$HF_HOME"
printf 'hf_good\n' >"$HF_HOME/token"
[[ $(score hf://org/gated) == "$local_score" && $(HF_TOKEN=hf_good score hf://org/private) == "$local_score" ]] || fail "gated and private with the right token"
passed "missing, gated, private, wrong token and revision are told apart; a token from the file or HF_TOKEN opens them"
# ---- one GGUF file of a hub, by the provider that trains such files
export MODELFORGE_TRAINER_PROVIDERS_FOLDER=$MF_TEST_BUILD/lib/modelforge/providers MODELFORGE_TRAINER_PROVIDERS_TRUSTED=gguf
file=hf://org/gguf/small/model.gguf
rm -rf "$HF_HOME"
[[ $("$trainer" access --provider gguf --model $file) == "gguf: $file may be used" ]] || fail "access to a GGUF file"
[[ $("$trainer" access --provider gguf --model $file --revision main) == "gguf: $file may be used" ]] || fail "access to a GGUF file at a revision"
[[ ! -e $cache/models--org--gguf/blobs ]] || fail "something of a GGUF file is in the cache"
gguf_score=$(score $file --provider gguf) || fail "a GGUF file of a hub is not read"
[[ $gguf_score == "$(score "$work/merged/model.gguf" --provider gguf)" ]] || fail "a GGUF file of a hub scores otherwise than the file"
[[ $(find "$cache/models--org--gguf/blobs" -type f | wc -l) == 1 ]] || fail "more than the one file was downloaded"
[[ $(HF_HUB_OFFLINE=1 score $file --provider gguf) == "$gguf_score" ]] || fail "the cached file is not used"
gguf_refused() { # MODEL TEXT [PROVIDER]
  local said status=0
  said=$("$trainer" access --provider "${3:-gguf}" --model "$1" 2>&1) || status=$?
  [[ $status == 1 && $said == "$2"* ]] || fail "access to $1: exit $status, said: $said"
}
gguf_refused hf://org/gguf/none.gguf "ModelAccessError: model_name: org/gguf has no file none.gguf at its hub (GGUF files there: model.Q4_1.gguf, small/model.gguf)"
gguf_refused hf://org/gguf "ModelAccessError: model_name: hf://org/gguf is not a .gguf file of this machine, nor one of a hub"
gguf_refused "$file@v9" "ModelAccessError: model_name: org/gguf has no revision v9 at $HF_ENDPOINT"
gguf_refused hf://org/gated/model.gguf "ModelAccessError: model_name: org/gated has no file model.gguf at its hub (GGUF files there: none)"
gguf_refused hf://org/none/model.gguf "ModelAccessError: model_name: there is no model org/none at $HF_ENDPOINT"
gguf_refused $file "ModelAccessError: model_name: $file is a GGUF file, which the provider gguf trains" huggingface
passed "one GGUF file of a hub is scored as the file itself; nothing else is downloaded"
echo "$checks checks passed"
