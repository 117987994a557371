# shellcheck shell=bash
# What every script under ops/ shares: messages, the download cache, ports, processes known by pid file.
# Sourced with `set -euo pipefail` in force and ops_root set to the repository's root.

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  warn "$*"
  exit 1
}

# Where downloads are kept from run to run; never inside the repository.
cache_folder() { printf '%s' "${MODELFORGE_CACHE:-${HOME:-/var/tmp}/.cache/modelforge}"; }

# with_cache_lock NAME COMMAND...: one process at a time fills NAME in the cache.
with_cache_lock() {
  local name=$1 folder
  shift
  folder=$(cache_folder)
  mkdir -p "$folder"
  (
    flock 8
    "$@" 8>&-
  ) 8>"$folder/.$name.lock"
}

# unpacked_wheel PIN_FILE FOLDER: FOLDER holds the wheel that PIN_FILE names with its hash, unzipped.
unpacked_wheel() {
  local pin=$1 folder=$2
  [[ -e $folder/.complete ]] || with_cache_lock "${folder##*/}" fetch_wheel "$pin" "$folder"
}

fetch_wheel() {
  local pin=$1 folder=$2 partial
  [[ ! -e $folder/.complete ]] || return 0
  partial=$(mktemp -d "$(cache_folder)/partial.XXXXXX")
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --dest "$partial/wheel" --requirement "$pin" || die "cannot download what ${pin##*/} names"
  python3 -m zipfile --extract "$partial"/wheel/*.whl "$partial/content"
  : >"$partial/content/.complete"
  rm -rf "$folder"
  mv "$partial/content" "$folder"
  rm -rf "$partial"
}

# quietly WHAT COMMAND...: shows what the command said only when it fails.
quietly() {
  local what=$1 output
  shift
  output=$("$@" 2>&1 </dev/null) || {
    printf '%s\n' "$output" | tail -n 30 >&2
    die "$what failed"
  }
}

port_is_taken() { (exec 7<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A loopback port nobody listens on, below the range the kernel hands out by itself.
free_port() {
  local port attempt
  for ((attempt = 0; attempt < 200; attempt++)); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if ! port_is_taken "$port"; then
      printf '%s' "$port"
      return
    fi
  done
  die "no free loopback port between 20000 and 31999"
}

# A process is known by its pid and its start time, so that a reused pid is never taken for ours.
start_time_of() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086  # the fields are wanted as words
  set -- $stat
  [[ $1 != Z ]] || return 1
  printf '%s' "${20}"
}

# remember_process PID_FILE PID
remember_process() { printf '%s %s\n' "$2" "$(start_time_of "$2" || echo gone)" >"$1"; }

# live_process PID_FILE: prints the pid when that very process still runs.
live_process() {
  local pid started
  [[ -s $1 ]] && read -r pid started <"$1" && [[ $(start_time_of "$pid") == "$started" ]] && printf '%s' "$pid"
}

# wait_until SECONDS WHAT COMMAND...: polls the command until it succeeds.
wait_until() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@"; do
    if ((SECONDS >= end)); then
      warn "$what: not so after $limit s"
      return 1
    fi
    sleep 0.05
  done
}

process_is_gone() { ! start_time_of "$1" >/dev/null; }

# end_process PID_FILE SIGNAL [SECONDS]: signals the process, waits, and kills it when it overstays.
end_process() {
  local pid
  if ! pid=$(live_process "$1"); then
    rm -f "$1"
    return 0
  fi
  [[ $2 == KILL ]] || kill -CONT "$pid" 2>/dev/null || :
  kill "-$2" "$pid" 2>/dev/null || :
  if ! wait_until "${3:-20}" "process $pid has ended" process_is_gone "$pid"; then
    kill -KILL "$pid" 2>/dev/null || :
    wait_until 10 "killed process $pid has ended" process_is_gone "$pid"
  fi
  rm -f "$1"
}

# start_daemon PID_FILE LOG COMMAND...: in its own session, nothing inherited but the environment.
start_daemon() {
  local pid_file=$1 log=$2
  shift 2
  (cd / && exec setsid "$@" </dev/null >>"$log" 2>&1 6>&- 7>&- 8>&- 9>&-) &
  remember_process "$pid_file" $!
}

resident_mib() { awk '/^VmRSS/ { printf "%d", $2 / 1024 }' "/proc/$1/status" 2>/dev/null || printf '?'; }
