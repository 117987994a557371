#!/usr/bin/env bash
# What cmake --install leaves: programs, a client library that other services build against, man pages, completion.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

set_up
prefix=$work/prefix
cmake --install "$MF_TEST_BUILD" --prefix "$prefix" >"$work/install.log" 2>&1 || fail "cmake --install"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib PATH=$prefix/bin:$PATH

# ---- a service, built from the installed files alone
sanitize=()
! grep -q '^MODELFORGE_SANITIZE:STRING=.' "$MF_TEST_BUILD/CMakeCache.txt" || sanitize=(-fsanitize=address -fsanitize=undefined)
read -ra flags <<<"$(pkg-config --cflags --libs modelforge-producer)"
(
  cd "$work" # where nothing of the source tree can be found
  cc -std=c11 -Wall -Wextra -Werror "${sanitize[@]}" "$prefix/share/modelforge/example/service.c" "${flags[@]}" -o service
) || fail "the example does not build from the installed files"
cat >"$work/requests.jsonl" <<'TEXT'
{"task":"text-generation","model_name":"/models/m","dataset":"/data/d.jsonl","request_id":"first"}
{"task":"text-generation","model_name":"/models/m","dataset":"/data/d.jsonl","learning_rate":7}
{"task":"text-generation","model_name":"/models/m","dataset":"/data/d.jsonl","request_id":"third"}
TEXT
status=0
REQUESTS_TOPIC=$requests "$work/service" "$brokers" "$registry_url" <"$work/requests.jsonl" >"$work/out" 2>"$work/err" || status=$?
[[ $status == 1 ]] || fail "exit status $status of the example"
grep -q '^refused: RequestError: the line: learning_rate: ' "$work/out" || fail "the refused request's text"
[[ $(grep -c " accepted at $requests/[0-9]*/[0-9]*$" "$work/out") == 2 ]] || fail "two requests were to be accepted"
equals "default/first default/third" eval "kcat -C -b '$brokers' -t '$requests' -e -q -f '%k\n' | sort | xargs" ||
  fail "what the topic holds"
if nm -D --defined-only "$prefix/lib/libmodelforge-producer.so" | grep -vE ' [A-Z] mf_'; then
  fail "the library offers names of others"
fi
passed "the example service builds from the installed files and its requests are on the topic"
printf '#include <producer/client.h>\nint main() { return mf_status_from_code("kafka") != MF_ERROR_KAFKA; }\n' >"$work/try.cpp"
(cd "$work" && c++ -Wall -Wextra -Werror "${sanitize[@]}" try.cpp "${flags[@]}" -o try && ./try) || fail "the headers in C++"
passed "the headers serve C++, too"

# ---- man pages and completion say what the programs say
for page in man1/modelforge.1 man1/modelforge-trainer.1 man8/modelforge-worker.8; do
  LC_ALL=C.UTF-8 man --warnings -l "$prefix/share/man/$page" >"$work/page" 2>"$work/err" || fail "$page"
  [[ ! -s $work/err ]] || fail "$page: $(head -n 1 "$work/err")"
  grep -q '^SEE ALSO' "$work/page" || fail "$page is cut"
done
passed "the man pages have no fault"

# shellcheck disable=SC1091 # made by the build
. "$prefix/share/bash-completion/completions/modelforge"
# shellcheck disable=SC2317 # called by the completion
offers() { # WORD...: what is offered for the last one
  COMP_WORDS=(modelforge "$@")
  COMP_CWORD=$#
  COMPREPLY=()
  compopt() { :; } # nobody completes at a terminal here
  _modelforge
  printf '%s\n' "${COMPREPLY[@]}"
}
equals "cancel" offers ca || fail "commands"
equals "qlora sft" eval "offers submit --strategy '' | sort | xargs" || fail "values of a field: $(offers submit --strategy '')"
equals "--learning-rate" offers submit request.json --learning || fail "fields"
equals "status" offers --config file ingest st || fail "words of a command"
for command in $(offers ''); do
  { modelforge "$command" --help | grep -oE -- '--[a-z][a-z-]*' || :; } | sort -u | while read -r flag; do
    case $flag in --batch-id | --field | --learning-rate | --target-modules | --labels) continue ;; esac
    equals "$flag" eval "offers $command $flag | grep -x -- $flag" || fail "$command: $flag is not offered"
  done
done
passed "completion offers commands, fields, values and every flag that --help names"
echo "$checks checks passed"
