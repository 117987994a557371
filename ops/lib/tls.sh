# shellcheck shell=bash disable=SC2154  # stack comes from the script that sources this
# Certificates of a stack that speaks TLS: an authority of its own (tls/ca.pem) and one certificate for 127.0.0.1 and
# localhost that broker, registry and PostgreSQL show. Clients of the broker log in
# as modelforge, by PLAIN: the librdkafka of Debian 12 cannot by SCRAM at Kafka 4 (mended in 2.6.1).

tls_on() { [[ $(setting tls) == yes ]]; }
tls_file() { printf '%s/tls/%s' "$stack" "$1"; }
kafka_password() { cat "$(tls_file kafka.password)"; }

tls_create() {
  local folder=$stack/tls
  [[ ! -e $folder/.complete ]] || return 0
  mkdir -p "$folder"
  (
    umask 077
    cd "$folder"
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >kafka.password
    {
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -keyout ca.key -out ca.pem \
        -subj '/CN=modelforge development authority' -addext basicConstraints=critical,CA:TRUE \
        -addext keyUsage=critical,keyCertSign
      openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout server.key -out server.request \
        -subj '/CN=localhost'
      openssl x509 -req -in server.request -CA ca.pem -CAkey ca.key -days 3650 -out server.pem \
        -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n')
    } 2>openssl.log || die "cannot make certificates: $(tail -n 3 openssl.log)"
    cat server.key server.pem >server-both.pem # what Kafka calls a PEM key store
  ) || exit 1
  chmod 755 "$folder" # the authority's certificate is for everybody
  chmod 644 "$folder/ca.pem"
  : >"$folder/.complete"
}

kafka_tls_settings() {
  cat <<SETTINGS
ssl.keystore.type=PEM
ssl.keystore.location=$(tls_file server-both.pem)
ssl.truststore.type=PEM
ssl.truststore.location=$(tls_file ca.pem)
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="modelforge" password="$(kafka_password)" user_modelforge="$(kafka_password)";
SETTINGS
}

registry_tls_options() {
  printf '%s\n' "-Dquarkus.http.ssl-port=$(setting registry_port)" -Dquarkus.http.insecure-requests=disabled \
    "-Dquarkus.http.ssl.certificate.files=$(tls_file server.pem)" \
    "-Dquarkus.http.ssl.certificate.key-files=$(tls_file server.key)"
}

# PostgreSQL refuses a key that others may read, and runs as another user.
postgres_tls_settings() { # FOLDER
  local file
  for file in server.key server.pem; do as_postgres tee "$1/$file" <"$(tls_file "$file")" >/dev/null; done
  as_postgres chmod 600 "$1/server.key"
  as_postgres sed -i 's/^host /hostssl /' "$1/pg_hba.conf"
  printf "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n"
}

tls_environment() {
  local name
  for name in "SECURITY_PROTOCOL=SASL_SSL" "SASL_MECHANISM=PLAIN" "SASL_USERNAME=modelforge" \
    "SASL_PASSWORD=$(kafka_password)" "SSL_CA_LOCATION=$(tls_file ca.pem)"; do
    printf 'export MODELFORGE_KAFKA_%s\n' "$name"
  done
  printf 'export MODELFORGE_REGISTRY_CA_FILE=%s\n' "$(tls_file ca.pem)"
}
