#!/usr/bin/env bash
# external.sh TRAINER: programs of their own as providers. What may be run, as whom and with what; a program that keeps the
# contract; and what is said of those that break it.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"
trainer=$1
umask 022
places=$folder/providers
mkdir "$places"
cp "$(dirname "${BASH_SOURCE[0]}")/program.sh" "$folder/program.sh"
export MODELFORGE_TRAINER_PROVIDERS_FOLDER=$places MODELFORGE_TRAINER_PROVIDER_SECONDS=2
unset MODELFORGE_TRAINER_PROVIDERS_TRUSTED MODELFORGE_TRAINER_PROVIDERS_USER

install() { # NAME [LINE]...
  printf '%s\n' "exec = $folder/program.sh" "environment.TRAINER = $trainer" "${@:2}" >"$places/$1.conf"
}
trusted() { MODELFORGE_TRAINER_PROVIDERS_TRUSTED=$1 "${@:2}"; }
request() { # NAME [JSON MEMBERS]
  rm -rf "$folder/output-$1"
  printf '{"task": "text-generation", "model_name": "%s", "dataset": "%s", "provider": "%s", "max_steps": 6, "device": "cpu"%s}\n' \
    "$PWD/$model" "$folder/rows.jsonl" "$1" "${2:-}" >"$folder/request.json"
}
run() { trusted "$1" "$trainer" run "$folder/request.json" --output "$folder/output-$1"; }
check() { trusted "$1" "$trainer" check "$1"; }

# ---- one that keeps the contract, by the check and in a run
install ours
expect 0 '^ok +a whole run: done after 6 steps' check ours
for title in 'cancel: cancelled' 'pause: paused' 'going on from the checkpoint: done after 400 steps' 'a damaged model: error'; do
  grep -q -E "^ok +$title" "$folder/output" || fail "the check has no '$title': $(cat "$folder/output")"
done
request ours ', "learning_rate": 0.001'
expect 0 'done: 6 steps' run ours
[[ -s $folder/output-ours/adapter/adapter_model.safetensors && ! -e $folder/output-ours/program ]] || fail "its output"
request huggingface ', "learning_rate": 0.001'
expect 0 'done: 6 steps' "$trainer" run "$folder/request.json" --output "$folder/output-huggingface"
cmp "$folder/output-ours/adapter/adapter_model.safetensors" "$folder/output-huggingface/adapter/adapter_model.safetensors" ||
  fail "the same rows through the contract give another adapter"
expect 0 'ours.*program.*"available":true' trusted ours "$trainer" providers --json

# ---- several GPUs, as many as the program says
install wide
expect 0 '"name":"wide"[^{]*"max_gpus":2' trusted wide "$trainer" providers --json
expect 0 '"name":"huggingface"[^{]*"max_gpus":1' trusted wide "$trainer" providers --json
wide_on() { # GPUS
  request wide ", \"gpus\": $1"
  sed -i 's/"device": "cpu"/"device": "auto"/' "$folder/request.json"
}
wide_on 2
expect 1 'gpus 2' run wide
wide_on 3
expect 1 'gpus: 3 is refused by this provider: its program takes at most 2' run wide
install wider
request wider
expect 1 'max_gpus' run wider

# ---- as many as there are; those that hang hang beside each other
mkdir "$folder/many"
for ((i = 1; i <= 70; i++)); do
  printf 'exec = %s\nenvironment.TRAINER = %s\n' "$folder/program.sh" "$trainer" >"$folder/many/p$i.conf"
done
for ((i = 1; i <= 7; i++)); do cp "$folder/many/p1.conf" "$folder/many/hang$i.conf"; done
all=$(cd "$folder/many" && printf '%s,' *.conf)
begun=$SECONDS
expect 0 '"name":"p70"' env MODELFORGE_TRAINER_PROVIDERS_FOLDER="$folder/many" MODELFORGE_TRAINER_PROVIDERS_TRUSTED="${all//.conf/}" \
  MODELFORGE_TRAINER_PROVIDER_SECONDS=8 "$trainer" providers --json
((SECONDS - begun < 40)) || fail "seven that hang for 8 s each took $((SECONDS - begun)) s"
[[ $(jq '[.providers[] | select(.kind == "program" and .available)] | length' "$folder/output") == 70 ]] ||
  fail "not all 70 programs are there: $(jq -c '[.providers[] | select(.available | not) | [.name, .reason]]' "$folder/output")"

# ---- what is not run at all, and why
request ours
expect 1 "name it in providers.trusted to let it run as this worker's user, or a user for it in providers.user" run nothing
sed 's#"ours"#"../ours"#' "$folder/request.json" >"$folder/climbing.json"
expect 1 'provider: "../ours" may hold only small letters' "$trainer" run "$folder/climbing.json"
chmod g+w "$places"
expect 1 "ProviderError: $places may be written by its group \(mode 0775\): chmod go-w it" run ours
chmod g-w "$places"
chmod o+w "$places/ours.conf"
expect 1 "ours.conf may be written by everybody" run ours
chmod o-w "$places/ours.conf"
chmod g+w "$folder/program.sh"
expect 1 "program.sh may be written by its group" run ours
chmod g-w "$folder/program.sh"
mkdir -m 777 "$folder/open"
ln -s "$folder/program.sh" "$folder/open/link.sh"
printf 'exec = %s\n' "$folder/open/link.sh" >"$places/linked.conf"
request linked
expect 1 "$folder/open may be written by everybody" run linked
printf 'exec = program.sh\n' >"$places/relative.conf"
request relative
expect 1 "exec: 'program.sh' is no absolute path" run relative
printf 'exec = /nonexistent/program\n' >"$places/gone.conf"
request gone
expect 1 "/nonexistent/program: No such file or directory" run gone
printf 'program = /bin/true\n' >"$places/misspelt.conf"
request misspelt
expect 1 "misspelt.conf:1: unknown option program" run misspelt
expect 1 "there is no nobody-has-it.conf in the folder" check nobody-has-it

# ---- bad answers about itself
answers() { # NAME PATTERN
  install "$1"
  request "$1"
  expect 1 "ProviderError: .*$2" run "$1"
}
answers missing 'Flux is not installed: pip install flux'
answers older 'it speaks trainer protocol 9, this version 1'
answers vague "row 1 of capabilities: level 'good' is none of unsupported, experimental, limited, supported"
answers other 'other cannot train llama for text-generation with sft: the provider does not know this combination\. What it trains here: t5 \(\*, \*\)'
answers prose "its capabilities: line 1, column 1: invalid token near 'I'"
answers fails "'.*program.sh capabilities' failed: exit code 9"
answers falls "'.*program.sh capabilities' failed: killed by signal 11"
answers bold '\?\[1mno flux\?\[0m$'
answers talkative "'.*program.sh capabilities' failed: exit code 9; it wrote: .*line 19999 of many\|the flux is not there$"
answers endless "'.*program.sh capabilities' wrote more than 1 MiB"
answers sleepy "'.*program.sh capabilities' did not end within 2 s"

# ---- bad trainers
breaks() { # NAME CLASS PATTERN [LINE OF NAME.conf]
  install "$1" "${@:4}"
  request "$1"
  expect 1 "$2.*$3" run "$1"
}
crashed="TrainingError: the program of provider"
breaks falls-while-running "$crashed" "killed by signal 11 \(Segmentation fault\) in phase load after step 0; it wrote: matrix is on fire"
breaks mute ProviderError "the program did not say hello within 2 s"
breaks shouting ProviderError "the program did not say hello within 2 s"
breaks newer ProviderError "the program speaks protocol 2, this version 1"
breaks garbage ProviderError "a line is not a JSON object"
breaks longline ProviderError "a line is longer than 65536 bytes"
breaks cheat "$crashed" "said done but then ended with exit code 5"
breaks twice ProviderError "the program said done after done"
breaks closing ProviderError "the program closed its events \(descriptor 3\) in phase train after step 1, and went on"
breaks loud InfrastructureError '\?\]0;title\?the flux\?$'
grep -q '^is über$' "$folder/output" || fail "what it said: $(cat -v "$folder/output")"
grep -q '^info: ?\[2Jlog?31m$' "$folder/output" || fail "its log: $(cat -v "$folder/output")"
breaks hasty ProviderError "the program said step before plan"
breaks forgetful ProviderError "the program said done before plan"
breaks planner ProviderError "the program said plan twice"
breaks shaky ProviderError "progress of the program: the fraction of phase train fell from 0.5 to 0.25"
breaks eager ProviderError "the program said ack of command 7, which was not sent"
breaks backwards ProviderError "the program said step 4 after step 5"
breaks liar ProviderError "the program named the artifact '/etc', which is not in its folder for that, $folder/output-liar"
breaks climber ProviderError "the program named the artifact '.*/output-climber/\.\./\.\.', which is not in its folder"
breaks greedy "$crashed" "ended without saying why: " "limit.file_bytes = 1000000"
[[ $(stat -c %s "$folder/output-greedy/big") == 1000000 ]] || fail "limit.file_bytes"
breaks inventive InfrastructureError "the flux is inverted"
install relative
request relative
expect 0 "adapter: $folder/output-relative/adapter \(1 bytes\)" run relative
install picky
request picky
expect 0 'done: 6 steps' run picky
request picky ', "learning_rate": 0.001'
expect 1 'RequestError: learning_rate: this program has its own' run picky

# ---- nothing that it started outlives it, nor the trainer that is killed by hand
all_gone() { # FILE OF PROCESS IDS
  local pid
  while read -r pid; do
    for ((turn = 0; turn < 200; turn++)); do kill -0 "$pid" 2>/dev/null || continue 2; sleep 0.05; done
    fail "process $pid is left: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
  done <"$1"
}
install brood
request brood
MODELFORGE_TRAINER_PROVIDERS_TRUSTED=brood "$trainer" run "$folder/request.json" --output "$folder/output-brood" >"$folder/output" 2>&1 &
for ((turn = 0; turn < 200; turn++)); do [[ ! -e $folder/output-brood/brood ]] || break; sleep 0.05; done
[[ $(wc -l <"$folder/output-brood/brood") == 2 ]] || fail "it has no brood: $(cat "$folder/output")"
kill -KILL $!
wait $! 2>/dev/null || :
all_gone "$folder/output-brood/brood"
install lingering "environment.BROOD = $folder/brood"
request lingering
expect 1 'exit code 8' run lingering # its answer counts, though its output stays open
all_gone "$folder/brood"

# ---- the check names what is broken
broken() { # NAME PATTERN
  install "$1"
  expect 1 "^BROKEN +a whole run: $2" check "$1"
  grep -q "$1 breaks the contract" "$folder/output" || fail "no verdict on $1"
}
broken liar "the program named the artifact '/etc', which is not in its folder for that"
broken climber "the program named the artifact '.*/output/\.\./\.\.', which is not in its folder for that"
broken backwards "the program said step 4 after step 5"
broken hasty "the program said step before plan"
broken mute "the program did not say hello within 2 s"
broken shouting-log "ping was not acknowledged within 4 s"
install keepless
expect 1 '^BROKEN +pause: it paused without a checkpoint' check keepless
grep -q '^not run going on from the checkpoint: pause left no checkpoint' "$folder/output" || fail "it says nothing of what it left out: $(cat "$folder/output")"
# Ended by hand it leaves nothing: no folder, no process.
mkdir "$folder/tmp"
TMPDIR=$folder/tmp MODELFORGE_TRAINER_PROVIDERS_TRUSTED=brood "$trainer" check brood >"$folder/output" 2>&1 &
brood=
for ((turn = 0; turn < 200; turn++)); do
  brood=$(find "$folder/tmp" -name brood -type f)
  [[ -z $brood ]] || break
  sleep 0.05
done
cp "$brood" "$folder/brood"
kill -INT $!
ended=0
wait $! 2>/dev/null || ended=$?
[[ $ended == 130 ]] || fail "check ended with $ended after SIGINT: $(cat "$folder/output")"
[[ -z $(ls "$folder/tmp") ]] || fail "check left $(ls "$folder/tmp")"
while read -r pid; do ! kill -0 "$pid" 2>/dev/null || fail "check left process $pid"; done <"$folder/brood"
install missing
expect 1 "^missing cannot be used here: Flux is not installed" check missing

# ---- what a program sees, and as whom it runs
install spy "environment.FLUX = 7"
request spy
expect 1 "it has seen enough" env HF_TOKEN=hf_hidden AWS_SECRET_ACCESS_KEY=hidden MODELFORGE_DATABASE_URL=postgresql://hidden \
  MODELFORGE_TRAINER_PROVIDERS_TRUSTED=spy "$trainer" run "$folder/request.json" --output "$folder/output-spy"
seen=$folder/output-spy/seen
! grep -i -E 'hidden|token|secret' "$seen" || fail "it sees a secret"
for line in FLUX=7 "MODELFORGE_OUTPUT_DIR=$folder/output-spy" MODELFORGE_PROVIDER=spy; do
  grep -q -x -e "$line" "$seen" || fail "it does not see $line: $(cat "$seen")"
done
grep -q "pwd=$folder/output-spy/program/work" "$seen" || fail "its folder: $(cat "$seen")"
! grep '^fd ' "$seen" | grep -v -E "^fd (pipe:|/dev/null|$folder/program.sh|$folder/output-spy/seen|\$)" || fail "it has descriptors that are not its own"
if [[ $(id -u) == 0 ]]; then
  install bounded "limit.processes = 10"
  request bounded
  expect 1 "bounded.conf: limit.processes: the system holds root to no number of processes" run bounded
  chmod 711 "$folder"
  echo "of root alone" >"$folder/private"
  chmod 600 "$folder/private"
  install spy "environment.SPY_ON = $folder/private"
  request spy
  expect 1 "it has seen enough" env MODELFORGE_TRAINER_PROVIDERS_USER=nobody "$trainer" run "$folder/request.json" --output "$folder/output-spy"
  grep -q "uid=$(id -u nobody) groups=$(id -g nobody) " "$seen" || fail "it runs as: $(grep uid= "$seen")"
  grep -q "private: Permission denied" "$seen" || fail "it can open what is root's"
  ! grep -q "of root alone" "$seen" || fail "it reads what is root's"
  [[ $(stat -c %U "$folder/output-spy") == nobody ]] || fail "the folder for output is not its own"
  expect 1 "providers.user: 'root' is root" env MODELFORGE_TRAINER_PROVIDERS_USER=root "$trainer" check spy
  expect 1 "providers.user: there is no user 'nosuch'" env MODELFORGE_TRAINER_PROVIDERS_USER=nosuch "$trainer" check spy
fi
echo "ok"
