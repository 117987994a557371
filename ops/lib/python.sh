# shellcheck shell=bash disable=SC2154  # ops_root comes from the script that sources this
# The Python environment of the tests that compare with PyTorch, Transformers and PEFT. Nothing at run time uses it.

python_folder() {
  local contents
  contents=$(cat "$ops_root/ops/pins/python.txt" "$ops_root/ops/lib/cuda_stand_ins.py" | sha256sum)
  printf '%s/python-%s-%s' "$(cache_folder)" "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" \
    "${contents:0:12}"
}

# Makes the environment when it is not there, and prints its interpreter.
python_environment() {
  local folder
  folder=$(python_folder)
  [[ -e $folder/.complete ]] || with_cache_lock python make_python_environment "$folder" "$ops_root/ops/pins/python.txt" >&2
  printf '%s/bin/python' "$folder"
}

make_python_environment() { # FOLDER PINS
  local site
  [[ ! -e $1/.complete ]] || return 0
  say "making a Python environment with PyTorch, Transformers and PEFT (tests only)"
  rm -rf "$1"
  python3 -m venv "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$2" ||
    die "pip could not install what ${2##*/} names"
  site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  "$1/bin/python" "$ops_root/ops/lib/cuda_stand_ins.py" "$site"
  "$1/bin/python" -c 'import torch, transformers, peft; from peft import PeftModel; torch.ones(2) @ torch.ones(2)' ||
    die "the tests' Python environment does not work"
  : >"$1/.complete"
}
