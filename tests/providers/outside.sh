#!/usr/bin/env bash
# Providers built outside of the source tree, from the installed files alone: the shipped `gguf`, and the one of
# providers/CUSTOM.md, whose code is taken from the guide itself. Each trains a model.
# usage: outside.sh BUILD
set -euo pipefail
build=$1
source=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
prefix=$work/prefix model=$source/tests/golden/models/tied-gqa
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
same() { cmp -s "$1/adapter/adapter_model.safetensors" "$2/adapter/adapter_model.safetensors"; } # RUN RUN

umask 022
cmake --install "$build" --prefix "$prefix" >"$work/install.log" 2>&1 || fail "cmake --install: $(tail -n 3 "$work/install.log")"
chmod go-w "$work" "$prefix"
trainer=$prefix/bin/modelforge-trainer
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
for index in $(seq 1 24); do
  printf '{"prompt": "Say %d", "completion": " It is %d."}\n' "$index" "$index"
done >"$work/rows.jsonl"
mkdir "$work/tmp"
export TMPDIR=$work/tmp
cd "$work" # where nothing of the source tree can be found

run() { # NAME MODEL PROVIDER [FILTER]: trains; what it said is in NAME.log
  jq -n --arg model "$2" --arg provider "$3" --arg rows "$work/rows.jsonl" '{task: "text-generation", model_name: $model,
    provider: $provider, dataset: $rows, max_steps: 3, bf16: false, warmup_ratio: 0, device: "cpu"}'" | ${4:-.}" >"$1.json"
  "$trainer" run "$1.json" --output "$1" >"$1.log" 2>&1
}
build_outside() { # FOLDER BUILD
  cmake -S "$1" -B "$2" -DCMAKE_C_FLAGS="-Wall -Wextra -Werror" >build.log 2>&1 || fail "$1: $(tail -n 20 build.log)"
  cmake --build "$2" >build.log 2>&1 || fail "$1: $(tail -n 20 build.log)"
}
refused() { # NAME TEXT: of a run that failed
  grep -qF "$2" "$1.log" || fail "$1: $(tail -n 2 "$1.log")"
}

# ---- the header alone, in C and C++
printf '#include <modelforge/provider.h>\nint main(void) { return MF_PROVIDER_OK; }\n' | tee header.c >header.cpp
read -ra flags <<<"$(pkg-config --cflags modelforge-provider)"
cc -std=c11 -pedantic -Wall -Wextra -Werror "${flags[@]}" -fsyntax-only header.c || fail "the header in C"
c++ -std=c++11 -pedantic -Wall -Wextra -Werror "${flags[@]}" -fsyntax-only header.cpp || fail "the header in C++"

# ---- the guide's, as a new user would
mkdir soup
block() { # LANGUAGE [N]: the first, or N-th, block of the guide in this language
  awk -v fence='```'"$1" -v wanted="${2:-1}" \
    '$0 == fence { on = ++seen == wanted; next } /^```$/ { on = 0 } on' "$source/providers/CUSTOM.md"
}
block cmake >soup/CMakeLists.txt
block c >soup/soup.c
build_outside soup soup/build
install -m 755 soup/build/libmodelforge-provider-soup.so "$prefix/lib/modelforge/providers/"
"$trainer" providers >providers.txt
grep -q '^soup ' providers.txt || fail "providers does not list soup"
! run bad "$model" soup || fail "soup ran although nobody trusts it"
refused bad "name 'soup' in providers.trusted (MODELFORGE_TRAINER_PROVIDERS_TRUSTED) if it may"
export MODELFORGE_TRAINER_PROVIDERS_TRUSTED=soup,gguf
run plain "$model" huggingface || fail "huggingface: $(tail -n 3 plain.log)"
# Another model of the same shape: every weight times 3, so that a share of 1/4 is the model with weights times 1.5.
python3 - "$model" "$work" <<'PYTHON'
import pathlib, shutil, struct, sys, json
model, work = map(pathlib.Path, sys.argv[1:])
def scaled(name, factor):
    shutil.copytree(model, work / name)
    data = (model / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body, out = json.loads(data[8:8 + length]), data[8 + length:], b""
    header.pop("__metadata__", None)
    for key, row in header.items():
        first, last = row["data_offsets"]
        if row["dtype"] == "F32":
            values = struct.unpack(f"<{(last - first) // 4}f", body[first:last])
        else:
            assert row["dtype"] == "BF16", row
            halves = struct.unpack(f"<{(last - first) // 2}H", body[first:last])
            values = struct.unpack(f"<{len(halves)}f", struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves)))
        begin = len(out)
        out += struct.pack(f"<{len(values)}f", *(value * factor for value in values))
        row.update(dtype="F32", data_offsets=[begin, len(out)])
    text = json.dumps(header).encode()
    (work / name / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + out)
scaled("three", 3)
scaled("half", 1.5)
PYTHON
run soup-run "$model" soup ".provider_config = {with: \"$work/three\", share: \"0.25\"}" || fail "soup: $(tail -n 3 soup-run.log)"
run half-run "$work/half" huggingface || fail "half: $(tail -n 3 half-run.log)"
jq -e --arg path "$prefix/lib/modelforge/providers/libmodelforge-provider-soup.so" --arg sum "$(sha256sum <soup/build/libmodelforge-provider-soup.so | cut -d' ' -f1)" \
  '.versions.provider == "soup" and .versions.provider_library == {path: $path, sha256: $sum}' soup-run/training.json >jq.log ||
  fail "what training.json says of the library: $(jq -c .versions soup-run/training.json)"
jq -e '.versions.provider_library == null' plain/training.json >jq.log || fail "a built-in provider has a library"
same soup-run half-run || fail "soup did not train on the average"
! same soup-run plain || fail "the second model changes nothing"
[[ -z $(find tmp soup-run -name 'modelforge-model-*') ]] || fail "the made folder is still there"
! run bad "$model" soup || fail "soup trained without its setting"
refused bad "provider_config.with: the folder of the second model is missing"
! run bad "$model" soup '.provider_config = {wiht: "x"}' || fail "soup took a setting that it does not know"
refused bad "provider_config.wiht: soup has the settings with and share"
! run bad "$model" soup ".provider_config = {with: \"$work/none\"}" || fail "soup read a folder that is not there"
refused bad "$work/none: No such file or directory"
! run bad "$model" soup ".strategy = \"qlora\" | .provider_config = {with: \"$work/three\"}" || fail "soup did qlora"
refused bad "ProviderError: soup cannot train llama for text-generation with qlora: soup trains text-generation by sft only"
# What the host opens for a provider is what the tenant may read.
! run bad "$model" soup ".provider_config = {with: \"$work/three\"} | .run = {roots: [\"$source\", \"$work/rows.jsonl\"]}" ||
  fail "soup read beyond the tenant's roots"
refused bad "tenants.roots"
echo "ok - the guide's provider, built outside of the tree, trains on the average of two models"

# ---- the guide's second: a kernel of its own in programs of ours; then a family of its own
golden() { # MODEL PROVIDER: losses, logits, decoding, gradients and 20 steps against values of Transformers and PEFT
  (cd "$source" && MODELFORGE_TRAINER_PROVIDERS_FOLDER=$prefix/lib/modelforge/providers "$build/tests/worker/trainer/test_golden" "$@") >golden.log 2>&1
}
mkdir gate
block cmake | sed 's/soup/gate/g; s/PkgConfig::MODELFORGE/& m/' >gate/CMakeLists.txt
block c 2 >gate/gate.c
build_outside gate gate/build
install -m 755 gate/build/libmodelforge-provider-gate.so "$prefix/lib/modelforge/providers/"
build_outside "$prefix/share/modelforge/providers/opt" opt
install -m 755 opt/libmodelforge-provider-opt.so "$prefix/lib/modelforge/providers/"
export MODELFORGE_TRAINER_PROVIDERS_TRUSTED=soup,gguf,gate,opt
golden tied-gqa gate || fail "gate: $(tail -n 20 golden.log)"
golden qwen2 gate || fail "gate, every weight trained: $(tail -n 20 golden.log)"
golden opt opt || fail "opt: $(tail -n 20 golden.log)"
# Its kernel is what runs: one that gives half is seen, but not by the oracle, which runs the expansion.
cp "$prefix/lib/modelforge/providers/libmodelforge-provider-gate.so" gate.so
sed -i 's/g \* s \* up);/g * s * up \/ 2);/' gate/gate.c
build_outside gate gate/build
install -m 755 gate/build/libmodelforge-provider-gate.so "$prefix/lib/modelforge/providers/"
! golden tied-gqa gate || fail "a wrong kernel of gate was not seen"
grep -qF 'OK ] on the oracle' golden.log || fail "the oracle did not run the expansion: $(tail -n 20 golden.log)"
grep -qF 'FAILED  ] on the fast backend' golden.log || fail "the fast backend did not run the kernel: $(tail -n 20 golden.log)"
install -m 755 gate.so "$prefix/lib/modelforge/providers/libmodelforge-provider-gate.so"
run opt-run "$source/tests/golden/models/opt" opt '.output = ["adapter", "merged_16bit"]' || fail "opt: $(tail -n 3 opt-run.log)"
run opt-again "$work/opt-run/merged_16bit" opt || fail "opt from its merged model: $(tail -n 3 opt-again.log)"
! run bad "$source/tests/golden/models/opt" huggingface || fail "huggingface took an OPT model"
refused bad "model_type: 'opt' is not supported"
! run bad "$model" opt || fail "opt took a Llama"
refused bad "opt trains models of type opt"
! run bad "$source/tests/golden/models/opt" opt '.output = ["gguf"]' || fail "opt became a GGUF file"
refused bad "model_type: 'opt' is not supported"
! run bad "$source/tests/golden/models/opt" opt '.modules_to_save = ["embed_tokens"]' || fail "opt trained a module beside"
refused bad "modules_to_save: what shares a weight with them is not known"
echo "ok - a kernel of its own, and a family of its own, train as Transformers and PEFT do"

# ---- gguf, built from what was installed of it
build_outside "$prefix/share/modelforge/providers/gguf" gguf
install -m 755 gguf/libmodelforge-provider-gguf.so "$prefix/lib/modelforge/providers/"
"$trainer" merge --model "$source/tests/golden/models/tied-gqa" --adapter plain/adapter --output merged --gguf f16 >merge.log 2>&1 ||
  fail "merge: $(tail -n 3 merge.log)"
run from-file "$work/merged/model.gguf" gguf '.output = ["adapter", "merged_16bit", "gguf"]' || fail "gguf: $(tail -n 3 from-file.log)"
"$trainer" convert merged/model.gguf converted >convert.log 2>&1 || fail "convert: $(tail -n 3 convert.log)"
run from-folder converted huggingface || fail "from the folder: $(tail -n 3 from-folder.log)"
same from-file from-folder || fail "training from a GGUF file differs from training from its folder"
[[ -s from-file/model.gguf && -s from-file/merged_16bit/model.safetensors ]] || fail "outputs of a model from a GGUF file"
run saved "$work/merged/model.gguf" gguf '.save_steps = 1' || fail "with checkpoints: $(tail -n 3 saved.log)"
first=$(find saved/checkpoints -mindepth 1 -maxdepth 1 -type d | sort -V | head -n 1)
"$trainer" run saved.json --output resumed --resume "$first" >resumed.log 2>&1 || fail "resume: $(tail -n 3 resumed.log)"
grep -q '^step 1/3' saved.log || fail "the first run has no step 1"
! grep -q '^step 1/3' resumed.log || fail "the second run did not go on from $first"
same resumed from-file || fail "a resumed run from a GGUF file has other bits"
! run bad "$model" gguf || fail "gguf took a folder"
refused bad "is not a .gguf file of this machine, nor one of a hub (hf://organisation/name/FILE.gguf), which is what the provider gguf trains"
! run bad "$work/merged/model.gguf" gguf '.provider_config = {dtype: "f64"}' || fail "gguf took another dtype"
refused bad "provider_config.dtype: 'f64' is not f32 or bf16"
! run bad "$work/merged/model.gguf" huggingface || fail "huggingface took a GGUF file"
refused bad "modelforge-trainer convert"
run narrow "$work/merged/model.gguf" gguf '.provider_config = {dtype: "bf16"}' || fail "gguf in bf16: $(tail -n 3 narrow.log)"
! same narrow from-file || fail "the setting dtype changes nothing"
"$trainer" generate --provider gguf --model merged/model.gguf --prompt "Say 3" --max-new-tokens 2 >generate.log 2>&1 || fail "generate: $(cat generate.log)"
"$trainer" plan from-file.json --no-probe >plan.log 2>&1 || fail "plan: $(tail -n 3 plan.log)"
[[ -z $(find tmp -name 'modelforge-model-*') && ! -e modelforge-output ]] || fail "something is left of commands: $(ls tmp)"
echo "ok - gguf, built outside of the tree, trains from the file as from its folder, bit for bit"
printf 'GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\0\0\0\0general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0mamba' >mamba.gguf
printf 'GGUF\x03\0\0\0' >cut.gguf
said() { # TEXT MODEL...: what the check of access says
  local status=0
  "$trainer" access --provider gguf --model "${@:2}" >access.log 2>&1 || status=$?
  [[ $status == 1 && $(<access.log) == *"$1"* ]] || fail "access to $2: exit $status, $(<access.log)"
}
[[ $("$trainer" access --provider gguf --model merged/model.gguf) == "gguf: merged/model.gguf may be used" ]] || fail "access to a GGUF file"
said "general.architecture: 'mamba' is not supported (supported: " mamba.gguf
said "ModelAccessError: $work/cut.gguf" "$work/cut.gguf"
said "ModelAccessError: $work/none.gguf" "$work/none.gguf"
said "hf://org/model is not a .gguf file of this machine, nor one of a hub" hf://org/model
said "revision: 'main' cannot be chosen: gguf reads a file, which has no revisions" merged/model.gguf --revision main
echo "ok - what stands against a GGUF file is said before a job"
