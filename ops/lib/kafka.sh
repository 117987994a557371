# shellcheck shell=bash disable=SC2154  # ops_root and stack come from the script that sources this
# Apache Kafka in KRaft mode: every broker is a controller too. Jars come from Maven, checked against jars.sha256.
# Broker number N lives in $stack/kafka-N; its ports are broker_port_N and controller_port_N of the stack's settings.

kafka_jars() { printf '%s/kafka-4.3.1' "$(cache_folder)"; }

fetch_kafka() {
  local folder partial
  folder=$(kafka_jars)
  [[ ! -e $folder/.complete ]] || return 0
  command -v mvn >/dev/null || die "Maven is missing; ops/setup installs it"
  say "downloading Apache Kafka 4.3.1"
  partial=$(mktemp -d "$(cache_folder)/partial.XXXXXX")
  quietly "fetching Apache Kafka by Maven" mvn --quiet --batch-mode --strict-checksums --file "$ops_root/ops/kafka/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$partial/jars" -DincludeScope=runtime
  (cd "$partial/jars" && sha256sum --quiet --check "$ops_root/ops/kafka/jars.sha256") ||
    die "a jar of Apache Kafka differs from ops/kafka/jars.sha256"
  : >"$partial/jars/.complete"
  rm -rf "$folder"
  mv "$partial/jars" "$folder"
  rm -rf "$partial"
}

kafka_settings() { # BROKER COUNT
  local broker=$1 count=$2 other voters='' replicas in_sync listener=PLAINTEXT
  ! tls_on || listener=SASL_SSL
  for ((other = 1; other <= count; other++)); do
    voters+=${voters:+,}$other@127.0.0.1:$(setting "controller_port_$other")
  done
  replicas=$((count < 3 ? count : 3))
  in_sync=$((count < 3 ? 1 : 2))
  cat <<SETTINGS
node.id=$broker
process.roles=broker,controller
controller.quorum.voters=$voters
listeners=$listener://127.0.0.1:$(setting "broker_port_$broker"),CONTROLLER://127.0.0.1:$(setting "controller_port_$broker")
advertised.listeners=$listener://127.0.0.1:$(setting "broker_port_$broker")
controller.listener.names=CONTROLLER
listener.security.protocol.map=$listener:$listener,CONTROLLER:PLAINTEXT
inter.broker.listener.name=$listener
log.dirs=$stack/kafka-$broker/log
auto.create.topics.enable=false
default.replication.factor=$replicas
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$in_sync
share.coordinator.state.topic.num.partitions=1
# A consumer group starts at once, and a dead broker is noticed in seconds.
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1500
replica.lag.time.max.ms=5000
controlled.shutdown.max.retries=1
# A small process: few threads, and a log cleaner whose buffer does not fill the heap.
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=4194304
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
log.retention.hours=168
SETTINGS
  ! tls_on || kafka_tls_settings
}

kafka_java() { # MAIN_CLASS ARGUMENT...
  local jar class_path=''
  for jar in "$(kafka_jars)"/*.jar; do class_path+=${class_path:+:}$jar; done
  kafka_command=("$(setting java)" -Xms96m -Xmx512m -Xss512k -XX:+UseSerialGC -XX:TieredStopAtLevel=1
    -XX:MaxDirectMemorySize=256m -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true -Dlog4j2.disableJmx=true
    "-Dlog4j2.configurationFile=$ops_root/ops/kafka/log4j2.properties" -cp "$class_path" "$@")
}

kafka_is_ready() { # BROKER
  live_process "$stack/kafka-$1/pid" >/dev/null || return 0
  grep -q 'Kafka Server started' "$stack/logs/kafka-$1.log" 2>/dev/null && port_is_taken "$(setting "broker_port_$1")"
}

kafka_launch() { # BROKER COUNT
  local broker=$1 folder=$stack/kafka-$1 log=$stack/logs/kafka-$1.log
  ! live_process "$folder/pid" >/dev/null || return 0
  mkdir -p "$folder"
  (umask 077 && kafka_settings "$broker" "$2" >"$folder/server.properties")
  if [[ ! -e $folder/log/meta.properties ]]; then
    kafka_java kafka.tools.StorageTool format --ignore-formatted --cluster-id "$(setting kafka_cluster)" \
      --config "$folder/server.properties"
    "${kafka_command[@]}" >"$stack/logs/kafka-$broker-format.log" 2>&1 ||
      die "cannot format the broker's folder: $(tail -n 3 "$stack/logs/kafka-$broker-format.log")"
  fi
  [[ ! -e $log ]] || mv "$log" "$log.1"
  kafka_java kafka.Kafka "$folder/server.properties"
  start_daemon "$folder/pid" "$log" "${kafka_command[@]}"
}

kafka_await() { # BROKER
  wait_until 90 "broker $1 is ready" kafka_is_ready "$1"
  live_process "$stack/kafka-$1/pid" >/dev/null ||
    die "broker $1 did not start: $(tail -n 5 "$stack/logs/kafka-$1.log")"
}

kafka_brokers() { # COUNT
  local broker list=''
  for ((broker = 1; broker <= $1; broker++)); do list+=${list:+,}127.0.0.1:$(setting "broker_port_$broker"); done
  printf '%s' "$list"
}
