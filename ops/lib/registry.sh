# shellcheck shell=bash disable=SC2154  # ops_root and stack come from the script that sources this
# Apicurio Registry, which speaks the Confluent Schema Registry API below /apis/ccompat/v7. Its data is one file in
# $stack/registry and survives a restart and a kill (WRITE_DELAY=0).

registry_program() { printf '%s/apicurio-registry-3.3.3' "$(cache_folder)"; }
registry_url() {
  local scheme=http
  ! tls_on || scheme=https
  printf '%s://127.0.0.1:%s/apis/ccompat/v7' "$scheme" "$(setting registry_port)"
}
registry_curl() { # ARGUMENT...
  local authority=()
  ! tls_on || authority=(--cacert "$(tls_file ca.pem)")
  curl --silent --fail --output /dev/null "${authority[@]}" "$@"
}

fetch_registry() {
  local folder partial
  folder=$(registry_program)
  [[ ! -e $folder/.complete ]] || return 0
  command -v mvn >/dev/null || die "Maven is missing; ops/setup installs it"
  say "downloading Apicurio Registry 3.3.3 (158 MB)"
  partial=$(mktemp -d "$(cache_folder)/partial.XXXXXX")
  quietly "fetching Apicurio Registry by Maven" mvn --quiet --batch-mode --strict-checksums \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact=io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all -DoutputDirectory="$partial"
  (cd "$partial" && sha256sum --quiet --check "$ops_root/ops/pins/apicurio.sha256") ||
    die "Apicurio Registry's archive differs from ops/pins/apicurio.sha256"
  mkdir "$partial/program"
  tar -xzf "$partial"/apicurio-registry-app-*.tar.gz -C "$partial/program"
  : >"$partial/program/.complete"
  rm -rf "$folder"
  mv "$partial/program" "$folder"
  rm -rf "$partial"
}

registry_launch() {
  local folder=$stack/registry port=("-Dquarkus.http.port=$(setting registry_port)")
  ! tls_on || mapfile -t port < <(registry_tls_options)
  ! live_process "$folder/pid" >/dev/null || return 0
  mkdir -p "$folder/tmp"
  start_daemon "$folder/pid" "$stack/logs/registry.log" \
    "$(setting java)" -Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError \
    "-Djava.io.tmpdir=$folder/tmp" -Dapicurio.storage.kind=sql -Dapicurio.storage.sql.kind=h2 \
    "-Dapicurio.datasource.url=jdbc:h2:file:$folder/schemas;WRITE_DELAY=0" \
    -Dquarkus.http.host=127.0.0.1 "${port[@]}" \
    -Dquarkus.management.host=127.0.0.1 "-Dquarkus.management.port=$(setting registry_management_port)" \
    -Dquarkus.log.level=WARN -Dapicurio.logging.level=WARN '-Dquarkus.log.category."io.apicurio".level=WARN' \
    -Dquarkus.http.access-log.enabled=false -jar "$(registry_program)/quarkus-run.jar"
}

registry_is_ready() {
  live_process "$stack/registry/pid" >/dev/null || return 0
  registry_curl --max-time 5 "$(registry_url)/subjects"
}

registry_await() {
  wait_until 120 "the registry is ready" registry_is_ready
  live_process "$stack/registry/pid" >/dev/null ||
    die "the registry did not start: $(tail -n 5 "$stack/logs/registry.log")"
  # Confluent's default; this server's own is NONE.
  registry_curl --max-time 10 --request PUT --data '{"compatibility":"BACKWARD"}' \
    --header 'Content-Type: application/vnd.schemaregistry.v1+json' "$(registry_url)/config"
}
