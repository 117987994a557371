#!/usr/bin/env bash
# numbers.sh MODELFORGE: what is no whole number is refused by name, before anything is sent or asked for.
set -euo pipefail
modelforge=$1
unset "${!MODELFORGE_@}"
count=0
refused() { # FLAG COMMAND [ARGUMENT]...: the value of the flag is wrong
  local flag=$1 status=0 said
  shift
  said=$("$modelforge" "$@" 2>&1) || status=$?
  [[ $status == 2 && $said == *"$flag takes a whole number"* ]] || {
    echo "FAILED: '$*' ended with $status and said: $said" >&2
    exit 1
  }
  count=$((count + 1))
}
for value in soon -1 1.5 1e3 '' 99999999999999999999 '7 '; do
  for command in submit "batch file" "watch job" "cancel job"; do
    # shellcheck disable=SC2086 # a command and its argument
    refused --timeout $command --timeout "$value"
  done
  for command in status history "logs job" "dlq list"; do
    # shellcheck disable=SC2086
    refused --limit $command --limit "$value"
  done
  refused --generation retry job --generation "$value"
done
refused --generation retry job --generation 0
echo "ok - $count values"
