# shellcheck shell=bash disable=SC2154  # ops_root comes from the script that sources this
# A CUDA toolkit: the machine's own where it has one, else one laid out in the cache from NVIDIA's wheels, where
# cmake/cuda.cmake looks for it.

# The folder of a toolkit that this machine has; fails where it has none.
system_cuda() {
  local nvcc folder
  nvcc=$(command -v nvcc || printf '/usr/local/cuda/bin/nvcc')
  [[ -x $nvcc ]] || return 1
  folder=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  [[ -e $folder/include/cublasLt.h ]] || return 1
  printf '%s' "$folder"
}

cuda_folder() { system_cuda || printf '%s/cuda' "$(cache_folder)"; }

# A toolkit is there when this returns.
use_cuda() {
  local pins=$ops_root/ops/pins/cuda.txt folder
  ! system_cuda >/dev/null || return 0
  folder=$(cache_folder)/cuda
  if [[ ! -e $folder/.complete ]] || ! cmp --quiet "$pins" "$folder/.complete"; then
    with_cache_lock cuda lay_out_cuda "$folder" "$pins"
  fi
}

lay_out_cuda() { # FOLDER PINS
  local partial library
  ! cmp --quiet "$2" "$1/.complete" 2>/dev/null || return 0
  [[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] || die "a CUDA toolkit can be laid out on x86-64 Linux only"
  say "laying out a CUDA toolkit from NVIDIA's wheels (1 GB to download)"
  partial=$(mktemp -d "$(cache_folder)/partial.XXXXXX")
  # --target keeps the executable bits, which unzipping would lose.
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile \
    --require-hashes --only-binary :all: --target "$partial/site" --requirement "$2" ||
    die "pip could not install what ${2##*/} names"
  mv "$partial/site/nvidia/cu13" "$partial/root"
  cp -r "$partial/site/nvidia/cudnn/include/." "$partial/site/include/." "$partial/root/include"
  mv "$partial"/site/nvidia/cudnn/lib/* "$partial/root/lib"
  for library in "$partial"/root/lib/*.so.*; do
    ln -s "${library##*/}" "${library%%.so.*}.so" 2>/dev/null || : # two versions of one library share the name
  done
  ln -s lib "$partial/root/lib64" # where nvcc looks
  "$partial/root/bin/nvcc" --version >/dev/null || die "the compiler of the CUDA toolkit does not start"
  cp "$2" "$partial/root/.complete"
  rm -rf "$1"
  mv "$partial/root" "$1"
  rm -rf "$partial"
}
