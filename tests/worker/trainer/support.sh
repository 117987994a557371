# shellcheck shell=bash
# shellcheck disable=SC2034 # used by those who read this file
# What the scripts that run the trainer as a person would share: a folder of their own, rows, looking at what came out.
set -euo pipefail
model=tests/golden/models/tied-gqa
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# expect STATUS PATTERN COMMAND...: runs it, compares its exit status, searches both outputs.
expect() {
  local status=$1 pattern=$2 got=0
  shift 2
  "$@" >"$folder/output" 2>&1 || got=$?
  [[ $got == "$status" ]] || fail "$*: exit status $got, not $status: $(cat "$folder/output")"
  grep -q -E -e "$pattern" "$folder/output" || fail "$*: no '$pattern' in: $(cat "$folder/output")"
}

said() { jq -c "$2" "$folder/$1/training.json"; }                         # NAME FILTER
digest() { sha256sum <"$folder/$1/adapter/adapter_model.safetensors"; } # NAME

for index in $(seq 1 24); do
  printf '{"input": "Say %d", "output": "It is %d."}\n' "$index" "$index"
done >"$folder/rows.jsonl"
