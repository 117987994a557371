# shellcheck shell=bash disable=SC2154  # ops_root and stack come from the script that sources this
# PostgreSQL on loopback TCP with a password of its own. Its server refuses to run as root, so root runs it as the
# user postgres; where that user cannot reach the stack's folder, the data lies in a folder under /var/tmp instead.

postgres_programs() {
  local found
  found=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
  [[ -n $found ]] || die "no PostgreSQL server is installed; ops/setup installs it"
  printf '%s' "$found"
}

as_postgres() {
  if ((EUID == 0)); then
    (cd / && exec setpriv --reuid postgres --regid postgres --init-groups -- "$@")
  else
    "$@"
  fi
}

postgres_password() { cat "$stack/postgres.password"; }
postgres_host() { if tls_on; then printf localhost; else printf 127.0.0.1; fi; } # libpq 14 matches no addresses
postgres_url() {
  printf 'postgresql://modelforge_admin:%s@%s:%s/postgres' "$(postgres_password)" "$(postgres_host)" \
    "$(setting postgres_port)"
  ! tls_on || printf '?sslmode=verify-full&sslrootcert=%s' "$(tls_file ca.pem)"
}

postgres_choose_folder() {
  local folder=$stack/postgres
  mkdir -p "$folder"
  if ((EUID == 0)); then
    chown postgres: "$folder"
    if ! as_postgres test -w "$folder" 2>/dev/null; then
      rmdir "$folder"
      folder=$(mktemp -d /var/tmp/modelforge-postgres.XXXXXX)
      chown postgres: "$folder"
    fi
  fi
  chmod 700 "$folder"
  keep_setting postgres_folder "$folder"
}

postgres_create() {
  local folder password_file durable=on
  folder=$(setting postgres_folder)
  [[ ! -e $folder/PG_VERSION ]] || return 0
  (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$stack/postgres.password")
  password_file=$(mktemp /var/tmp/modelforge-password.XXXXXX)
  cp "$stack/postgres.password" "$password_file"
  ((EUID != 0)) || chown postgres: "$password_file"
  as_postgres "$(postgres_programs)/initdb" --pgdata "$folder" --username modelforge_admin --auth scram-sha-256 \
    --pwfile "$password_file" --encoding UTF8 --locale C.UTF-8 --no-sync \
    >"$stack/logs/postgres-initdb.log" 2>&1 || {
    rm -f "$password_file"
    die "initdb failed: $(tail -n 5 "$stack/logs/postgres-initdb.log")"
  }
  rm -f "$password_file"
  [[ $(setting sync_disk) == yes ]] || durable=off
  # What survives a killed server does not need fsync, only what survives a lost machine does.
  as_postgres tee -a "$folder/postgresql.conf" >/dev/null <<SETTINGS
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 64MB
max_wal_size = 512MB
log_line_prefix = '%m [%p] %a '
log_checkpoints = off
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
fsync = $durable
full_page_writes = $durable
SETTINGS
  ! tls_on || postgres_tls_settings "$folder" | as_postgres tee -a "$folder/postgresql.conf" >/dev/null
}

postgres_launch() {
  local become=()
  ! live_process "$stack/postgres.pid" >/dev/null || return 0
  ((EUID != 0)) || become=(setpriv --reuid postgres --regid postgres --init-groups --)
  start_daemon "$stack/postgres.pid" "$stack/logs/postgres.log" \
    "${become[@]}" "$(postgres_programs)/postgres" -D "$(setting postgres_folder)" -p "$(setting postgres_port)"
}

postgres_is_ready() {
  "$(postgres_programs)/pg_isready" --quiet --host 127.0.0.1 --port "$(setting postgres_port)"
}

# After a kill the old shared memory may live for a moment, and the server refuses to start: launch it again.
postgres_await() {
  local end=$((SECONDS + 60))
  until postgres_is_ready; do
    ((SECONDS < end)) || die "PostgreSQL did not start: $(tail -n 5 "$stack/logs/postgres.log")"
    live_process "$stack/postgres.pid" >/dev/null || postgres_launch
    sleep 0.1
  done
}

# postgres_family: the server's pid and those of its children.
postgres_family() {
  local pid
  pid=$(live_process "$stack/postgres.pid") || return 0
  printf '%s\n' "$pid"
  pgrep -P "$pid" || :
}
