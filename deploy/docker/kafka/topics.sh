#!/bin/bash
# Makes Flowtrail's topics and its user on a broker that is reached without a password; what is there
# already stays.
#
#   FLOWTRAIL_KAFKA_PASSWORD=… topics.sh PARTITIONS [BROKER]
set -euo pipefail
partitions=${1:?usage: topics.sh PARTITIONS [BROKER]}
broker=${2:-127.0.0.1:9091}
: "${FLOWTRAIL_KAFKA_PASSWORD:?}"
bin=${KAFKA_BIN:-/opt/kafka/bin}

# create TOPIC PARTITIONS [CONFIG…]
create() {
    local topic=$1 count=$2 config=()
    shift 2
    for setting in "$@"; do config+=(--config "$setting"); done
    "$bin/kafka-topics.sh" --bootstrap-server "$broker" --create --if-not-exists \
        --topic "$topic" --partitions "$count" --replication-factor 1 "${config[@]}"
}

# A week of room for ingest to be away, but not the disk: the sizes are of one partition.
create flowtrail.flows.v1 "$partitions" \
    message.timestamp.type=LogAppendTime retention.ms=604800000 \
    retention.bytes=536870912 segment.bytes=67108864
create flowtrail.flows.v1.dead-letters 1 \
    retention.ms=604800000 retention.bytes=67108864 segment.bytes=16777216

# From a file, as other processes can read a command line.
umask 077
settings=$(mktemp)
trap 'rm -f "$settings"' EXIT
printf 'SCRAM-SHA-512=password=%s\n' "$FLOWTRAIL_KAFKA_PASSWORD" >"$settings"
"$bin/kafka-configs.sh" --bootstrap-server "$broker" --alter --entity-type users \
    --entity-name flowtrail --add-config-file "$settings"
