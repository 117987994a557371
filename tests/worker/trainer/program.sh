#!/usr/bin/env bash
# A provider's program for tests: what it does is told by its provider's name. `ours` is this project's own trainer behind
# the contract of external programs; the others break that contract, each in its own way.
#     program.sh capabilities | run REQUEST.json
set -euo pipefail
command=$1 request=${2:-} act=${MODELFORGE_PROVIDER:?}

rows='[{"architecture": "*", "task": "text-generation", "strategy": "sft", "level": "supported", "reason": "for tests"}]'
capable() { printf '{"protocol": %s, "version": "test", "available": true, "capabilities": %s}\n' "${1:-1}" "${2:-$rows}"; }

if [[ $command == capabilities ]]; then
  case $act in
    missing) echo '{"protocol": 1, "available": false, "reason": "Flux is not installed: pip install flux"}' ;;
    older) capable 9 ;;
    vague) capable 1 '[{"architecture": "*", "task": "*", "strategy": "*", "level": "good", "reason": "x"}]' ;;
    other) capable 1 '[{"architecture": "t5", "task": "*", "strategy": "*", "level": "supported", "reason": "x"}]' ;;
    prose) echo 'I can do everything' ;;
    fails) exit 9 ;;
    falls) kill -SEGV $$ ;;
    endless) exec yes '{"protocol": 1, "available": true,' ;;
    sleepy | hang*) exec sleep 1000 ;;
    bold) echo '{"protocol": 1, "available": false, "reason": "\u001b[1mno flux\u001b[0m"}' ;;
    talkative)
      for ((i = 0; i < 20000; i++)); do echo "line $i of many" >&2; done
      echo "the flux is not there" >&2
      exit 9
      ;;
    lingering) # ends, but not what it started, which holds its output open
      setsid sleep 1000 &
      echo $! >"${BROOD:?}"
      capable
      ;;
    wide) capable | jq -c '. + {max_gpus: 2}' ;;
    wider) capable | jq -c '. + {max_gpus: "all"}' ;;
    *) capable ;;
  esac
  exit 0
fi

say() { printf '%s\n' "$1" >&3; }
hello() { say '{"type": "hello", "protocol": '"${1:-1}"', "version": "test", "devices": []}'; }
sha=$(printf 'e%.0s' {1..64})
plan() {
  say '{"type": "plan", "managed_bytes": 1, "total_steps": 6, "train_rows": 12, "eval_rows": 4, "train_tokens": 100, "truncated_rows": 0, "dropped_rows": 0, "numeric_plan_sha256": "'"$sha"'"}'
}
step() {
  say '{"type": "step", "step": '"$1"', "epoch": 1, "loss": 2, "learning_rate": 0.1, "gradient_norm": 1, "tokens": 5, "tokens_per_second": 5, "elapsed_seconds": 1}'
}
artifact() { say '{"type": "artifact", "kind": "adapter", "path": "'"$1"'", "size_bytes": 1}'; }
done_() { say '{"type": "done", "steps": 6, "train_loss": 2, "eval_loss": null, "perplexity": null, "trained_tokens": 30}'; }

case $act in
  wide) # says how many GPUs it was asked for
    hello
    say '{"type": "error", "code": "dataset_syntax", "message": "gpus '"$(jq .gpus "$request")"'"}'
    exit 1
    ;;
  ours)
    sed 's/"provider": "ours"/"provider": "huggingface"/' "$request" >own-request.json
    exec "${TRAINER:?}" run own-request.json
    ;;
  keepless) # as `ours`, but says nothing of its checkpoints
    sed 's/"provider": "keepless"/"provider": "huggingface"/' "$request" >own-request.json
    mkfifo events
    grep --line-buffered -v '"type":"checkpoint"' <events >&3 &
    status=0
    "${TRAINER:?}" run own-request.json 3>events || status=$?
    wait
    exit "$status"
    ;;
  falls-while-running)
    hello
    echo 'matrix is on fire' >&2
    kill -SEGV $$
    ;;
  mute) exec sleep 1000 ;;
  brood) # a child of its group, and one that has left group, session and parent
    hello
    sleep 1000 &
    echo $! >"$MODELFORGE_OUTPUT_DIR/brood.new"
    # shellcheck disable=SC2016 # for that shell
    (setsid sh -c 'echo $$ >>"$MODELFORGE_OUTPUT_DIR/brood.new"; mv "$MODELFORGE_OUTPUT_DIR/brood.new" "$MODELFORGE_OUTPUT_DIR/brood"; exec sleep 1000' &)
    exec sleep 1000
    ;;
  shouting) exec yes 'and another line' ;;
  shouting-log)
    hello
    plan
    while :; do say '{"type": "log", "level": "info", "message": "and another line"}'; done
    ;;
  newer) hello 2 ;;
  garbage)
    hello
    say 'Traceback (most recent call last):'
    ;;
  longline)
    hello
    head -c 100000 /dev/zero | tr '\0' x >&3
    ;;
  liar)
    hello
    plan
    step 1
    artifact /etc
    done_
    ;;
  climber)
    hello
    plan
    step 1
    artifact "$MODELFORGE_OUTPUT_DIR/../.."
    done_
    ;;
  backwards)
    hello
    plan
    step 5
    step 4
    done_
    ;;
  greedy)
    hello
    head -c 3000000 /dev/zero >"$MODELFORGE_OUTPUT_DIR/big" || exit 7
    done_
    ;;
  cheat)
    hello
    plan
    done_
    exit 5
    ;;
  twice)
    hello
    plan
    done_
    done_
    ;;
  closing)
    hello
    plan
    step 1
    exec 3>&-
    exec sleep 1000
    ;;
  loud) # what a terminal would obey
    hello
    say '{"type": "log", "level": "info", "message": "\u001b[2Jlog\u009b31m"}'
    say '{"type": "error", "code": "flux_inverted", "message": "\u001b]0;title\u0007the flux\u007f\nis \u00fcber"}'
    exit 1
    ;;
  hasty)
    hello
    step 1
    ;;
  forgetful)
    hello
    done_
    ;;
  planner)
    hello
    plan
    plan
    ;;
  shaky)
    hello
    say '{"type": "progress", "phase": "train", "fraction": 0.5}'
    say '{"type": "progress", "phase": "train", "fraction": 0.25}'
    ;;
  eager)
    hello
    say '{"type": "ack", "number": 7}'
    ;;
  relative) # names its places as they are seen from the folders that it was given
    hello
    plan
    step 1
    mkdir -p "$MODELFORGE_CHECKPOINT_DIR/step-1" "$MODELFORGE_OUTPUT_DIR/adapter"
    echo 1 >"$MODELFORGE_CHECKPOINT_DIR/step-1/state"
    say '{"type": "checkpoint", "step": 1, "path": "step-1"}'
    artifact adapter
    done_
    ;;
  picky)
    hello
    plan
    grep -q '"learning_rate"' <(sed -n '/"changed"/,/\]/p' "$request") || {
      done_
      exit 0
    }
    say '{"type": "error", "code": "unsupported_field", "message": "learning_rate: this program has its own"}'
    exit 1
    ;;
  inventive)
    hello
    say '{"type": "error", "code": "flux_inverted", "message": "the flux is inverted"}'
    exit 1
    ;;
  spy) # what a program can see: its environment, user, descriptors, folder
    hello
    {
      env | sort
      echo "uid=$(id -u) groups=$(id -G) pwd=$PWD"
      for descriptor in "/proc/$$/fd"/*; do echo "fd $(readlink "$descriptor")"; done
      cat "${SPY_ON:-/nonexistent}" 2>&1 || :
    } >"$MODELFORGE_OUTPUT_DIR/seen"
    while IFS= read -r line; do
      say '{"type": "log", "level": "info", "message": "saw '"${line//[\"\\]/}"'"}'
    done <"$MODELFORGE_OUTPUT_DIR/seen"
    say '{"type": "error", "code": "spied", "message": "it has seen enough"}'
    exit 1
    ;;
  *) exit 8 ;;
esac
