#!/usr/bin/env bash
# shared_options.sh MODELFORGE MODELFORGE_WORKER: one properties file may serve both programs, so the client takes every
# option of the worker without complaint.
set -euo pipefail
modelforge=$1 worker=$2
unset "${!MODELFORGE_@}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0
while read -r name; do
  printf '%s = 1\n' "${name/\*/x}" >"$work/conf"
  "$modelforge" --config "$work/conf" status >"$work/out" 2>&1 || :
  ! grep -q "unknown option" "$work/out" || {
    echo "FAILED: $(<"$work/out")" >&2
    exit 1
  }
  count=$((count + 1))
done < <("$worker" --help | sed -nE 's/^  ([a-z][a-z0-9_.]*[*]?) \(.*/\1/p' | sort -u)
((count > 40)) || {
  echo "FAILED: only $count options were found in the worker's help" >&2
  exit 1
}
echo "ok - $count options"
