#!/usr/bin/env bash
# Every fault of datasets, models, adapters and disks that a trainer meets, through the real program: code and text as
# in tests/errors.tsv (the rows whose test is "trainer"), exit status, and nothing half-written left behind.
# usage: faults.sh TRAINER [INPUT...]   with inputs: only these, and what came is shown as a row
set -euo pipefail
trainer=$1
shift
model=$PWD/tests/golden/models/tied-gqa
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
plugins=$(dirname "$trainer")/../../tests/providers/plugins
export OMP_NUM_THREADS=1 MODELFORGE_TRAINER_PROVIDERS_FOLDER=$work/providers MODELFORGE_TRAINER_PROVIDER_SECONDS=1

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

rows() { # COUNT FILE
  local i
  for ((i = 1; i <= $1; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$2"
}
rows 20 "$work/good.jsonl"
mkfifo "$work/commands" "$work/pipe"

# ---- how an input reaches the program

# train FIELD=JSON...: one run of the trainer as a worker starts it. Its events are in $work/events.
under=() # a command that the trainer runs under
train() {
  local field filter='.' status=0
  for field in "$@"; do filter+=" | .${field%%=*} = ${field#*=}"; done
  jq -n --arg model "$model" --arg rows "$work/good.jsonl" --arg output "$work/output" \
    '{task: "text-generation", model_name: $model, dataset: $rows, max_steps: 2, bf16: false,
      run: {output_dir: $output, checkpoint_dir: ($output + "/checkpoints")}}'" | $filter" >"$work/request.json"
  "${under[@]}" "$trainer" run "$work/request.json" 3>&1 >"$work/said" 2>&1 4<>"$work/commands" |
    cat >"$work/events" || status=$?
  exited=$status
}
data() { train dataset="\"$work/$1\"" "${@:2}"; } # FILE FIELD=JSON...

# a copy of the model folder to be harmed; replaced by the next
copy() {
  rm -rf "$work/model"
  cp -r "$model" "$work/model"
}
harmed() { train model_name="\"$work/model\"" "$@"; }
config() { # FILTER: the model with another config.json
  copy
  jq "$1" "$model/config.json" >"$work/model/config.json"
  harmed
}
# weights PYTHON: the header `h` and the data `d` of model.safetensors, changed by statements
weights() {
  copy
  python3 - "$work/model/model.safetensors" "$1" <<'PYTHON'
import json, struct, sys
path, change = sys.argv[1:]
b = open(path, "rb").read()
n = struct.unpack("<Q", b[:8])[0]
h, d = json.loads(b[8:8 + n]), bytearray(b[8 + n:])
exec(change)
t = json.dumps(h).encode()
open(path, "wb").write(struct.pack("<Q", len(t)) + t + d)
PYTHON
  harmed
}
# tool ARGUMENT...: a command that is no run; what it says on standard error counts
tool() {
  exited=0
  "$trainer" "$@" >"$work/standard" 2>"$work/said" || exited=$?
}

# ---- datasets
dataset_empty() { : >"$work/empty.jsonl" && data empty.jsonl; }
dataset_blank_lines() { printf '\n \r\n\t\n' >"$work/blank.jsonl" && data blank.jsonl; }
dataset_too_few_rows() { rows 9 "$work/few.jsonl" && data few.jsonl; }
# line NUMBER BYTES: the good rows with one line replaced (printf's escapes)
line() {
  { head -n $(($1 - 1)) "$work/good.jsonl" && printf '%b\n' "$2" && tail -n +$(($1 + 1)) "$work/good.jsonl"; } >"$work/line.jsonl"
  data line.jsonl "${@:3}"
}
dataset_not_utf8() { line 7 '{"prompt": "Gr\xfc\xdfe", "completion": "x"}'; }
dataset_utf8_cut() { line 7 '{"prompt": "x", "completion": "\xe2\x82"}'; }
dataset_utf8_surrogate() { line 7 '{"prompt": "x", "completion": "\xed\xa0\x80"}'; }
dataset_array_not_utf8() { printf '[\n{"text": "a"},\n{"text": "b\xff"}\n]\n' >"$work/rows.json" && data rows.json; }
dataset_utf16() { printf '\xff\xfe{\0}\0\n\0' >"$work/utf16.jsonl" && data utf16.jsonl; }
dataset_nul_byte() { line 3 '{"prompt": "a\\u0000b", "completion": "x"}'; }
dataset_lone_surrogate() { line 3 '{"prompt": "\\ud800", "completion": "x"}'; }
dataset_invalid_json() { line 7 '{"prompt": "question 7", "completion": '; }
dataset_two_values_a_line() { line 7 '{"text": "a"} {"text": "b"}'; }
dataset_twice_a_field() { line 7 '{"text": "a", "text": "b"}'; }
dataset_array_unclosed() { printf '[{"text": "a"},\n{"text": "b"}\n' >"$work/rows.json" && data rows.json; }
dataset_deep() { line 7 "{\"text\": $(printf '[%.0s' {1..3000})$(printf ']%.0s' {1..3000})}"; }
dataset_long_line() { { cat "$work/good.jsonl" && printf '{"text": "' && head -c 17000000 /dev/zero | tr '\0' a && printf '"}\n'; } >"$work/long.jsonl" && data long.jsonl; }
dataset_row_without_field() { line 3 '{"prompt": "question 3"}'; }
dataset_wrong_type() { line 3 '{"prompt": "question 3", "completion": 7}'; }
dataset_null_field() { line 3 '{"prompt": null, "completion": "x"}'; }
dataset_row_no_object() { line 3 '["prompt", "completion"]'; }
dataset_unknown_form() { line 3 '{"question": "q", "answer": "a"}'; }
dataset_no_messages() { line 3 '{"messages": []}'; }
dataset_message_without_role() { line 3 '{"messages": [{"content": "x"}]}'; }
dataset_message_no_object() { line 3 '{"messages": ["x"]}'; }
dataset_message_image() { line 3 '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}'; }
dataset_tool_calls() { line 3 '{"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}'; }
dataset_unknown_role() { line 3 '{"messages": [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "y"}]}'; }
dataset_sharegpt_role() { line 3 '{"conversations": [{"from": "bing", "value": "x"}]}'; }
dataset_gzip_cut() { gzip -c "$work/good.jsonl" | head -c 60 >"$work/cut.gz" && data cut.gz; }
dataset_gzip_damaged() { gzip -c "$work/good.jsonl" | sed 's/\x1f\x8b\x08\x08/\x1f\x8b\x09\x08/' >"$work/bad.gz" && data bad.gz; }
dataset_missing() { data no-such.jsonl; }
dataset_folder() { mkdir -p "$work/a-folder" && data a-folder; }
dataset_pipe() { data pipe; }
dataset_device() { train dataset='"/dev/zero"'; }
dataset_unreadable() {
  cp "$work/good.jsonl" "$work/closed.jsonl" && chmod 0 "$work/closed.jsonl"
  [[ $(id -u) != 0 ]] || under=(setpriv '--bounding-set=-dac_override,-dac_read_search')
  data closed.jsonl
}
dataset_link_to_nothing() { ln -sfn no-such "$work/dangling.jsonl" && data dangling.jsonl; }
dataset_link_to_itself() { ln -sfn circle.jsonl "$work/circle.jsonl" && data circle.jsonl; }
dataset_all_masked() { # every prompt alone is longer than a row may be
  local i
  for i in {1..12}; do printf '{"prompt": "%s", "completion": "x"}\n' "$(printf 'word %.0s' {1..60})"; done >"$work/masked.jsonl"
  data masked.jsonl max_seq_length=16
}
dataset_no_assistant() {
  local i
  for i in {1..12}; do printf '{"messages": [{"role": "user", "content": "x"}]}\n'; done >"$work/users.jsonl"
  data users.jsonl
}
overflow() { line 5 "{\"prompt\": \"q\", \"completion\": \"$(printf 'word %.0s' {1..60})\"}" max_seq_length=64 on_overflow="\"$1\""; }
dataset_row_too_long() { overflow error; }
dataset_few_left() { # ten rows, of which one is dropped
  { rows 9 "$work/nine.jsonl" && cat "$work/nine.jsonl" && printf '{"prompt": "q", "completion": "%s"}\n' "$(printf 'word %.0s' {1..60})"; } >"$work/ten.jsonl"
  data ten.jsonl max_seq_length=64 on_overflow='"drop"'
}
# what a worker says that the job's tenant may read
roots() { train run.roots="[\"$1\"]"; }
dataset_forbidden() { roots "$model"; }
model_forbidden() { roots "$work"; }
adapter_forbidden() { train adapter_name_or_path="\"$PWD/tests/golden/models/gemma3/adapter\"" run.roots="[\"$work\", \"$model\"]"; }
max_seq_length_too_large() { train max_seq_length=129; }

# ---- chat templates
chat_template_syntax() { train use_chat_template=true chat_template='"{% for m in messages %}{{ m.content }}"'; }
chat_template_unknown_filter() { train use_chat_template=true chat_template='"{{ messages | no_such_filter }}"'; }
chat_template_refuses() { train use_chat_template=true chat_template='"{{ raise_exception(\"roles must alternate\") }}"'; }
chat_template_endless() { train use_chat_template=true chat_template='"{% for i in range(90000) %}{% for j in range(90000) %}{{ i }}{% endfor %}{% endfor %}"'; }
chat_template_rewrites() { train use_chat_template=true chat_template='"{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"'; }
chat_template_missing() {
  copy && jq 'del(.chat_template)' "$model/tokenizer_config.json" >"$work/model/tokenizer_config.json"
  harmed use_chat_template=true
}
chat_template_of_folder() {
  copy && printf '{%% if %%}' >"$work/model/chat_template.jinja"
  harmed use_chat_template=true
}

# ---- model folders
model_missing() { train model_name="\"$work/no-such-model\""; }
model_is_a_file() { train model_name="\"$work/good.jsonl\""; }
model_without_config() { copy && rm "$work/model/config.json" && harmed; }
model_without_weights() { copy && rm "$work/model/model.safetensors" && harmed; }
model_with_pickle() { copy && mv "$work/model/model.safetensors" "$work/model/pytorch_model.bin" && harmed; }
model_without_tokenizer() { copy && rm "$work/model/tokenizer.json" && harmed; }
model_config_is_a_pipe() { copy && rm "$work/model/config.json" && mkfifo "$work/model/config.json" && harmed; }
model_weights_are_a_device() { copy && ln -sf /dev/zero "$work/model/model.safetensors" && harmed; }
config_empty() { copy && : >"$work/model/config.json" && harmed; }
config_not_json() { copy && printf '{"model_type": llama}' >"$work/model/config.json" && harmed; }
config_array() { config '[.]'; }
config_unknown_type() { config '.model_type = "mamba"'; }
config_without_hidden_size() { config 'del(.hidden_size)'; }
config_negative() { config '.hidden_size = -64'; }
config_fraction() { config '.num_hidden_layers = 2.5'; }
config_huge() { config '.num_hidden_layers = 1e18'; }
config_string() { config '.vocab_size = "300"'; }
config_heads_contradict() { config '.num_key_value_heads = 3'; }
config_odd_head() { config '.head_dim = 15'; }
config_unknown_activation() { config '.hidden_act = "swish9"'; }
config_unknown_rope() { config '.rope_parameters.rope_type = "spiral"'; }
config_other_shape() { config '.intermediate_size = 128'; }
config_more_layers() { config '.num_hidden_layers = 3'; }
config_fewer_layers() { config '.num_hidden_layers = 1'; }
config_untied() { config '.tie_word_embeddings = false'; }

hub_offline() { HF_HUB_OFFLINE=1 HF_HOME=$work/hub train model_name='"hf://organisation/name"'; }
hub_name_of_nothing() { train model_name='"hf://"'; }
# from_hub ENDPOINT: a model of a hub with an empty cache
from_hub() {
  rm -rf "$work/hub"
  HF_ENDPOINT=$1 HF_HOME=$work/hub HF_TOKEN='' train model_name='"hf://organisation/name"'
}
hub_away() { from_hub http://127.0.0.1:9; }
# answering STATUS BODY: a hub that answers whatever it is asked so
answering() {
  rm -f "$work/port"
  python3 - "$work/port" "$@" <<'PYTHON' &
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]))
        self.send_header("Content-Length", str(len(sys.argv[3])))
        self.end_headers()
        self.wfile.write(sys.argv[3].encode())
    do_HEAD = do_GET
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
open(sys.argv[1] + ".new", "w").write(str(server.server_port))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
PYTHON
  local server=$! port
  for _ in {1..200}; do [[ ! -e $work/port ]] || break; sleep 0.05; done
  port=$(cat "$work/port")
  from_hub "http://127.0.0.1:$port"
  kill "$server"
  wait "$server" 2>/dev/null || :
  sed -i "s/127.0.0.1:$port/{hub}/g" "$work/events"
}
hub_overloaded() { answering 503 'try later'; }
hub_answers_prose() { answering 200 '<html>welcome</html>'; }
hub_answers_nothing_known() { answering 200 '{}'; }
hub_has_no_such_model() { answering 404 '{"error":"Repository not found"}'; }
hub_wants_a_login() { answering 403 '{"error":"Access to model is restricted"}'; }

# ---- weights
weights_missing_tensor() { weights "del h['model.norm.weight']"; }
weights_extra_tensor() { weights "h['model.layers.0.extra.weight'] = dict(h['model.norm.weight'], data_offsets=[len(d), len(d) + 128]); d += bytes(128)"; }
weights_wrong_shape() { weights "h['model.norm.weight']['shape'] = [2, 32]"; }
weights_wrong_size() { weights "h['model.norm.weight']['shape'] = [65]"; }
weights_integers() { weights "h['model.norm.weight']['dtype'] = 'I16'"; }
weights_unknown_type() { weights "h['model.norm.weight']['dtype'] = 'F4'"; }
weights_overlap() { weights "h['model.norm.weight']['data_offsets'] = h['model.layers.0.input_layernorm.weight']['data_offsets']"; }
weights_cut() { copy && truncate -s -100 "$work/model/model.safetensors" && harmed; }
weights_empty() { copy && : >"$work/model/model.safetensors" && harmed; }
weights_lying_header() { copy && printf '\xff\xff\xff\xff\0\0\0\0' | dd of="$work/model/model.safetensors" bs=8 count=1 conv=notrunc status=none && harmed; }
weights_header_no_json() { copy && printf '\x05\0\0\0\0\0\0\0{"a":xxxx' >"$work/model/model.safetensors" && harmed; }
index() { # JSON
  copy && mv "$work/model/model.safetensors" "$work/model/model-1.safetensors"
  printf '%s' "$1" >"$work/model/model.safetensors.index.json"
  harmed
}
index_missing_shard() { index '{"weight_map": {"model.norm.weight": "model-2.safetensors"}}'; }
index_outside() { index '{"weight_map": {"model.norm.weight": "../model-1.safetensors"}}'; }
index_without_map() { index '{"metadata": {}}'; }
index_not_json() { index '{"weight_map": {'; }
index_lacks_tensors() { index '{"weight_map": {"model.norm.weight": "model-1.safetensors"}}'; }
loss_not_finite() { # a norm of the largest bf16 values
  weights "a, b = h['model.norm.weight']['data_offsets']; d[a:b] = b'\\x7f\\x7f' * ((b - a) // 2)"
}

# ---- tokenizers
tokenizer_not_json() { copy && printf '{' >"$work/model/tokenizer.json" && harmed; }
tokenizer_without_model() { copy && printf '{"version": "1.0"}' >"$work/model/tokenizer.json" && harmed; }
tokenizer() { # FILTER: the model with another tokenizer.json
  copy && jq "$1" "$model/tokenizer.json" >"$work/model/tokenizer.json" && harmed
}
tokenizer_merges_contradict() { tokenizer '.model.continuing_subword_prefix = "##########"'; }
tokenizer_bad_charsmap() { tokenizer '.normalizer = {type: "Precompiled", precompiled_charsmap: "AAAA"}'; }
tokenizer_lying_charsmap() { tokenizer '.normalizer = {type: "Precompiled", precompiled_charsmap: "BAAAAAAAAAA="}'; }
tokenizer_unknown_special() { tokenizer '.post_processor = {type: "TemplateProcessing", single: [{SpecialToken: {id: "x", type_id: 0}}], pair: [], special_tokens: {}}'; }
tokenizer_larger() { # of another model: ids that the embedding has no row for
  copy && cp tests/golden/tokenizer_bytelevel/tokenizer.json "$work/model/" && printf '{}' >"$work/model/tokenizer_config.json"
  harmed
}
tokenizer_config_not_json() { copy && printf '[]' >"$work/model/tokenizer_config.json" && harmed; }
tokenizer_eos_unknown() { copy && jq '.eos_token = "</end>"' "$model/tokenizer_config.json" >"$work/model/tokenizer_config.json" && harmed; }
tokenizer_no_eos() {
  copy && jq 'del(.eos_token)' "$model/tokenizer_config.json" >"$work/model/tokenizer_config.json"
  jq 'del(.eos_token_id)' "$model/config.json" >"$work/model/config.json"
  harmed
}

# ---- adapters to continue from
start_from() { train adapter_name_or_path="\"$1\""; }
harm_adapter() { # a copy of the golden adapter
  rm -rf "$work/adapter" && cp -r "$model/adapter" "$work/adapter"
}
adapter_missing() { start_from "$work/no-such-adapter"; }
adapter_of_another_base() { start_from "$PWD/tests/golden/models/gemma3/adapter"; }
adapter_config_not_json() { harm_adapter && printf '{' >"$work/adapter/adapter_config.json" && start_from "$work/adapter"; }
adapter_without_weights() { harm_adapter && rm "$work/adapter/adapter_model.safetensors" && start_from "$work/adapter"; }
adapter_weights_cut() { harm_adapter && truncate -s -8 "$work/adapter/adapter_model.safetensors" && start_from "$work/adapter"; }
adapter_of_another_kind() {
  harm_adapter && jq '.peft_type = "IA3"' "$model/adapter/adapter_config.json" >"$work/adapter/adapter_config.json"
  start_from "$work/adapter"
}
adapter_other_rank() { train adapter_name_or_path="\"$model/adapter\"" lora_r=3; }

# ---- checkpoints
checkpoint=$work/kept/step-00000001
keep_checkpoint() {
  [[ -e $checkpoint ]] || train save_steps=1 run.checkpoint_dir="\"$work/kept\""
  [[ -e $checkpoint ]] || fail "no checkpoint was written: $(cat "$work/said")"
  rm -rf "$work/output" "$work/harmed" && cp -r "$checkpoint" "$work/harmed"
}
resume() { train save_steps=1 run.checkpoint_dir="\"$work/kept2\"" run.resume_from="\"$work/harmed\"" "$@"; }
checkpoint_missing() { keep_checkpoint && rm -rf "$work/harmed" && resume; }
checkpoint_state_cut() { keep_checkpoint && truncate -s -1 "$work/harmed/state.safetensors" && resume; }
checkpoint_changed() { keep_checkpoint && sed -i 's/"step":1/"step":2/' "$work/harmed/checkpoint.json" && resume; }
checkpoint_of_another_request() { keep_checkpoint && resume learning_rate=0.001; }
checkpoint_of_another_dataset() { keep_checkpoint && rows 21 "$work/more.jsonl" && mv "$work/good.jsonl" "$work/kept.jsonl" && mv "$work/more.jsonl" "$work/good.jsonl" && resume && mv "$work/kept.jsonl" "$work/good.jsonl"; }
checkpoint_of_other_threads() { keep_checkpoint && OMP_NUM_THREADS=2 resume; }

# ---- disks and folders that cannot be written
small_files() { under=(bash -c 'ulimit -f '"$1"' && exec "$@"' bash); } # KIBIBYTES
disk_full_saving() { small_files 8 && train; }
disk_full_at_a_checkpoint() { small_files 8 && train save_steps=1; }
disk_full_merging() { small_files 64 && train output='["merged_16bit"]'; }
disk_full_whole_model() { small_files 64 && train finetuning='"full"'; }
disk_full_whole_checkpoint() { small_files 256 && train finetuning='"full"' save_steps=1; }
disk_full_gguf() { small_files 32 && train output='["gguf"]'; }
output_is_a_file() { : >"$work/file" && train run.output_dir="\"$work/file\""; }
checkpoints_are_a_file() { : >"$work/file" && train save_steps=1 run.checkpoint_dir="\"$work/file\""; }

# ---- requests, as a file
request() { # TEXT
  exited=0
  printf '%s' "$1" >"$work/request.json"
  "$trainer" run "$work/request.json" 3>&1 >"$work/said" 2>&1 4<>"$work/commands" | cat >"$work/events" || exited=$?
}
request_not_json() { request '{"task": text}'; }
request_unknown_field() { train learning_rat=8; }
request_missing_field() { request '{"task": "text-generation", "dataset": "x"}'; }
request_out_of_range() { train learning_rate=3; }
schedule_unknown_setting() { train lr_scheduler_kwargs='{"gamma": 0.1}'; }
schedule_missing_setting() { train lr_scheduler_type='"cosine_with_min_lr"'; }
whole_modules_unknown() { train modules_to_save='["nothing"]'; }
whole_modules_quantised() { train modules_to_save='["q_proj"]' use_4bit=true; }
whole_modules_and_no_adapters() { train modules_to_save='["q_proj"]' target_modules='["q_proj"]'; }
whole_head_as_gguf() { train model_name="\"$PWD/tests/golden/models/gemma\"" modules_to_save='["lm_head"]' output='["gguf"]'; }
request_whole_with_rank() { train finetuning='"full"' lora_r=8; }
request_conflicting() { train use_4bit=true use_8bit=true; }
provider_unknown() { train provider='"xyz"'; }
# plugin CASE [FIELD=JSON...]: a library of tests/providers/plugins as the only one in the folder for providers
plugin() {
  rm -rf "$work/providers" && mkdir -m 755 "$work/providers"
  install -m 755 "$plugins/libmodelforge-provider-$1.so" "$work/providers/"
  MODELFORGE_TRAINER_PROVIDERS_TRUSTED=$1 train provider="\"$1\"" "${@:2}"
}
provider_path() { train provider='"../xyz"'; }
provider_setting() { train provider_config='{compute: "fp8"}'; }
provider_crashes() { plugin crash_loading; }
provider_hangs() { plugin hang; }
provider_exits() { plugin exits; }
provider_other_abi() { plugin other_abi; }
provider_no_symbol() { plugin no_symbol; }
provider_other_name() { plugin other_name; }
provider_refuses() { plugin refuses; }
provider_no_rows() { plugin no_rows; }
provider_not_here() { plugin no_device; }
provider_silent() { plugin silent_failure; }
provider_bad_text() { plugin bad_text; }
provider_empty() { plugin empty_success; }
provider_strategy() { plugin good strategy='"qlora"'; }
provider_writable() {
  rm -rf "$work/providers" && mkdir -m 755 "$work/providers"
  install -m 775 "$plugins/libmodelforge-provider-good.so" "$work/providers/"
  MODELFORGE_TRAINER_PROVIDERS_TRUSTED=good train provider='"good"'
}
provider_damaged() {
  plugin good # makes the folder
  printf 'no library at all' >"$work/providers/libmodelforge-provider-good.so"
  rm -rf "$work/output"
  MODELFORGE_TRAINER_PROVIDERS_TRUSTED=good train provider='"good"'
}
provider_not_trusted() {
  plugin good # makes the folder
  rm -rf "$work/output"
  train provider='"good"'
}
device_map_balanced() { train device_map='"balanced"'; }
several_gpus() { train gpus=2; }
large_gpu() { CUDA_VISIBLE_DEVICES='' train min_gpu_memory_gib=4000; }
plan_too_large_for_all_weights() { train finetuning='"full"' memory_budget_gib=0.001; }
plan_too_large() { train memory_budget_gib=0.001; }
all_weights_with_what_would_fit() { # 1.8 MiB are kept of the parameters alone
  train finetuning='"full"' gradient_checkpointing=false load_best_model_at_end=true memory_budget_gib=0.0018
}
# less than the smallest plan of a high rank, but enough for one of its variants
plan_with_what_would_fit() {
  local wide=(lora_r=512 load_best_model_at_end=true gradient_checkpointing=false) needs
  train "${wide[@]}" memory_budget_gib=0.001
  needs=$(jq -r 'select(.type == "error") | .message' "$work/events" | grep -oE 'memory_budget_gib [0-9.]+' | cut -d ' ' -f 2)
  train "${wide[@]}" memory_budget_gib="$(jq -n "$needs * 0.98")"
}

# ---- commands that are no run: their text is what they print
of_text() { printf '%b' "$1" >"$work/text" && tool score --model "$model" --text "$work/text"; }
score_empty() { of_text ''; }
score_not_utf8() { of_text 'a\xff b'; }
score_folder() { tool score --model "$model" --text "$work"; }
score_too_long() { of_text "$(printf 'word %.0s' {1..200})"; }
evaluate_no_rows() { : >"$work/none.jsonl" && tool evaluate --model "$model" --dataset "$work/none.jsonl"; }
evaluate_bad_row() { printf '{"text": 1}\n' >"$work/one.jsonl" && tool evaluate --model "$model" --dataset "$work/one.jsonl"; }
evaluate_other_adapter() { tool evaluate --model "$model" --adapter tests/golden/models/gemma3/adapter --dataset "$work/good.jsonl"; }
generate_no_model() { tool generate --model "$work/no-such-model" --prompt x; }
generate_not_utf8() { tool generate --model "$model" --prompt $'a\xff'; }
generate_long_prompt() { tool generate --model "$model" --prompt "$(printf 'word %.0s' {1..200})"; }
convert_damaged() { printf 'GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0' >"$work/bad.gguf" && tool convert "$work/bad.gguf" "$work/output"; }

# ---- the check of one row
built_in=$("$trainer" providers --json | jq -r '[.providers[] | select(.available) | .name] | join(", ")')
normal() { # TEXT: what differs from run to run gets a name
  local text=${1//"$work"/'{work}'}
  text=${text//"$PWD"/'{source}'}
  text=${text/'. Valid providers: '"$built_in"/'. Valid providers: {built-in}'}
  sed -E 's/[0-9a-f]{64}/{sha256}/g; /^the smallest plan/s/[0-9]+\.[0-9]{3}/{gib}/g
    s/ after [0-9]+ ms: [^(]*\(/ after {ms} ms: {libcurl} (/' <<<"$text"
}

# produce INPUT: sets got_code ("-" for a command that is no run) and got_text
produce() {
  under=()
  exited=0
  rm -rf "$work/output" && : >"$work/events" && : >"$work/said"
  "$1"
  if [[ -s $work/events ]]; then
    got_code=$(jq -r 'select(.type == "error") | .code' "$work/events")
    got_text=$(normal "$(jq -r 'select(.type == "error") | .message' "$work/events")")
  else
    got_code=-
    got_text=$(normal "$(cat "$work/said")")
  fi
}

# Files below the output folder; folders may be made early.
left_behind() { [[ ! -e $work/output ]] || find "$work/output" ! -type d; }

if (($#)); then
  for input in "$@"; do
    produce "$input"
    printf '%s\t%s\t%s\texit %s\t-\n' "$input" "$got_code" "$got_text" "$exited"
    left_behind
  done
  exit 0
fi

# Every code has a row, or a line that says which test holds it and why there is no row.
check_codes() {
  local name code where
  while read -r name code; do
    cut -f 2 tests/errors.tsv | grep -qxF -e "$code" && continue
    where=$(awk -F '\t' -v code="$code" '$1 == "#" && $2 == code && $4 != "" { print $3 }' tests/errors.tsv)
    [[ -n $where ]] || fail "tests/errors.tsv has no row for the code $code of common/errors.def"
    grep -qwE -e "$code|MF_ERROR_$name" "$where" || fail "tests/errors.tsv: $where does not know $code"
  done < <(sed -nE 's/^MF_ERROR\(([A-Z_]+), "([a-z_]+)".*/\1 \2/p' common/errors.def)
}
check_codes

count=0
while IFS=$'\t' read -r input code text state _; do
  [[ $state == exit* ]] || continue
  declare -F "$input" >/dev/null || fail "no input '$input'"
  produce "$input"
  [[ "exit $exited" == "$state" ]] || fail "$input: exit $exited, not $state: $(cat "$work/said")"
  [[ $got_code == - || $got_code == "$code" ]] || fail "$input: expected code '$code', got '$got_code'"
  [[ $got_text == "$text" ]] || fail "$input: expected text '$text', got '$got_text'"
  [[ -z $(left_behind) ]] || fail "$input left behind: $(left_behind)"
  count=$((count + 1))
done <tests/errors.tsv

# ---- a disk that is really full, where a small file system can be mounted
disk=$work/disk
if mkdir -p "$disk" && mount -t tmpfs -o size=64k tmpfs "$disk" 2>/dev/null; then
  trap 'umount -l "$disk"; rm -rf "$work"' EXIT
  full() { # TEXT FIELD=JSON...: ends with it, and leaves nothing
    under=() && : >"$work/events"
    train run.output_dir="\"$disk/out\"" run.checkpoint_dir="\"$disk/checkpoints\"" "${@:2}"
    [[ $(jq -r 'select(.type == "error") | .code + " " + .message' "$work/events") == "disk_full $1: No space left on device" ]] ||
      fail "on a full disk: $(tail -n 1 "$work/events")"
    [[ -z $(find "$disk" -type f) ]] || fail "on a full disk something was left: $(find "$disk" -type f)"
  }
  full "checkpoint of step 1: cannot write $disk/checkpoints/step-00000001.partial/state.safetensors" save_steps=1
  full "cannot write $disk/out/merged_16bit.partial/model.safetensors" output='["merged_16bit"]'
  full "cannot write $disk/out/model.gguf" output='["gguf"]'
  mount -o remount,size=4m "$disk"
  train run.output_dir="\"$disk/out\""
  [[ $exited == 0 ]] || fail "on the same disk with room: $(tail -n 1 "$work/events")"
else
  echo "no file system can be mounted here: a full disk is a limit of files' sizes"
fi

# ---- what looks like a fault and is none
plan_says() { # FILTER
  jq -es "map(select(.type == \"plan\"))[0] | $1" "$work/events" >/dev/null || fail "not so: $1: $(grep plan "$work/events")"
}
under=()
long="{\"prompt\": \"q\", \"completion\": \"$(printf 'word %.0s' {1..60})\"}"
line 5 "$long" max_seq_length=64 on_overflow='"truncate"'
[[ $exited == 0 ]] || fail "on_overflow truncate: $(tail -n 1 "$work/events")"
plan_says '.truncated_rows == 1 and .dropped_rows == 0 and .train_rows + .eval_rows == 20'
rm -rf "$work/output"
line 5 "$long" max_seq_length=64 on_overflow='"drop"'
plan_says '.truncated_rows == 0 and .dropped_rows == 1 and .train_rows + .eval_rows == 19'

# What a refused plan suggests does fit.
needs=$(plan_with_what_would_fit && jq -r .memory_budget_gib "$work/request.json")
train lora_r=512 load_best_model_at_end=true gradient_checkpointing=false memory_budget_gib="$needs" optim='"adamw_8bit"'
[[ $exited == 0 ]] || fail "with adamw_8bit: $(tail -n 1 "$work/events")"
rm -rf "$work/output"

# A link in the place of what is written first does not lead the trainer elsewhere.
rm -rf "$work/output" && mkdir -p "$work/output" "$work/precious" && echo keep >"$work/precious/adapter_config.json"
ln -s "$work/precious" "$work/output/adapter.partial"
train
[[ $exited == 0 && -f $work/output/adapter/adapter_model.safetensors && ! -L $work/output/adapter ]] ||
  fail "over a link: $(tail -n 1 "$work/events")"
[[ $(cat "$work/precious/adapter_config.json") == keep && $(ls "$work/precious") == adapter_config.json ]] ||
  fail "something was written through a link"
echo "$count faults end as tests/errors.tsv says"
