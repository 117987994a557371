#!/usr/bin/env bash
# Broker, registry and PostgreSQL behind TLS, the broker behind a login: a job goes its way, whatever is wrong is said by
# its cause, and no password appears anywhere.
set -euo pipefail
secure=$(mktemp -d "${TMPDIR:-/tmp}/mf_tls_stack.XXXXXX")
if [[ -n ${MF_TEST_STACK:-} ]]; then # there are services to be had here
  ops/stack up "$secure/stack" --tls --no-sync
  eval "$(ops/stack env "$secure/stack")"
fi
login=${MODELFORGE_KAFKA_SASL_PASSWORD:-} authority=${MODELFORGE_KAFKA_SSL_CA_LOCATION:-}
export PGSSLMODE=verify-full PGSSLROOTCERT=$authority # psql's, and of URLs that do not say
MF_TEST_DATABASE_URL=${MF_TEST_DATABASE_URL%%\?*}
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"
own_clean_up() {
  ops/stack wipe "$secure/stack"
  rm -rf "$secure"
}

database_password=${MF_TEST_DATABASE_URL#*://*:}
database_password=${database_password%%@*}
secure_client() { # [NAME=VALUE]... COMMAND...
  local settings=()
  while [[ $1 == *=* ]]; do
    settings+=(--set "$1")
    shift
  done
  MODELFORGE_KAFKA_SASL_PASSWORD=$login client --set kafka.security.protocol=SASL_SSL \
    --set "kafka.ssl.ca.location=$authority" --set kafka.sasl.mechanism=PLAIN --set kafka.sasl.username=modelforge \
    --set "registry.ca_file=$authority" "${settings[@]}" "$@"
}
psql -X -q -d "$MF_TEST_DATABASE_URL" -c "CREATE DATABASE \"$name\""
MODELFORGE_WORKER_PASSWORD=hush-hush secure_client setup --partitions 1 --replication-factor 1 >"$work/setup.log"
MODELFORGE_WORKER_PASSWORD=hush-hush secure_client migrate --worker-login modelforge_tls_worker >>"$work/setup.log"
secure_client doctor --development >"$work/doctor" || fail "doctor: $(cat "$work/doctor")"
passed "topics, schemas and database are made through TLS, and doctor finds no fault"

# ---- a job
url_for() { printf '%s' "$database_url" | sed "s#//[^@]*@#//$1@#"; } # USER:PASSWORD
worker_url=$(url_for modelforge_tls_worker:hush-hush)
write_config "$work/worker.conf" "database.url=$worker_url?sslmode=verify-full&sslrootcert=$authority" \
  kafka.security.protocol=SASL_SSL "kafka.ssl.ca.location=$authority" kafka.sasl.mechanism=PLAIN \
  kafka.sasl.username=modelforge "kafka.sasl.password=$login" "registry.ca_file=$authority" \
  "http.listen=127.0.0.1:$(free_port)" log.level=debug
start_worker "$work/worker.conf" "$work/worker.out"
secure_client submit --task text-generation --model-name /m --dataset /d --request-id good-1 --wait --timeout 60
sql_is "t" "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'modelforge_tls_worker'" ||
  fail "the worker's sessions are not encrypted"
wait_sql 30 0 "SELECT count(*) FROM outbox"
passed "a job goes from broker to end and its events back, all encrypted"

# ---- the cause is said
says() { # WORDS [NAME=VALUE]...: doctor with these settings finds the fault
  local words=$1
  shift
  ! secure_client "$@" doctor --development >"$work/doctor" || fail "doctor finds nothing wrong with $*"
  grep -q -- "$words" "$work/doctor" || fail "doctor with $*: $(cat "$work/doctor")"
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "$work/other.key" -out "$work/other.pem" \
  -subj /CN=other 2>/dev/null
says "SASL authentication error.*see kafka.sasl.username, kafka.sasl.password" kafka.sasl.password=wrong
says "certificate verify failed.*see kafka.security.protocol and kafka.ssl.ca.location" "kafka.ssl.ca.location=$work/other.pem"
says "might be caused by incorrect security.protocol" kafka.security.protocol=SASL_PLAINTEXT
says "schema registry.*SSL certificate problem" "registry.ca_file=$work/other.pem"
says "PostgreSQL: connect.*certificate verify failed" \
  "database.url=$database_url?sslmode=verify-full&sslrootcert=$work/other.pem"
says "PostgreSQL: connect.*no encryption" "database.url=$database_url?sslmode=disable"
says "PostgreSQL: connect.*password authentication failed" \
  "database.url=$(url_for modelforge_tls_worker:wrong)"
status=0 before=$SECONDS
secure_client kafka.sasl.password=wrong submit --task text-generation --model-name /m --dataset /d 2>"$work/err" || status=$?
[[ $status == 3 ]] || fail "exit status $status of a refused login"
grep -q "1 message(s) not accepted; .*Authentication failed" "$work/err" || fail "the text: $(cat "$work/err")"
((SECONDS - before < 20)) || fail "a refused login was waited for"
passed "wrong password, wrong authority, no TLS: each is named, for each of the three"

# ---- secrets
curl -s "http://$(sed -n 's/^http.listen = //p' "$work/worker.conf")/metrics" >"$work/metrics"
[[ -s $work/metrics ]] || fail "no metrics"
"$worker_program" --config "$work/worker.conf" --print-config >"$work/printed"
grep -q 'kafka.sasl.username' "$work/printed" || fail "the printed configuration lacks what is no secret"
tr '\0' '\n' <"/proc/$worker_pid/cmdline" >"$work/cmdline"
PGPASSWORD=$database_password pg_dump -d "$database_url" >"$work/dump"
kcat -C -b "$brokers" -t "$events" -e -q -X security.protocol=SASL_SSL -X sasl.mechanism=PLAIN -X sasl.username=modelforge \
  -X "sasl.password=$login" -X "ssl.ca.location=$authority" >"$work/events"
[[ -s $work/events && -s $work/dump ]] || fail "nothing to look through"
for secret in "$login" hush-hush "$database_password"; do
  ! grep -rlF -- "$secret" "$work/metrics" "$work/printed" "$work/cmdline" "$work/dump" "$work/events" "$work/worker.out" \
    "$work/worker" "$work/doctor" "$work/err" || fail "a password is in the files above"
done
passed "no password is in logs, metrics, events, the printed configuration, a command line or the database"
stop_worker "$worker_pid"
echo "$checks checks passed"
