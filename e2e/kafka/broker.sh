#!/bin/sh
# A real Apache Kafka broker in KRaft mode on loopback, for tests.
#
#   broker.sh jars                      gets the broker's jars once, prints their directory
#   broker.sh run DIR PORT [TLS LOGIN]  formats DIR if it is new, and runs a broker there until killed;
#                                       PORT is the clients', PORT+1 the controller's
#
# With a directory TLS that has server.pem (key and certificate) and ca.pem, and a LOGIN user:password,
# clients may come with TLS too: on PORT+2 with the login, on PORT+3 with a certificate of that authority.
#
# Needs Java 17 and Maven. The jars are kept in $FLOWTRAIL_CACHE (default ~/.cache/flowtrail).
set -eu

version=4.4.0
here=$(cd "$(dirname "$0")" && pwd)
cache=${FLOWTRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flowtrail}/kafka/$version

fail() {
    echo "broker.sh: $*" >&2
    exit 1
}

jars() {
    [ -d "$cache" ] && return
    command -v java >/dev/null || fail "java is missing: apt-get install openjdk-17-jre-headless"
    command -v mvn >/dev/null || fail "mvn is missing: apt-get install maven"
    echo "getting Apache Kafka $version into $cache" >&2
    mkdir -p "$(dirname "$cache")"
    partial=$(mktemp -d "$cache.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$partial" >&2
    # Two at once: the first to finish wins.
    mv -T "$partial" "$cache" 2>/dev/null || [ -d "$cache" ]
}

run() {
    directory=$1
    port=$2
    tls=${3:-}
    login=${4:-}
    controller=$((port + 1))
    mkdir -p "$directory"
    cat >"$directory/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$directory/log
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
EOF
    set --
    if [ -n "$tls" ]; then
        # A later line wins.
        secure >>"$directory/server.properties"
        set -- --add-scram "SCRAM-SHA-256=[name=${login%%:*},password=${login#*:}]" \
            --add-scram "SCRAM-SHA-512=[name=${login%%:*},password=${login#*:}]"
    fi
    if [ ! -f "$directory/log/meta.properties" ]; then
        java -cp "$cache/*" kafka.tools.StorageTool format --standalone "$@" \
            --cluster-id "$(java -cp "$cache/*" kafka.tools.StorageTool random-uuid)" \
            --config "$directory/server.properties" >"$directory/format.log" 2>&1 ||
            fail "cannot format $directory: $(cat "$directory/format.log")"
    fi
    exec java -Xmx512m -Xms256m -cp "$cache/*" kafka.Kafka "$directory/server.properties"
}

secure() {
    doors="PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller"
    doors="$doors,SASL_SSL://127.0.0.1:$((port + 2)),SSL://127.0.0.1:$((port + 3))"
    security=org.apache.kafka.common.security
    cat <<EOF
listeners=$doors
advertised.listeners=$doors
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
ssl.keystore.type=PEM
ssl.keystore.location=$tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$tls/ca.pem
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=$security.plain.PlainLoginModule required user_${login%%:*}="${login#*:}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=$security.scram.ScramLoginModule required;
EOF
}

case "${1:-} $#" in
"jars 1") jars && echo "$cache" ;;
"run 3") jars && run "$2" "$3" ;;
"run 5") jars && run "$2" "$3" "$4" "$5" ;;
*) fail "usage: broker.sh jars | broker.sh run DIR PORT [TLS LOGIN]" ;;
esac
