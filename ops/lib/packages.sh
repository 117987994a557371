# shellcheck shell=bash disable=SC2154  # ops_root comes from the script that sources this
# What modelforge needs from Debian 12 or Ubuntu 24.04, and how it gets there: apt, as root or by sudo, never asking.

packages_to_build=(
  gcc libc6-dev make cmake ninja-build pkg-config git ca-certificates
  librdkafka-dev libavro-dev libcurl4-openssl-dev libssl-dev libpq-dev libjansson-dev libmicrohttpd-dev zlib1g-dev
  libdnnl-dev
)
packages_to_serve=(postgresql maven curl procps util-linux python3 python3-pip)
packages_to_test=(
  libcmocka-dev kcat jq ccache shellcheck python3-venv binutils g++ man-db openssl
  clang-14 clang-format-14 clang-tidy-14
)

# The packages of a purpose (build, serve, test), each one on a line.
packages_for() {
  local purpose
  for purpose in "$@"; do
    case $purpose in
      build) printf '%s\n' "${packages_to_build[@]}" ;;
      serve) printf '%s\n' "${packages_to_serve[@]}" ;;
      test) printf '%s\n' "${packages_to_test[@]}" ;;
    esac
  done
  if [[ " $* " == *' build '* ]] && ! find_cargo >/dev/null; then rust_packages; fi
  if [[ " $* " == *' serve '* ]] && ! system_java >/dev/null && apt_offers openjdk-21-jre-headless; then
    printf '%s\n' openjdk-21-jre-headless
  fi
}

apt_offers() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [0-9] ]]; }
package_is_installed() { [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }
missing_packages() {
  local name
  packages_for "$@" | while read -r name; do package_is_installed "$name" || printf '%s\n' "$name"; done
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    die "installing packages needs root, or sudo that asks for no password; as root run: $*"
  fi
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet --quiet -o Dpkg::Use-Pty=0 \
    --no-remove -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# PostgreSQL's package makes and starts a server of its own unless it is told not to; ours is made by ops/stack.
without_default_cluster() {
  local folder=/etc/postgresql-common/createcluster.d file
  file=$folder/modelforge-setup.conf
  if [[ -e /etc/postgresql-common ]]; then
    "$@"
    return
  fi
  as_root mkdir -p "$folder"
  printf 'create_main_cluster = false\n' | as_root tee "$file" >/dev/null
  "$@"
  as_root rm -f "$file"
}

# install_packages PURPOSE...
install_packages() {
  local missing
  if ! command -v apt-get >/dev/null; then
    warn "no apt-get here: these packages (Debian's names) must be there already: $(packages_for "$@" | tr '\n' ' ')"
    return
  fi
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]} > 0)) || return 0
  say "refreshing the package lists"
  quietly "apt-get update" apt_get update
  mapfile -t missing < <(missing_packages "$@")
  say "installing ${#missing[@]} packages: ${missing[*]}"
  quietly "apt-get install" without_default_cluster apt_get install --no-install-recommends "${missing[@]}"
}

# Rust builds the tokenizer library. Edition 2024 needs 1.85.
cargo_is_new_enough() {
  local version
  version=$("$1" --version 2>/dev/null) || return 1
  [[ $version =~ ^cargo\ 1\.([0-9]+)\. ]] && ((BASH_REMATCH[1] >= 85))
}

find_cargo() {
  local candidate
  for candidate in "$(command -v cargo || :)" "${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin/cargo" \
    /usr/lib/rust-1.*/bin/cargo /usr/bin/cargo; do
    if [[ -x $candidate ]] && cargo_is_new_enough "$candidate"; then
      printf '%s' "$candidate"
      return
    fi
  done
  return 1
}

# The distribution's packages with a Rust that is new enough: Debian 12 has rustc-web, Ubuntu has rustc-1.NN.
rust_packages() {
  local newest
  if apt_offers cargo-web; then
    printf '%s\n' rustc-web cargo-web
    return
  fi
  newest=$(apt-cache pkgnames cargo-1. 2>/dev/null | sed -n 's/^cargo-1\.\([0-9][0-9]*\)$/\1/p' | sort -n | tail -n 1)
  if [[ -n $newest ]] && ((newest >= 85)); then
    printf '%s\n' "rustc-1.$newest" "cargo-1.$newest"
  elif [[ $(apt-cache policy cargo 2>/dev/null) =~ Candidate:\ 1\.([0-9]+)\. ]] && ((BASH_REMATCH[1] >= 85)); then
    printf '%s\n' rustc cargo
  fi
}

# Puts cargo and rustc on PATH for what the calling script starts.
use_cargo() {
  local cargo
  cargo=$(find_cargo) ||
    die "no Rust 1.85 or later is to be had here from the packages; install it with rustup and run this again"
  PATH="$(dirname "$cargo"):$PATH"
  export PATH
}
