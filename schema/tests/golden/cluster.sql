CREATE DATABASE IF NOT EXISTS `flowtrail` ON CLUSTER `main`;
CREATE TABLE IF NOT EXISTS schema_migrations ON CLUSTER `main` (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = ReplicatedMergeTree('/clickhouse/tables/main/all/{database}/{table}', '{shard}-{replica}') ORDER BY version;

-- 0001_flows.sql
CREATE TABLE IF NOT EXISTS flows_local ON CLUSTER `main`
(
    interval_start                 DateTime('UTC') COMMENT 'start of the interval that all packets of the row belong to' CODEC(ZSTD(3)),
    interval_s                     UInt8 COMMENT 'length of the interval in seconds' CODEC(ZSTD(1)),
    first_offset_us                Int64 COMMENT 'first packet, from interval_start on (0 in a heartbeat)' CODEC(Delta, ZSTD(1)),
    first_seen                     DateTime64(6, 'UTC') ALIAS addMicroseconds(toDateTime64(interval_start, 6, 'UTC'), first_offset_us) COMMENT 'first packet (interval_start in a heartbeat)',
    active_us                      Int64 COMMENT 'first to last packet of the row' CODEC(ZSTD(3)),
    last_seen                      DateTime64(6, 'UTC') ALIAS addMicroseconds(toDateTime64(interval_start, 6, 'UTC'), first_offset_us + active_us) COMMENT 'last packet (interval_start in a heartbeat)',

    node                           LowCardinality(String) COMMENT 'node of the observation point' CODEC(ZSTD(1)),
    agent                          LowCardinality(String) COMMENT 'agent that observed' CODEC(ZSTD(1)),
    interface                      LowCardinality(String) COMMENT 'interface of the observation point' CODEC(ZSTD(1)),
    interface_kind                 Enum8('pod' = 1, 'uplink' = 2, 'other' = 3) CODEC(ZSTD(1)),
    reporter                       Enum8('client' = 1, 'server' = 2, 'transit' = 3) COMMENT 'side of the connection that the interface leads to' CODEC(ZSTD(1)),
    local_primary                  Bool COMMENT 'the one observation its agent counts for the connection' CODEC(ZSTD(1)),
    primary                        Bool COMMENT 'the one observation counted in edges; all others are evidence' CODEC(ZSTD(1)),
    detail                         Enum8('flow' = 1, 'summary' = 2, 'minute_summary' = 3) COMMENT 'how much was folded while Kafka was away' CODEC(ZSTD(1)),

    connection_id                  UInt64 COMMENT 'client_isn << 32 | server_isn, or a hash of the tuple' CODEC(ZSTD(1)),
    id_kind                        Enum8('complete' = 1, 'partial' = 2, 'tuple_hash' = 3) CODEC(ZSTD(1)),
    handshake_seen                 Bool CODEC(ZSTD(1)),
    one_sided                      Bool COMMENT 'only one direction passes the observation point' CODEC(ZSTD(1)),
    direction_inferred             Bool COMMENT 'no handshake seen: the client was guessed from ports' CODEC(ZSTD(1)),
    age_rest_us                    Int64 COMMENT 'age_us beyond active_us' CODEC(ZSTD(1)),
    age_us                         UInt64 ALIAS toUInt64(active_us + age_rest_us) COMMENT 'age of the connection at last_seen',

    client_seen_ip                 IPv6 COMMENT 'the end that sent the SYN, as seen here (IPv4 mapped), if not as client_real_ip and client_real_port; else ::' CODEC(ZSTD(1)),
    client_ip                      IPv6 ALIAS if(client_seen_ip = toIPv6('::'), client_real_ip, client_seen_ip) COMMENT 'the end that sent the SYN, as seen here (IPv4 mapped)',
    client_seen_port               UInt16 COMMENT '0 if client_seen_ip is ::' CODEC(ZSTD(1)),
    client_port                    UInt16 ALIAS if(client_seen_ip = toIPv6('::'), client_real_port, client_seen_port),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5) CODEC(ZSTD(1)),
    client_namespace               LowCardinality(String) CODEC(ZSTD(1)),
    client_name                    LowCardinality(String) COMMENT 'pod, Service or node; the name of the CIDR; empty when there is none' CODEC(ZSTD(1)),
    client_workload                LowCardinality(String) COMMENT 'top owner: Deployment, StatefulSet, DaemonSet, CronJob, Job' CODEC(ZSTD(1)),
    client_workload_kind           LowCardinality(String) CODEC(ZSTD(1)),
    client_node                    LowCardinality(String) CODEC(ZSTD(1)),
    client_uncertain               Bool COMMENT 'the watch had a gap at the time: the name may be a predecessor''s' CODEC(ZSTD(1)),
    client_real_ip                 IPv6 COMMENT 'the true client behind NAT, when another observation shows it; else client_ip' CODEC(ZSTD(1)),
    client_real_port               UInt16 CODEC(Delta, ZSTD(1)),

    server_seen_ip                 IPv6 COMMENT 'the other end, as seen here (IPv4 mapped), if not as server_real_ip and server_real_port; else ::' CODEC(ZSTD(1)),
    server_ip                      IPv6 ALIAS if(server_seen_ip = toIPv6('::'), server_real_ip, server_seen_ip) COMMENT 'the other end, as seen here (IPv4 mapped)',
    server_seen_port               UInt16 COMMENT '0 if server_seen_ip is ::' CODEC(ZSTD(1)),
    server_port                    UInt16 ALIAS if(server_seen_ip = toIPv6('::'), server_real_port, server_seen_port),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5) CODEC(ZSTD(1)),
    server_namespace               LowCardinality(String) CODEC(ZSTD(1)),
    server_name                    LowCardinality(String) CODEC(ZSTD(1)),
    server_workload                LowCardinality(String) CODEC(ZSTD(1)),
    server_workload_kind           LowCardinality(String) CODEC(ZSTD(1)),
    server_node                    LowCardinality(String) CODEC(ZSTD(1)),
    server_uncertain               Bool CODEC(ZSTD(1)),
    server_real_ip                 IPv6 COMMENT 'the true server behind NAT, when another observation shows it; else server_ip' CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String) COMMENT 'Service through which the client reached the server' CODEC(ZSTD(1)),
    service_name                   LowCardinality(String) CODEC(ZSTD(1)),

    sent_header_bytes              UInt64 COMMENT 'client to server: sent_bytes beyond sent_payload_bytes' CODEC(T64, ZSTD(3)),
    sent_bytes                     UInt64 ALIAS sent_payload_bytes + sent_header_bytes COMMENT 'client to server: IP packet lengths',
    sent_payload_bytes             UInt64 COMMENT 'TCP payload' CODEC(ZSTD(3)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(3)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_header_bytes          UInt64 COMMENT 'server to client: received_bytes beyond received_payload_bytes' CODEC(T64, ZSTD(3)),
    received_bytes                 UInt64 ALIAS received_payload_bytes + received_header_bytes COMMENT 'server to client: IP packet lengths',
    received_payload_bytes         UInt64 CODEC(ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(3)),
    received_retransmitted_packets UInt64 CODEC(T64, ZSTD(1)),
    received_zero_window_packets   UInt64 CODEC(T64, ZSTD(1)),

    opened                         UInt32 COMMENT 'the row holds the connection''s SYN; once per life' CODEC(T64, ZSTD(1)),
    joined                         UInt32 COMMENT 'first row of a connection whose SYN was not seen' CODEC(T64, ZSTD(1)),
    open_at_start                  UInt32 COMMENT 'open when the interval began; once per interval' CODEC(T64, ZSTD(1)),
    closed_fin                     UInt32 COMMENT 'both FINs acknowledged' CODEC(T64, ZSTD(1)),
    closed_reset_by_client         UInt32 CODEC(T64, ZSTD(1)),
    closed_reset_by_server         UInt32 CODEC(T64, ZSTD(1)),
    closed_refused                 UInt32 COMMENT 'SYN answered by RST' CODEC(T64, ZSTD(1)),
    closed_unanswered              UInt32 COMMENT 'no answer 10 s after the last SYN' CODEC(T64, ZSTD(1)),
    closed_idle                    UInt32 COMMENT 'no packet for the idle timeout' CODEC(T64, ZSTD(1)),
    closed_superseded              UInt32 COMMENT 'a new connection took the tuple' CODEC(T64, ZSTD(1)),
    closed_evicted                 UInt32 COMMENT 'the agent''s flow table was full' CODEC(T64, ZSTD(1)),

    syn_to_synack_us               UInt64 COMMENT 'sum over _count samples (one per connection)' CODEC(T64, ZSTD(1)),
    syn_to_synack_count            UInt32 CODEC(T64, ZSTD(1)),
    syn_to_synack_max_rest_us      Int64 COMMENT 'syn_to_synack_max_us beyond syn_to_synack_us: 0 of one sample' CODEC(T64, ZSTD(1)),
    syn_to_synack_max_us           UInt64 ALIAS toUInt64(syn_to_synack_us + syn_to_synack_max_rest_us),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt32 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_rest_us      Int64 COMMENT 'synack_to_ack_max_us beyond synack_to_ack_us: 0 of one sample' CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           UInt64 ALIAS toUInt64(synack_to_ack_us + synack_to_ack_max_rest_us),
    first_response_us              UInt64 COMMENT 'client''s first payload to server''s first payload' CODEC(ZSTD(1)),
    first_response_count           UInt32 CODEC(T64, ZSTD(1)),
    first_response_max_rest_us     Int64 COMMENT 'first_response_max_us beyond first_response_us: 0 of one sample' CODEC(T64, ZSTD(1)),
    first_response_max_us          UInt64 ALIAS toUInt64(first_response_us + first_response_max_rest_us),
    duration_rest_us               Int64 COMMENT 'duration_us beyond age_us where there is a sample' CODEC(T64, ZSTD(1)),
    duration_us                    UInt64 ALIAS toUInt64(if(duration_count = 0, 0, active_us + age_rest_us) + duration_rest_us) COMMENT 'first to last packet, at close',
    duration_count                 UInt32 CODEC(T64, ZSTD(1)),
    duration_max_rest_us           Int64 COMMENT 'duration_max_us beyond duration_us: 0 of one sample' CODEC(T64, ZSTD(1)),
    duration_max_us                UInt64 ALIAS toUInt64(duration_us + duration_max_rest_us),

    topic_id                       LowCardinality(String) COMMENT 'topic that partition and chunk_start are of: one made anew counts from 0 again' CODEC(ZSTD(1)),
    partition                      UInt32 COMMENT 'Kafka partition the record came by' CODEC(ZSTD(1)),
    chunk_start                    UInt64 COMMENT 'first offset of the chunk it was inserted with: see deliveries' CODEC(ZSTD(1))
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(interval_start)
PRIMARY KEY (toStartOfTenMinutes(interval_start), client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (toStartOfTenMinutes(interval_start), client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, connection_id, interval_start, reporter)
TTL interval_start + INTERVAL 14 DAY
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS flows ON CLUSTER `main` AS flows_local
ENGINE = Distributed('main', 'flowtrail', 'flows_local', partition);

-- 0002_coverage.sql
CREATE TABLE IF NOT EXISTS coverage_local ON CLUSTER `main`
(
    interval_start      DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    interval_s          UInt8 CODEC(ZSTD(1)),
    node                LowCardinality(String),
    agent               LowCardinality(String),
    agent_start         DateTime64(6, 'UTC') COMMENT 'start id of the agent''s process' CODEC(ZSTD(1)),
    interfaces          UInt32 COMMENT 'interfaces watched' CODEC(T64, ZSTD(1)),
    packets_seen        UInt64 COMMENT 'packets the kernel delivered' CODEC(T64, ZSTD(1)),
    packets_dropped     UInt64 COMMENT 'packets the kernel dropped because the ring was full' CODEC(T64, ZSTD(1)),
    flows_evicted       UInt64 COMMENT 'flows evicted because the table was full' CODEC(T64, ZSTD(1)),
    records_emitted     UInt64 CODEC(T64, ZSTD(1)),
    records_dropped     UInt64 COMMENT 'records given up because every queue towards Kafka was full' CODEC(T64, ZSTD(1)),
    announced_addresses Array(IPv6) COMMENT 'addresses whose client side the agent observes' CODEC(ZSTD(1)),
    topic_id            LowCardinality(String) COMMENT 'topic that partition and chunk_start are of',
    partition           UInt32 CODEC(ZSTD(1)),
    chunk_start         UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(interval_start)
ORDER BY (interval_start, agent)
TTL interval_start + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS coverage ON CLUSTER `main` AS coverage_local
ENGINE = Distributed('main', 'flowtrail', 'coverage_local', partition);

-- 0003_deliveries.sql
CREATE TABLE IF NOT EXISTS deliveries_local ON CLUSTER `main`
(
    topic              LowCardinality(String),
    topic_id           LowCardinality(String) COMMENT 'tells a topic from a later one of the same name',
    partition          UInt32,
    chunk_start        UInt64 COMMENT 'first offset',
    chunk_end          UInt64 COMMENT 'first offset after the chunk',
    token              String COMMENT 'deduplication token of its inserts',
    min_interval_start DateTime('UTC') COMMENT 'earliest interval in the chunk; 0 without records',
    max_interval_start DateTime('UTC'),
    records            UInt64 COMMENT 'rows written to flows',
    coverage_reports   UInt64 COMMENT 'rows written to coverage',
    batches            Nested(agent LowCardinality(String), agent_start DateTime64(6, 'UTC'), sequence UInt64, records UInt32),
    rejected           Nested(reason LowCardinality(String), count UInt64),
    lost_offsets       UInt64 COMMENT 'offsets that Kafka no longer had',
    duplicate_batches  UInt64 COMMENT 'batches seen before, dropped',
    inserted_at        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(inserted_at)
ORDER BY (topic, topic_id, partition, chunk_start)
TTL toDateTime(inserted_at) + INTERVAL 90 DAY
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS deliveries ON CLUSTER `main` AS deliveries_local
ENGINE = Distributed('main', 'flowtrail', 'deliveries_local', partition);

-- 0004_edges_1m.sql
CREATE TABLE IF NOT EXISTS edges_1m_local ON CLUSTER `main`
(
    start                          DateTime('UTC') COMMENT 'start of the minute' CODEC(DoubleDelta, ZSTD(1)),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    client_namespace               LowCardinality(String),
    client_workload                LowCardinality(String),
    client_workload_kind           LowCardinality(String),
    client_name                    LowCardinality(String),
    client_node                    LowCardinality(String),
    client_ip                      IPv6 CODEC(ZSTD(1)),
    client_real_ip                 IPv6 CODEC(ZSTD(1)),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    server_namespace               LowCardinality(String),
    server_workload                LowCardinality(String),
    server_workload_kind           LowCardinality(String),
    server_name                    LowCardinality(String),
    server_node                    LowCardinality(String),
    server_ip                      IPv6 CODEC(ZSTD(1)),
    server_real_ip                 IPv6 CODEC(ZSTD(1)),
    server_port                    UInt16 CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String),
    service_name                   LowCardinality(String),
    direction_inferred             Bool,
    records                        UInt64 COMMENT 'primary rows of flows that were summed' CODEC(T64, ZSTD(1)),
    first_seen                     SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    last_seen                      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    open_at_start                  UInt64 COMMENT 'open when the minute began' CODEC(T64, ZSTD(1)),
    sent_bytes                     UInt64 CODEC(T64, ZSTD(1)),
    sent_payload_bytes             UInt64 CODEC(T64, ZSTD(1)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(1)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_bytes                 UInt64 CODEC(T64, ZSTD(1)),
    received_payload_bytes         UInt64 CODEC(T64, ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(1)),
    received_retransmitted_packets UInt64 CODEC(T64, ZSTD(1)),
    received_zero_window_packets   UInt64 CODEC(T64, ZSTD(1)),
    opened                         UInt64 CODEC(T64, ZSTD(1)),
    joined                         UInt64 CODEC(T64, ZSTD(1)),
    closed_fin                     UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_client         UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_server         UInt64 CODEC(T64, ZSTD(1)),
    closed_refused                 UInt64 CODEC(T64, ZSTD(1)),
    closed_unanswered              UInt64 CODEC(T64, ZSTD(1)),
    closed_idle                    UInt64 CODEC(T64, ZSTD(1)),
    closed_superseded              UInt64 CODEC(T64, ZSTD(1)),
    closed_evicted                 UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_us               UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_count            UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    syn_to_synack_buckets          SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_us              UInt64 CODEC(T64, ZSTD(1)),
    first_response_count           UInt64 CODEC(T64, ZSTD(1)),
    first_response_max_us          SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_buckets         SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    duration_us                    UInt64 CODEC(T64, ZSTD(1)),
    duration_count                 UInt64 CODEC(T64, ZSTD(1)),
    duration_max_us                SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(start)
PRIMARY KEY (toStartOfTenMinutes(start), client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (toStartOfTenMinutes(start), client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, server_port, service_namespace, service_name, client_kind, client_workload_kind, client_node, client_ip, client_real_ip, server_kind, server_workload_kind, server_node, server_ip, server_real_ip, server_real_port, direction_inferred, start)
TTL start + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS edges_1m ON CLUSTER `main` AS edges_1m_local
ENGINE = Distributed('main', 'flowtrail', 'edges_1m_local', rand());

-- 0005_edges_1h.sql
CREATE TABLE IF NOT EXISTS edges_1h_local ON CLUSTER `main`
(
    start                          DateTime('UTC') COMMENT 'start of the hour' CODEC(DoubleDelta, ZSTD(1)),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    client_namespace               LowCardinality(String),
    client_workload                LowCardinality(String),
    client_workload_kind           LowCardinality(String),
    client_name                    LowCardinality(String),
    client_node                    LowCardinality(String),
    client_ip                      IPv6 CODEC(ZSTD(1)),
    client_real_ip                 IPv6 CODEC(ZSTD(1)),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    server_namespace               LowCardinality(String),
    server_workload                LowCardinality(String),
    server_workload_kind           LowCardinality(String),
    server_name                    LowCardinality(String),
    server_node                    LowCardinality(String),
    server_ip                      IPv6 CODEC(ZSTD(1)),
    server_real_ip                 IPv6 CODEC(ZSTD(1)),
    server_port                    UInt16 CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String),
    service_name                   LowCardinality(String),
    direction_inferred             Bool,
    records                        UInt64 COMMENT 'primary rows of flows that were summed' CODEC(T64, ZSTD(1)),
    first_seen                     SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    last_seen                      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    open_at_start                  UInt64 COMMENT 'open when the hour began' CODEC(T64, ZSTD(1)),
    sent_bytes                     UInt64 CODEC(T64, ZSTD(1)),
    sent_payload_bytes             UInt64 CODEC(T64, ZSTD(1)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(1)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_bytes                 UInt64 CODEC(T64, ZSTD(1)),
    received_payload_bytes         UInt64 CODEC(T64, ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(1)),
    received_retransmitted_packets UInt64 CODEC(T64, ZSTD(1)),
    received_zero_window_packets   UInt64 CODEC(T64, ZSTD(1)),
    opened                         UInt64 CODEC(T64, ZSTD(1)),
    joined                         UInt64 CODEC(T64, ZSTD(1)),
    closed_fin                     UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_client         UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_server         UInt64 CODEC(T64, ZSTD(1)),
    closed_refused                 UInt64 CODEC(T64, ZSTD(1)),
    closed_unanswered              UInt64 CODEC(T64, ZSTD(1)),
    closed_idle                    UInt64 CODEC(T64, ZSTD(1)),
    closed_superseded              UInt64 CODEC(T64, ZSTD(1)),
    closed_evicted                 UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_us               UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_count            UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    syn_to_synack_buckets          SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_us              UInt64 CODEC(T64, ZSTD(1)),
    first_response_count           UInt64 CODEC(T64, ZSTD(1)),
    first_response_max_us          SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_buckets         SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    duration_us                    UInt64 CODEC(T64, ZSTD(1)),
    duration_count                 UInt64 CODEC(T64, ZSTD(1)),
    duration_max_us                SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(start)
PRIMARY KEY (toDate(start), client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (toDate(start), client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, server_port, service_namespace, service_name, client_kind, client_workload_kind, client_node, client_ip, client_real_ip, server_kind, server_workload_kind, server_node, server_ip, server_real_ip, server_real_port, direction_inferred, start)
TTL start + INTERVAL 2 YEAR
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS edges_1h ON CLUSTER `main` AS edges_1h_local
ENGINE = Distributed('main', 'flowtrail', 'edges_1h_local', rand());

-- 0006_edges_1d.sql
CREATE TABLE IF NOT EXISTS edges_1d_local ON CLUSTER `main`
(
    start                          DateTime('UTC') COMMENT 'start of the day' CODEC(DoubleDelta, ZSTD(1)),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    client_namespace               LowCardinality(String),
    client_workload                LowCardinality(String),
    client_workload_kind           LowCardinality(String),
    client_name                    LowCardinality(String),
    client_node                    LowCardinality(String),
    client_ip                      IPv6 CODEC(ZSTD(1)),
    client_real_ip                 IPv6 CODEC(ZSTD(1)),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    server_namespace               LowCardinality(String),
    server_workload                LowCardinality(String),
    server_workload_kind           LowCardinality(String),
    server_name                    LowCardinality(String),
    server_node                    LowCardinality(String),
    server_ip                      IPv6 CODEC(ZSTD(1)),
    server_real_ip                 IPv6 CODEC(ZSTD(1)),
    server_port                    UInt16 CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String),
    service_name                   LowCardinality(String),
    direction_inferred             Bool,
    records                        UInt64 COMMENT 'primary rows of flows that were summed' CODEC(T64, ZSTD(1)),
    first_seen                     SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    last_seen                      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    open_at_start                  UInt64 COMMENT 'open when the day began' CODEC(T64, ZSTD(1)),
    sent_bytes                     UInt64 CODEC(T64, ZSTD(1)),
    sent_payload_bytes             UInt64 CODEC(T64, ZSTD(1)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(1)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_bytes                 UInt64 CODEC(T64, ZSTD(1)),
    received_payload_bytes         UInt64 CODEC(T64, ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(1)),
    received_retransmitted_packets UInt64 CODEC(T64, ZSTD(1)),
    received_zero_window_packets   UInt64 CODEC(T64, ZSTD(1)),
    opened                         UInt64 CODEC(T64, ZSTD(1)),
    joined                         UInt64 CODEC(T64, ZSTD(1)),
    closed_fin                     UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_client         UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_server         UInt64 CODEC(T64, ZSTD(1)),
    closed_refused                 UInt64 CODEC(T64, ZSTD(1)),
    closed_unanswered              UInt64 CODEC(T64, ZSTD(1)),
    closed_idle                    UInt64 CODEC(T64, ZSTD(1)),
    closed_superseded              UInt64 CODEC(T64, ZSTD(1)),
    closed_evicted                 UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_us               UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_count            UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    syn_to_synack_buckets          SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_us              UInt64 CODEC(T64, ZSTD(1)),
    first_response_count           UInt64 CODEC(T64, ZSTD(1)),
    first_response_max_us          SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_buckets         SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    duration_us                    UInt64 CODEC(T64, ZSTD(1)),
    duration_count                 UInt64 CODEC(T64, ZSTD(1)),
    duration_max_us                SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(start)
PRIMARY KEY (toMonday(start), client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (toMonday(start), client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, server_port, service_namespace, service_name, client_kind, client_workload_kind, client_node, client_ip, client_real_ip, server_kind, server_workload_kind, server_node, server_ip, server_real_ip, server_real_port, direction_inferred, start)
TTL start + INTERVAL 2 YEAR
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS edges_1d ON CLUSTER `main` AS edges_1d_local
ENGINE = Distributed('main', 'flowtrail', 'edges_1d_local', rand());

-- 0007_edges_1w.sql
CREATE TABLE IF NOT EXISTS edges_1w_local ON CLUSTER `main`
(
    start                          DateTime('UTC') COMMENT 'start of the week: Monday 00:00' CODEC(DoubleDelta, ZSTD(1)),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    client_namespace               LowCardinality(String),
    client_workload                LowCardinality(String),
    client_workload_kind           LowCardinality(String),
    client_name                    LowCardinality(String),
    client_node                    LowCardinality(String),
    client_ip                      IPv6 CODEC(ZSTD(1)),
    client_real_ip                 IPv6 CODEC(ZSTD(1)),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    server_namespace               LowCardinality(String),
    server_workload                LowCardinality(String),
    server_workload_kind           LowCardinality(String),
    server_name                    LowCardinality(String),
    server_node                    LowCardinality(String),
    server_ip                      IPv6 CODEC(ZSTD(1)),
    server_real_ip                 IPv6 CODEC(ZSTD(1)),
    server_port                    UInt16 CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String),
    service_name                   LowCardinality(String),
    direction_inferred             Bool,
    records                        UInt64 COMMENT 'primary rows of flows that were summed' CODEC(T64, ZSTD(1)),
    first_seen                     SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    last_seen                      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    open_at_start                  UInt64 COMMENT 'open when the week began' CODEC(T64, ZSTD(1)),
    sent_bytes                     UInt64 CODEC(T64, ZSTD(1)),
    sent_payload_bytes             UInt64 CODEC(T64, ZSTD(1)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(1)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_bytes                 UInt64 CODEC(T64, ZSTD(1)),
    received_payload_bytes         UInt64 CODEC(T64, ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(1)),
    received_retransmitted_packets UInt64 CODEC(T64, ZSTD(1)),
    received_zero_window_packets   UInt64 CODEC(T64, ZSTD(1)),
    opened                         UInt64 CODEC(T64, ZSTD(1)),
    joined                         UInt64 CODEC(T64, ZSTD(1)),
    closed_fin                     UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_client         UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_server         UInt64 CODEC(T64, ZSTD(1)),
    closed_refused                 UInt64 CODEC(T64, ZSTD(1)),
    closed_unanswered              UInt64 CODEC(T64, ZSTD(1)),
    closed_idle                    UInt64 CODEC(T64, ZSTD(1)),
    closed_superseded              UInt64 CODEC(T64, ZSTD(1)),
    closed_evicted                 UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_us               UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_count            UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    syn_to_synack_buckets          SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_us              UInt64 CODEC(T64, ZSTD(1)),
    first_response_count           UInt64 CODEC(T64, ZSTD(1)),
    first_response_max_us          SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_buckets         SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    duration_us                    UInt64 CODEC(T64, ZSTD(1)),
    duration_count                 UInt64 CODEC(T64, ZSTD(1)),
    duration_max_us                SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(start)
PRIMARY KEY (client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, server_port, service_namespace, service_name, client_kind, client_workload_kind, client_node, client_ip, client_real_ip, server_kind, server_workload_kind, server_node, server_ip, server_real_ip, server_real_port, direction_inferred, start)
TTL start + INTERVAL 2 YEAR
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS edges_1w ON CLUSTER `main` AS edges_1w_local
ENGINE = Distributed('main', 'flowtrail', 'edges_1w_local', rand());

-- 0008_workload_edges_1h.sql
CREATE TABLE IF NOT EXISTS workload_edges_1h_local ON CLUSTER `main`
(
    start                          DateTime('UTC') COMMENT 'start of the hour' CODEC(DoubleDelta, ZSTD(1)),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    client_namespace               LowCardinality(String),
    client_workload                LowCardinality(String),
    client_workload_kind           LowCardinality(String),
    client_name                    LowCardinality(String) COMMENT 'of an end without workload; else empty',
    client_real_ip                 IPv6 COMMENT 'of an end without workload; else ::' CODEC(ZSTD(1)),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    server_namespace               LowCardinality(String),
    server_workload                LowCardinality(String),
    server_workload_kind           LowCardinality(String),
    server_name                    LowCardinality(String) COMMENT 'of an end without workload; else empty',
    server_real_ip                 IPv6 COMMENT 'of an end without workload; else ::' CODEC(ZSTD(1)),
    server_port                    UInt16 CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String),
    service_name                   LowCardinality(String),
    direction_inferred             Bool,
    records                        UInt64 COMMENT 'primary rows of flows that were summed' CODEC(T64, ZSTD(1)),
    first_seen                     SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    last_seen                      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    open_at_start                  UInt64 COMMENT 'open when the hour began' CODEC(T64, ZSTD(1)),
    sent_bytes                     UInt64 CODEC(T64, ZSTD(1)),
    sent_payload_bytes             UInt64 CODEC(T64, ZSTD(1)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(1)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_bytes                 UInt64 CODEC(T64, ZSTD(1)),
    received_payload_bytes         UInt64 CODEC(T64, ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(1)),
    received_retransmitted_packets UInt64 CODEC(T64, ZSTD(1)),
    received_zero_window_packets   UInt64 CODEC(T64, ZSTD(1)),
    opened                         UInt64 CODEC(T64, ZSTD(1)),
    joined                         UInt64 CODEC(T64, ZSTD(1)),
    closed_fin                     UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_client         UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_server         UInt64 CODEC(T64, ZSTD(1)),
    closed_refused                 UInt64 CODEC(T64, ZSTD(1)),
    closed_unanswered              UInt64 CODEC(T64, ZSTD(1)),
    closed_idle                    UInt64 CODEC(T64, ZSTD(1)),
    closed_superseded              UInt64 CODEC(T64, ZSTD(1)),
    closed_evicted                 UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_us               UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_count            UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    syn_to_synack_buckets          SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_us              UInt64 CODEC(T64, ZSTD(1)),
    first_response_count           UInt64 CODEC(T64, ZSTD(1)),
    first_response_max_us          SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_buckets         SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    duration_us                    UInt64 CODEC(T64, ZSTD(1)),
    duration_count                 UInt64 CODEC(T64, ZSTD(1)),
    duration_max_us                SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(start)
PRIMARY KEY (toDate(start), client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (toDate(start), client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, server_port, service_namespace, service_name, client_kind, client_workload_kind, client_real_ip, server_kind, server_workload_kind, server_real_ip, server_real_port, direction_inferred, start)
TTL start + INTERVAL 2 YEAR
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS workload_edges_1h ON CLUSTER `main` AS workload_edges_1h_local
ENGINE = Distributed('main', 'flowtrail', 'workload_edges_1h_local', rand());

-- 0009_workload_edges_1d.sql
CREATE TABLE IF NOT EXISTS workload_edges_1d_local ON CLUSTER `main`
(
    start                          DateTime('UTC') COMMENT 'start of the day' CODEC(DoubleDelta, ZSTD(1)),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    client_namespace               LowCardinality(String),
    client_workload                LowCardinality(String),
    client_workload_kind           LowCardinality(String),
    client_name                    LowCardinality(String) COMMENT 'of an end without workload; else empty',
    client_real_ip                 IPv6 COMMENT 'of an end without workload; else ::' CODEC(ZSTD(1)),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    server_namespace               LowCardinality(String),
    server_workload                LowCardinality(String),
    server_workload_kind           LowCardinality(String),
    server_name                    LowCardinality(String) COMMENT 'of an end without workload; else empty',
    server_real_ip                 IPv6 COMMENT 'of an end without workload; else ::' CODEC(ZSTD(1)),
    server_port                    UInt16 CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String),
    service_name                   LowCardinality(String),
    direction_inferred             Bool,
    records                        UInt64 COMMENT 'primary rows of flows that were summed' CODEC(T64, ZSTD(1)),
    first_seen                     SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    last_seen                      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    open_at_start                  UInt64 COMMENT 'open when the day began' CODEC(T64, ZSTD(1)),
    sent_bytes                     UInt64 CODEC(T64, ZSTD(1)),
    sent_payload_bytes             UInt64 CODEC(T64, ZSTD(1)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(1)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_bytes                 UInt64 CODEC(T64, ZSTD(1)),
    received_payload_bytes         UInt64 CODEC(T64, ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(1)),
    received_retransmitted_packets UInt64 CODEC(T64, ZSTD(1)),
    received_zero_window_packets   UInt64 CODEC(T64, ZSTD(1)),
    opened                         UInt64 CODEC(T64, ZSTD(1)),
    joined                         UInt64 CODEC(T64, ZSTD(1)),
    closed_fin                     UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_client         UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_server         UInt64 CODEC(T64, ZSTD(1)),
    closed_refused                 UInt64 CODEC(T64, ZSTD(1)),
    closed_unanswered              UInt64 CODEC(T64, ZSTD(1)),
    closed_idle                    UInt64 CODEC(T64, ZSTD(1)),
    closed_superseded              UInt64 CODEC(T64, ZSTD(1)),
    closed_evicted                 UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_us               UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_count            UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    syn_to_synack_buckets          SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_us              UInt64 CODEC(T64, ZSTD(1)),
    first_response_count           UInt64 CODEC(T64, ZSTD(1)),
    first_response_max_us          SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_buckets         SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    duration_us                    UInt64 CODEC(T64, ZSTD(1)),
    duration_count                 UInt64 CODEC(T64, ZSTD(1)),
    duration_max_us                SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(start)
PRIMARY KEY (toMonday(start), client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (toMonday(start), client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, server_port, service_namespace, service_name, client_kind, client_workload_kind, client_real_ip, server_kind, server_workload_kind, server_real_ip, server_real_port, direction_inferred, start)
TTL start + INTERVAL 2 YEAR
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS workload_edges_1d ON CLUSTER `main` AS workload_edges_1d_local
ENGINE = Distributed('main', 'flowtrail', 'workload_edges_1d_local', rand());

-- 0010_workload_edges_1w.sql
CREATE TABLE IF NOT EXISTS workload_edges_1w_local ON CLUSTER `main`
(
    start                          DateTime('UTC') COMMENT 'start of the week: Monday 00:00' CODEC(DoubleDelta, ZSTD(1)),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    client_namespace               LowCardinality(String),
    client_workload                LowCardinality(String),
    client_workload_kind           LowCardinality(String),
    client_name                    LowCardinality(String) COMMENT 'of an end without workload; else empty',
    client_real_ip                 IPv6 COMMENT 'of an end without workload; else ::' CODEC(ZSTD(1)),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    server_namespace               LowCardinality(String),
    server_workload                LowCardinality(String),
    server_workload_kind           LowCardinality(String),
    server_name                    LowCardinality(String) COMMENT 'of an end without workload; else empty',
    server_real_ip                 IPv6 COMMENT 'of an end without workload; else ::' CODEC(ZSTD(1)),
    server_port                    UInt16 CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String),
    service_name                   LowCardinality(String),
    direction_inferred             Bool,
    records                        UInt64 COMMENT 'primary rows of flows that were summed' CODEC(T64, ZSTD(1)),
    first_seen                     SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    last_seen                      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(T64, ZSTD(1)),
    open_at_start                  UInt64 COMMENT 'open when the week began' CODEC(T64, ZSTD(1)),
    sent_bytes                     UInt64 CODEC(T64, ZSTD(1)),
    sent_payload_bytes             UInt64 CODEC(T64, ZSTD(1)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(1)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_bytes                 UInt64 CODEC(T64, ZSTD(1)),
    received_payload_bytes         UInt64 CODEC(T64, ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(1)),
    received_retransmitted_packets UInt64 CODEC(T64, ZSTD(1)),
    received_zero_window_packets   UInt64 CODEC(T64, ZSTD(1)),
    opened                         UInt64 CODEC(T64, ZSTD(1)),
    joined                         UInt64 CODEC(T64, ZSTD(1)),
    closed_fin                     UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_client         UInt64 CODEC(T64, ZSTD(1)),
    closed_reset_by_server         UInt64 CODEC(T64, ZSTD(1)),
    closed_refused                 UInt64 CODEC(T64, ZSTD(1)),
    closed_unanswered              UInt64 CODEC(T64, ZSTD(1)),
    closed_idle                    UInt64 CODEC(T64, ZSTD(1)),
    closed_superseded              UInt64 CODEC(T64, ZSTD(1)),
    closed_evicted                 UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_us               UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_count            UInt64 CODEC(T64, ZSTD(1)),
    syn_to_synack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    syn_to_synack_buckets          SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_us              UInt64 CODEC(T64, ZSTD(1)),
    first_response_count           UInt64 CODEC(T64, ZSTD(1)),
    first_response_max_us          SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    first_response_buckets         SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) COMMENT 'samples by bucket: bucket i holds [1.1^i, 1.1^(i+1)) microseconds' CODEC(ZSTD(1)),
    duration_us                    UInt64 CODEC(T64, ZSTD(1)),
    duration_count                 UInt64 CODEC(T64, ZSTD(1)),
    duration_max_us                SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(start)
PRIMARY KEY (client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, server_port, service_namespace, service_name, client_kind, client_workload_kind, client_real_ip, server_kind, server_workload_kind, server_real_ip, server_real_port, direction_inferred, start)
TTL start + INTERVAL 2 YEAR
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS workload_edges_1w ON CLUSTER `main` AS workload_edges_1w_local
ENGINE = Distributed('main', 'flowtrail', 'workload_edges_1w_local', rand());

-- 0011_coverage_1h.sql
CREATE TABLE IF NOT EXISTS coverage_1h_local ON CLUSTER `main`
(
    start           DateTime('UTC') COMMENT 'start of the hour' CODEC(DoubleDelta, ZSTD(1)),
    agent           LowCardinality(String),
    reported_until  SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'end of the latest interval reported on' CODEC(DoubleDelta, ZSTD(1)),
    intervals       AggregateFunction(groupBitmap, UInt16) COMMENT 'starts of the intervals reported on, seconds after the hour''s' CODEC(ZSTD(1)),
    packets_dropped SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    records_dropped SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(start)
ORDER BY (start, agent)
TTL start + INTERVAL 2 YEAR
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS coverage_1h ON CLUSTER `main` AS coverage_1h_local
ENGINE = Distributed('main', 'flowtrail', 'coverage_1h_local', rand());

-- 0012_edges_1m_view.sql
CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1m_view ON CLUSTER `main` TO edges_1m_local AS
SELECT
    toStartOfMinute(interval_start) AS start,
    client_kind,
    client_namespace,
    client_workload,
    client_workload_kind,
    client_name,
    client_node,
    client_ip,
    client_real_ip,
    server_kind,
    server_namespace,
    server_workload,
    server_workload_kind,
    server_name,
    server_node,
    server_ip,
    server_real_ip,
    server_port,
    server_real_port,
    service_namespace,
    service_name,
    direction_inferred,
    count() AS records,
    toDateTime64(min(flows.first_seen), 3, 'UTC') AS first_seen,
    toDateTime64(max(flows.last_seen), 3, 'UTC') AS last_seen,
    sumIf(flows.open_at_start, interval_start = toStartOfMinute(interval_start)) AS open_at_start,
    sum(flows.sent_bytes) AS sent_bytes,
    sum(flows.sent_payload_bytes) AS sent_payload_bytes,
    sum(flows.sent_packets) AS sent_packets,
    sum(flows.sent_retransmitted_packets) AS sent_retransmitted_packets,
    sum(flows.sent_zero_window_packets) AS sent_zero_window_packets,
    sum(flows.received_bytes) AS received_bytes,
    sum(flows.received_payload_bytes) AS received_payload_bytes,
    sum(flows.received_packets) AS received_packets,
    sum(flows.received_retransmitted_packets) AS received_retransmitted_packets,
    sum(flows.received_zero_window_packets) AS received_zero_window_packets,
    sum(flows.opened) AS opened,
    sum(flows.joined) AS joined,
    sum(flows.closed_fin) AS closed_fin,
    sum(flows.closed_reset_by_client) AS closed_reset_by_client,
    sum(flows.closed_reset_by_server) AS closed_reset_by_server,
    sum(flows.closed_refused) AS closed_refused,
    sum(flows.closed_unanswered) AS closed_unanswered,
    sum(flows.closed_idle) AS closed_idle,
    sum(flows.closed_superseded) AS closed_superseded,
    sum(flows.closed_evicted) AS closed_evicted,
    sum(flows.syn_to_synack_us) AS syn_to_synack_us,
    sum(flows.syn_to_synack_count) AS syn_to_synack_count,
    max(flows.syn_to_synack_max_us) AS syn_to_synack_max_us,
    sumMapIf(map(toUInt16(floor(log(greatest(intDiv(flows.syn_to_synack_us, greatest(flows.syn_to_synack_count, 1)), 1)) / log(1.1))), toUInt64(flows.syn_to_synack_count)), flows.syn_to_synack_count > 0) AS syn_to_synack_buckets,
    sum(flows.synack_to_ack_us) AS synack_to_ack_us,
    sum(flows.synack_to_ack_count) AS synack_to_ack_count,
    max(flows.synack_to_ack_max_us) AS synack_to_ack_max_us,
    sum(flows.first_response_us) AS first_response_us,
    sum(flows.first_response_count) AS first_response_count,
    max(flows.first_response_max_us) AS first_response_max_us,
    sumMapIf(map(toUInt16(floor(log(greatest(intDiv(flows.first_response_us, greatest(flows.first_response_count, 1)), 1)) / log(1.1))), toUInt64(flows.first_response_count)), flows.first_response_count > 0) AS first_response_buckets,
    sum(flows.duration_us) AS duration_us,
    sum(flows.duration_count) AS duration_count,
    max(flows.duration_max_us) AS duration_max_us
FROM flows_local AS flows
WHERE primary
GROUP BY start, client_kind, client_namespace, client_workload, client_workload_kind, client_name, client_node, client_ip, client_real_ip, server_kind, server_namespace, server_workload, server_workload_kind, server_name, server_node, server_ip, server_real_ip, server_port, server_real_port, service_namespace, service_name, direction_inferred;

-- 0013_edges_1h_view.sql
CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1h_view ON CLUSTER `main` TO edges_1h_local AS
SELECT
    toStartOfHour(edges_1m.start) AS start,
    client_kind,
    client_namespace,
    client_workload,
    client_workload_kind,
    client_name,
    client_node,
    client_ip,
    client_real_ip,
    server_kind,
    server_namespace,
    server_workload,
    server_workload_kind,
    server_name,
    server_node,
    server_ip,
    server_real_ip,
    server_port,
    server_real_port,
    service_namespace,
    service_name,
    direction_inferred,
    sum(edges_1m.records) AS records,
    min(edges_1m.first_seen) AS first_seen,
    max(edges_1m.last_seen) AS last_seen,
    sumIf(edges_1m.open_at_start, edges_1m.start = toStartOfHour(edges_1m.start)) AS open_at_start,
    sum(edges_1m.sent_bytes) AS sent_bytes,
    sum(edges_1m.sent_payload_bytes) AS sent_payload_bytes,
    sum(edges_1m.sent_packets) AS sent_packets,
    sum(edges_1m.sent_retransmitted_packets) AS sent_retransmitted_packets,
    sum(edges_1m.sent_zero_window_packets) AS sent_zero_window_packets,
    sum(edges_1m.received_bytes) AS received_bytes,
    sum(edges_1m.received_payload_bytes) AS received_payload_bytes,
    sum(edges_1m.received_packets) AS received_packets,
    sum(edges_1m.received_retransmitted_packets) AS received_retransmitted_packets,
    sum(edges_1m.received_zero_window_packets) AS received_zero_window_packets,
    sum(edges_1m.opened) AS opened,
    sum(edges_1m.joined) AS joined,
    sum(edges_1m.closed_fin) AS closed_fin,
    sum(edges_1m.closed_reset_by_client) AS closed_reset_by_client,
    sum(edges_1m.closed_reset_by_server) AS closed_reset_by_server,
    sum(edges_1m.closed_refused) AS closed_refused,
    sum(edges_1m.closed_unanswered) AS closed_unanswered,
    sum(edges_1m.closed_idle) AS closed_idle,
    sum(edges_1m.closed_superseded) AS closed_superseded,
    sum(edges_1m.closed_evicted) AS closed_evicted,
    sum(edges_1m.syn_to_synack_us) AS syn_to_synack_us,
    sum(edges_1m.syn_to_synack_count) AS syn_to_synack_count,
    max(edges_1m.syn_to_synack_max_us) AS syn_to_synack_max_us,
    sumMap(edges_1m.syn_to_synack_buckets) AS syn_to_synack_buckets,
    sum(edges_1m.synack_to_ack_us) AS synack_to_ack_us,
    sum(edges_1m.synack_to_ack_count) AS synack_to_ack_count,
    max(edges_1m.synack_to_ack_max_us) AS synack_to_ack_max_us,
    sum(edges_1m.first_response_us) AS first_response_us,
    sum(edges_1m.first_response_count) AS first_response_count,
    max(edges_1m.first_response_max_us) AS first_response_max_us,
    sumMap(edges_1m.first_response_buckets) AS first_response_buckets,
    sum(edges_1m.duration_us) AS duration_us,
    sum(edges_1m.duration_count) AS duration_count,
    max(edges_1m.duration_max_us) AS duration_max_us
FROM edges_1m_local AS edges_1m
GROUP BY start, client_kind, client_namespace, client_workload, client_workload_kind, client_name, client_node, client_ip, client_real_ip, server_kind, server_namespace, server_workload, server_workload_kind, server_name, server_node, server_ip, server_real_ip, server_port, server_real_port, service_namespace, service_name, direction_inferred;

-- 0014_edges_1d_view.sql
CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1d_view ON CLUSTER `main` TO edges_1d_local AS
SELECT
    toStartOfDay(edges_1h.start) AS start,
    client_kind,
    client_namespace,
    client_workload,
    client_workload_kind,
    client_name,
    client_node,
    client_ip,
    client_real_ip,
    server_kind,
    server_namespace,
    server_workload,
    server_workload_kind,
    server_name,
    server_node,
    server_ip,
    server_real_ip,
    server_port,
    server_real_port,
    service_namespace,
    service_name,
    direction_inferred,
    sum(edges_1h.records) AS records,
    min(edges_1h.first_seen) AS first_seen,
    max(edges_1h.last_seen) AS last_seen,
    sumIf(edges_1h.open_at_start, edges_1h.start = toStartOfDay(edges_1h.start)) AS open_at_start,
    sum(edges_1h.sent_bytes) AS sent_bytes,
    sum(edges_1h.sent_payload_bytes) AS sent_payload_bytes,
    sum(edges_1h.sent_packets) AS sent_packets,
    sum(edges_1h.sent_retransmitted_packets) AS sent_retransmitted_packets,
    sum(edges_1h.sent_zero_window_packets) AS sent_zero_window_packets,
    sum(edges_1h.received_bytes) AS received_bytes,
    sum(edges_1h.received_payload_bytes) AS received_payload_bytes,
    sum(edges_1h.received_packets) AS received_packets,
    sum(edges_1h.received_retransmitted_packets) AS received_retransmitted_packets,
    sum(edges_1h.received_zero_window_packets) AS received_zero_window_packets,
    sum(edges_1h.opened) AS opened,
    sum(edges_1h.joined) AS joined,
    sum(edges_1h.closed_fin) AS closed_fin,
    sum(edges_1h.closed_reset_by_client) AS closed_reset_by_client,
    sum(edges_1h.closed_reset_by_server) AS closed_reset_by_server,
    sum(edges_1h.closed_refused) AS closed_refused,
    sum(edges_1h.closed_unanswered) AS closed_unanswered,
    sum(edges_1h.closed_idle) AS closed_idle,
    sum(edges_1h.closed_superseded) AS closed_superseded,
    sum(edges_1h.closed_evicted) AS closed_evicted,
    sum(edges_1h.syn_to_synack_us) AS syn_to_synack_us,
    sum(edges_1h.syn_to_synack_count) AS syn_to_synack_count,
    max(edges_1h.syn_to_synack_max_us) AS syn_to_synack_max_us,
    sumMap(edges_1h.syn_to_synack_buckets) AS syn_to_synack_buckets,
    sum(edges_1h.synack_to_ack_us) AS synack_to_ack_us,
    sum(edges_1h.synack_to_ack_count) AS synack_to_ack_count,
    max(edges_1h.synack_to_ack_max_us) AS synack_to_ack_max_us,
    sum(edges_1h.first_response_us) AS first_response_us,
    sum(edges_1h.first_response_count) AS first_response_count,
    max(edges_1h.first_response_max_us) AS first_response_max_us,
    sumMap(edges_1h.first_response_buckets) AS first_response_buckets,
    sum(edges_1h.duration_us) AS duration_us,
    sum(edges_1h.duration_count) AS duration_count,
    max(edges_1h.duration_max_us) AS duration_max_us
FROM edges_1h_local AS edges_1h
GROUP BY start, client_kind, client_namespace, client_workload, client_workload_kind, client_name, client_node, client_ip, client_real_ip, server_kind, server_namespace, server_workload, server_workload_kind, server_name, server_node, server_ip, server_real_ip, server_port, server_real_port, service_namespace, service_name, direction_inferred;

-- 0015_edges_1w_view.sql
CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1w_view ON CLUSTER `main` TO edges_1w_local AS
SELECT
    toDateTime(toMonday(edges_1d.start), 'UTC') AS start,
    client_kind,
    client_namespace,
    client_workload,
    client_workload_kind,
    client_name,
    client_node,
    client_ip,
    client_real_ip,
    server_kind,
    server_namespace,
    server_workload,
    server_workload_kind,
    server_name,
    server_node,
    server_ip,
    server_real_ip,
    server_port,
    server_real_port,
    service_namespace,
    service_name,
    direction_inferred,
    sum(edges_1d.records) AS records,
    min(edges_1d.first_seen) AS first_seen,
    max(edges_1d.last_seen) AS last_seen,
    sumIf(edges_1d.open_at_start, edges_1d.start = toDateTime(toMonday(edges_1d.start), 'UTC')) AS open_at_start,
    sum(edges_1d.sent_bytes) AS sent_bytes,
    sum(edges_1d.sent_payload_bytes) AS sent_payload_bytes,
    sum(edges_1d.sent_packets) AS sent_packets,
    sum(edges_1d.sent_retransmitted_packets) AS sent_retransmitted_packets,
    sum(edges_1d.sent_zero_window_packets) AS sent_zero_window_packets,
    sum(edges_1d.received_bytes) AS received_bytes,
    sum(edges_1d.received_payload_bytes) AS received_payload_bytes,
    sum(edges_1d.received_packets) AS received_packets,
    sum(edges_1d.received_retransmitted_packets) AS received_retransmitted_packets,
    sum(edges_1d.received_zero_window_packets) AS received_zero_window_packets,
    sum(edges_1d.opened) AS opened,
    sum(edges_1d.joined) AS joined,
    sum(edges_1d.closed_fin) AS closed_fin,
    sum(edges_1d.closed_reset_by_client) AS closed_reset_by_client,
    sum(edges_1d.closed_reset_by_server) AS closed_reset_by_server,
    sum(edges_1d.closed_refused) AS closed_refused,
    sum(edges_1d.closed_unanswered) AS closed_unanswered,
    sum(edges_1d.closed_idle) AS closed_idle,
    sum(edges_1d.closed_superseded) AS closed_superseded,
    sum(edges_1d.closed_evicted) AS closed_evicted,
    sum(edges_1d.syn_to_synack_us) AS syn_to_synack_us,
    sum(edges_1d.syn_to_synack_count) AS syn_to_synack_count,
    max(edges_1d.syn_to_synack_max_us) AS syn_to_synack_max_us,
    sumMap(edges_1d.syn_to_synack_buckets) AS syn_to_synack_buckets,
    sum(edges_1d.synack_to_ack_us) AS synack_to_ack_us,
    sum(edges_1d.synack_to_ack_count) AS synack_to_ack_count,
    max(edges_1d.synack_to_ack_max_us) AS synack_to_ack_max_us,
    sum(edges_1d.first_response_us) AS first_response_us,
    sum(edges_1d.first_response_count) AS first_response_count,
    max(edges_1d.first_response_max_us) AS first_response_max_us,
    sumMap(edges_1d.first_response_buckets) AS first_response_buckets,
    sum(edges_1d.duration_us) AS duration_us,
    sum(edges_1d.duration_count) AS duration_count,
    max(edges_1d.duration_max_us) AS duration_max_us
FROM edges_1d_local AS edges_1d
GROUP BY start, client_kind, client_namespace, client_workload, client_workload_kind, client_name, client_node, client_ip, client_real_ip, server_kind, server_namespace, server_workload, server_workload_kind, server_name, server_node, server_ip, server_real_ip, server_port, server_real_port, service_namespace, service_name, direction_inferred;

-- 0016_workload_edges_1h_view.sql
CREATE MATERIALIZED VIEW IF NOT EXISTS workload_edges_1h_view ON CLUSTER `main` TO workload_edges_1h_local AS
SELECT
    toStartOfHour(edges_1h.start) AS start,
    edges_1h.client_kind AS client_kind,
    edges_1h.client_namespace AS client_namespace,
    edges_1h.client_workload AS client_workload,
    edges_1h.client_workload_kind AS client_workload_kind,
    if(edges_1h.client_workload = '', edges_1h.client_name, '') AS client_name,
    if(edges_1h.client_workload = '', edges_1h.client_real_ip, toIPv6('::')) AS client_real_ip,
    edges_1h.server_kind AS server_kind,
    edges_1h.server_namespace AS server_namespace,
    edges_1h.server_workload AS server_workload,
    edges_1h.server_workload_kind AS server_workload_kind,
    if(edges_1h.server_workload = '', edges_1h.server_name, '') AS server_name,
    if(edges_1h.server_workload = '', edges_1h.server_real_ip, toIPv6('::')) AS server_real_ip,
    edges_1h.server_port AS server_port,
    edges_1h.server_real_port AS server_real_port,
    edges_1h.service_namespace AS service_namespace,
    edges_1h.service_name AS service_name,
    edges_1h.direction_inferred AS direction_inferred,
    sum(edges_1h.records) AS records,
    min(edges_1h.first_seen) AS first_seen,
    max(edges_1h.last_seen) AS last_seen,
    sumIf(edges_1h.open_at_start, edges_1h.start = toStartOfHour(edges_1h.start)) AS open_at_start,
    sum(edges_1h.sent_bytes) AS sent_bytes,
    sum(edges_1h.sent_payload_bytes) AS sent_payload_bytes,
    sum(edges_1h.sent_packets) AS sent_packets,
    sum(edges_1h.sent_retransmitted_packets) AS sent_retransmitted_packets,
    sum(edges_1h.sent_zero_window_packets) AS sent_zero_window_packets,
    sum(edges_1h.received_bytes) AS received_bytes,
    sum(edges_1h.received_payload_bytes) AS received_payload_bytes,
    sum(edges_1h.received_packets) AS received_packets,
    sum(edges_1h.received_retransmitted_packets) AS received_retransmitted_packets,
    sum(edges_1h.received_zero_window_packets) AS received_zero_window_packets,
    sum(edges_1h.opened) AS opened,
    sum(edges_1h.joined) AS joined,
    sum(edges_1h.closed_fin) AS closed_fin,
    sum(edges_1h.closed_reset_by_client) AS closed_reset_by_client,
    sum(edges_1h.closed_reset_by_server) AS closed_reset_by_server,
    sum(edges_1h.closed_refused) AS closed_refused,
    sum(edges_1h.closed_unanswered) AS closed_unanswered,
    sum(edges_1h.closed_idle) AS closed_idle,
    sum(edges_1h.closed_superseded) AS closed_superseded,
    sum(edges_1h.closed_evicted) AS closed_evicted,
    sum(edges_1h.syn_to_synack_us) AS syn_to_synack_us,
    sum(edges_1h.syn_to_synack_count) AS syn_to_synack_count,
    max(edges_1h.syn_to_synack_max_us) AS syn_to_synack_max_us,
    sumMap(edges_1h.syn_to_synack_buckets) AS syn_to_synack_buckets,
    sum(edges_1h.synack_to_ack_us) AS synack_to_ack_us,
    sum(edges_1h.synack_to_ack_count) AS synack_to_ack_count,
    max(edges_1h.synack_to_ack_max_us) AS synack_to_ack_max_us,
    sum(edges_1h.first_response_us) AS first_response_us,
    sum(edges_1h.first_response_count) AS first_response_count,
    max(edges_1h.first_response_max_us) AS first_response_max_us,
    sumMap(edges_1h.first_response_buckets) AS first_response_buckets,
    sum(edges_1h.duration_us) AS duration_us,
    sum(edges_1h.duration_count) AS duration_count,
    max(edges_1h.duration_max_us) AS duration_max_us
FROM edges_1h_local AS edges_1h
GROUP BY start, client_kind, client_namespace, client_workload, client_workload_kind, client_name, client_real_ip, server_kind, server_namespace, server_workload, server_workload_kind, server_name, server_real_ip, server_port, server_real_port, service_namespace, service_name, direction_inferred;

-- 0017_workload_edges_1d_view.sql
CREATE MATERIALIZED VIEW IF NOT EXISTS workload_edges_1d_view ON CLUSTER `main` TO workload_edges_1d_local AS
SELECT
    toStartOfDay(workload_edges_1h.start) AS start,
    client_kind,
    client_namespace,
    client_workload,
    client_workload_kind,
    client_name,
    client_real_ip,
    server_kind,
    server_namespace,
    server_workload,
    server_workload_kind,
    server_name,
    server_real_ip,
    server_port,
    server_real_port,
    service_namespace,
    service_name,
    direction_inferred,
    sum(workload_edges_1h.records) AS records,
    min(workload_edges_1h.first_seen) AS first_seen,
    max(workload_edges_1h.last_seen) AS last_seen,
    sumIf(workload_edges_1h.open_at_start, workload_edges_1h.start = toStartOfDay(workload_edges_1h.start)) AS open_at_start,
    sum(workload_edges_1h.sent_bytes) AS sent_bytes,
    sum(workload_edges_1h.sent_payload_bytes) AS sent_payload_bytes,
    sum(workload_edges_1h.sent_packets) AS sent_packets,
    sum(workload_edges_1h.sent_retransmitted_packets) AS sent_retransmitted_packets,
    sum(workload_edges_1h.sent_zero_window_packets) AS sent_zero_window_packets,
    sum(workload_edges_1h.received_bytes) AS received_bytes,
    sum(workload_edges_1h.received_payload_bytes) AS received_payload_bytes,
    sum(workload_edges_1h.received_packets) AS received_packets,
    sum(workload_edges_1h.received_retransmitted_packets) AS received_retransmitted_packets,
    sum(workload_edges_1h.received_zero_window_packets) AS received_zero_window_packets,
    sum(workload_edges_1h.opened) AS opened,
    sum(workload_edges_1h.joined) AS joined,
    sum(workload_edges_1h.closed_fin) AS closed_fin,
    sum(workload_edges_1h.closed_reset_by_client) AS closed_reset_by_client,
    sum(workload_edges_1h.closed_reset_by_server) AS closed_reset_by_server,
    sum(workload_edges_1h.closed_refused) AS closed_refused,
    sum(workload_edges_1h.closed_unanswered) AS closed_unanswered,
    sum(workload_edges_1h.closed_idle) AS closed_idle,
    sum(workload_edges_1h.closed_superseded) AS closed_superseded,
    sum(workload_edges_1h.closed_evicted) AS closed_evicted,
    sum(workload_edges_1h.syn_to_synack_us) AS syn_to_synack_us,
    sum(workload_edges_1h.syn_to_synack_count) AS syn_to_synack_count,
    max(workload_edges_1h.syn_to_synack_max_us) AS syn_to_synack_max_us,
    sumMap(workload_edges_1h.syn_to_synack_buckets) AS syn_to_synack_buckets,
    sum(workload_edges_1h.synack_to_ack_us) AS synack_to_ack_us,
    sum(workload_edges_1h.synack_to_ack_count) AS synack_to_ack_count,
    max(workload_edges_1h.synack_to_ack_max_us) AS synack_to_ack_max_us,
    sum(workload_edges_1h.first_response_us) AS first_response_us,
    sum(workload_edges_1h.first_response_count) AS first_response_count,
    max(workload_edges_1h.first_response_max_us) AS first_response_max_us,
    sumMap(workload_edges_1h.first_response_buckets) AS first_response_buckets,
    sum(workload_edges_1h.duration_us) AS duration_us,
    sum(workload_edges_1h.duration_count) AS duration_count,
    max(workload_edges_1h.duration_max_us) AS duration_max_us
FROM workload_edges_1h_local AS workload_edges_1h
GROUP BY start, client_kind, client_namespace, client_workload, client_workload_kind, client_name, client_real_ip, server_kind, server_namespace, server_workload, server_workload_kind, server_name, server_real_ip, server_port, server_real_port, service_namespace, service_name, direction_inferred;

-- 0018_workload_edges_1w_view.sql
CREATE MATERIALIZED VIEW IF NOT EXISTS workload_edges_1w_view ON CLUSTER `main` TO workload_edges_1w_local AS
SELECT
    toDateTime(toMonday(workload_edges_1d.start), 'UTC') AS start,
    client_kind,
    client_namespace,
    client_workload,
    client_workload_kind,
    client_name,
    client_real_ip,
    server_kind,
    server_namespace,
    server_workload,
    server_workload_kind,
    server_name,
    server_real_ip,
    server_port,
    server_real_port,
    service_namespace,
    service_name,
    direction_inferred,
    sum(workload_edges_1d.records) AS records,
    min(workload_edges_1d.first_seen) AS first_seen,
    max(workload_edges_1d.last_seen) AS last_seen,
    sumIf(workload_edges_1d.open_at_start, workload_edges_1d.start = toDateTime(toMonday(workload_edges_1d.start), 'UTC')) AS open_at_start,
    sum(workload_edges_1d.sent_bytes) AS sent_bytes,
    sum(workload_edges_1d.sent_payload_bytes) AS sent_payload_bytes,
    sum(workload_edges_1d.sent_packets) AS sent_packets,
    sum(workload_edges_1d.sent_retransmitted_packets) AS sent_retransmitted_packets,
    sum(workload_edges_1d.sent_zero_window_packets) AS sent_zero_window_packets,
    sum(workload_edges_1d.received_bytes) AS received_bytes,
    sum(workload_edges_1d.received_payload_bytes) AS received_payload_bytes,
    sum(workload_edges_1d.received_packets) AS received_packets,
    sum(workload_edges_1d.received_retransmitted_packets) AS received_retransmitted_packets,
    sum(workload_edges_1d.received_zero_window_packets) AS received_zero_window_packets,
    sum(workload_edges_1d.opened) AS opened,
    sum(workload_edges_1d.joined) AS joined,
    sum(workload_edges_1d.closed_fin) AS closed_fin,
    sum(workload_edges_1d.closed_reset_by_client) AS closed_reset_by_client,
    sum(workload_edges_1d.closed_reset_by_server) AS closed_reset_by_server,
    sum(workload_edges_1d.closed_refused) AS closed_refused,
    sum(workload_edges_1d.closed_unanswered) AS closed_unanswered,
    sum(workload_edges_1d.closed_idle) AS closed_idle,
    sum(workload_edges_1d.closed_superseded) AS closed_superseded,
    sum(workload_edges_1d.closed_evicted) AS closed_evicted,
    sum(workload_edges_1d.syn_to_synack_us) AS syn_to_synack_us,
    sum(workload_edges_1d.syn_to_synack_count) AS syn_to_synack_count,
    max(workload_edges_1d.syn_to_synack_max_us) AS syn_to_synack_max_us,
    sumMap(workload_edges_1d.syn_to_synack_buckets) AS syn_to_synack_buckets,
    sum(workload_edges_1d.synack_to_ack_us) AS synack_to_ack_us,
    sum(workload_edges_1d.synack_to_ack_count) AS synack_to_ack_count,
    max(workload_edges_1d.synack_to_ack_max_us) AS synack_to_ack_max_us,
    sum(workload_edges_1d.first_response_us) AS first_response_us,
    sum(workload_edges_1d.first_response_count) AS first_response_count,
    max(workload_edges_1d.first_response_max_us) AS first_response_max_us,
    sumMap(workload_edges_1d.first_response_buckets) AS first_response_buckets,
    sum(workload_edges_1d.duration_us) AS duration_us,
    sum(workload_edges_1d.duration_count) AS duration_count,
    max(workload_edges_1d.duration_max_us) AS duration_max_us
FROM workload_edges_1d_local AS workload_edges_1d
GROUP BY start, client_kind, client_namespace, client_workload, client_workload_kind, client_name, client_real_ip, server_kind, server_namespace, server_workload, server_workload_kind, server_name, server_real_ip, server_port, server_real_port, service_namespace, service_name, direction_inferred;

-- 0019_coverage_1h_view.sql
CREATE MATERIALIZED VIEW IF NOT EXISTS coverage_1h_view ON CLUSTER `main` TO coverage_1h_local AS
SELECT
    toStartOfHour(interval_start) AS start,
    agent,
    max(interval_start + interval_s) AS reported_until,
    groupBitmapState(toUInt16(interval_start - toStartOfHour(interval_start))) AS intervals,
    sum(coverage.packets_dropped) AS packets_dropped,
    sum(coverage.records_dropped) AS records_dropped
FROM coverage_local AS coverage
GROUP BY start, agent;

-- 0020_identities.sql
CREATE TABLE IF NOT EXISTS identities_local ON CLUSTER `main`
(
    address       IPv6 COMMENT 'IPv4 mapped; :: for a port of every node (NodePort)' CODEC(ZSTD(1)),
    port          UInt16 COMMENT 'of a hostNetwork pod, a host port or a NodePort; 0 for the whole address' CODEC(ZSTD(1)),
    uid           String COMMENT 'of the Kubernetes object' CODEC(ZSTD(1)),
    kind          SimpleAggregateFunction(anyLast, Enum8('pod' = 1, 'service' = 2, 'node' = 3)),
    namespace     SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    name          SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    node          SimpleAggregateFunction(anyLast, String) COMMENT 'node that the pod runs on' CODEC(ZSTD(1)),
    workload      SimpleAggregateFunction(anyLast, String) COMMENT 'top owner; of a Service, that of its endpoints' CODEC(ZSTD(1)),
    workload_kind SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    ports         SimpleAggregateFunction(anyLast, Array(UInt16)) COMMENT 'Service or container ports' CODEC(ZSTD(1)),
    start         SimpleAggregateFunction(min, DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    last_seen     SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'when it was last known for certain to be held' CODEC(ZSTD(1)),
    released      SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'when it was given up, or the object found missing; 0 if not' CODEC(ZSTD(1)),
    deleted       SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'when the object was deleted or finished; 0 if not' CODEC(ZSTD(1))
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
ORDER BY (address, port, uid)
TTL toDateTime(greatest(last_seen, released, deleted)) + INTERVAL 90 DAY;
CREATE TABLE IF NOT EXISTS identities ON CLUSTER `main` AS identities_local
ENGINE = Distributed('main', 'flowtrail', 'identities_local', cityHash64(address, port, uid));

-- 0021_identities_seen.sql
CREATE TABLE IF NOT EXISTS identities_seen_local ON CLUSTER `main`
(
    kind      Enum8('pod' = 1, 'service' = 2, 'node' = 3),
    last_seen SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}')
ORDER BY kind;
CREATE TABLE IF NOT EXISTS identities_seen ON CLUSTER `main` AS identities_seen_local
ENGINE = Distributed('main', 'flowtrail', 'identities_seen_local', cityHash64(kind));

-- 0022_flows_named.sql
CREATE VIEW IF NOT EXISTS flows_named ON CLUSTER `main` AS
SELECT
    interval_start AS time,
    primary,
    concat(if(client_namespace = '', '', concat(client_namespace, '/')), if(client_name = '', replaceRegexpOne(toString(client_real_ip), '^::ffff:([0-9]+[.])', '\\1'), client_name)) AS client,
    if(client_workload = '', client, concat(client_namespace, '/', client_workload)) AS client_workload_name,
    toString(client_kind) AS client_is,
    replaceRegexpOne(toString(client_ip), '^::ffff:([0-9]+[.])', '\\1') AS client_address,
    client_port,
    concat(if(server_namespace = '', '', concat(server_namespace, '/')), if(server_name = '', replaceRegexpOne(toString(server_real_ip), '^::ffff:([0-9]+[.])', '\\1'), server_name)) AS server,
    if(server_workload = '', server, concat(server_namespace, '/', server_workload)) AS server_workload_name,
    toString(server_kind) AS server_is,
    replaceRegexpOne(toString(server_ip), '^::ffff:([0-9]+[.])', '\\1') AS server_address,
    server_port,
    if(service_name = '', '', concat(service_namespace, '/', service_name)) AS service,
    opened + joined AS connections,
    opened,
    open_at_start,
    closed_refused + closed_unanswered AS failed,
    multiIf(closed_fin > 0, 'fin', closed_reset_by_client > 0, 'reset_by_client', closed_reset_by_server > 0, 'reset_by_server',
            closed_refused > 0, 'refused', closed_unanswered > 0, 'unanswered', closed_idle > 0, 'idle',
            closed_superseded > 0, 'superseded', closed_evicted > 0, 'evicted', '') AS closed,
    sent_bytes,
    received_bytes,
    sent_packets,
    received_packets,
    sent_retransmitted_packets + received_retransmitted_packets AS retransmitted_packets,
    if(syn_to_synack_count > 0, syn_to_synack_us / syn_to_synack_count / 1000, NULL) AS latency_ms,
    if(first_response_count > 0, first_response_us / first_response_count / 1000, NULL) AS first_response_ms,
    if(duration_count > 0, duration_us / duration_count / 1000000, NULL) AS duration_s,
    leftPad(hex(connection_id), 16, '0') AS connection,
    node AS seen_on,
    interface,
    toString(reporter) AS seen_from
FROM flows;

-- 0023_edges.sql
CREATE VIEW IF NOT EXISTS edges ON CLUSTER `main` AS
SELECT
    start AS time,
    concat(if(client_namespace = '', '', concat(client_namespace, '/')), if(client_name = '', replaceRegexpOne(toString(client_real_ip), '^::ffff:([0-9]+[.])', '\\1'), client_name)) AS client,
    if(client_workload = '', client, concat(client_namespace, '/', client_workload)) AS client_workload_name,
    toString(client_kind) AS client_is,
    concat(if(server_namespace = '', '', concat(server_namespace, '/')), if(server_name = '', replaceRegexpOne(toString(server_real_ip), '^::ffff:([0-9]+[.])', '\\1'), server_name)) AS server,
    if(server_workload = '', server, concat(server_namespace, '/', server_workload)) AS server_workload_name,
    toString(server_kind) AS server_is,
    server_port,
    if(service_name = '', '', concat(service_namespace, '/', service_name)) AS service,
    opened + joined AS connections,
    open_at_start,
    closed_refused + closed_unanswered AS failed,
    closed_refused AS refused,
    closed_unanswered AS unanswered,
    closed_reset_by_client + closed_reset_by_server AS reset,
    sent_bytes,
    received_bytes,
    sent_packets + received_packets AS packets,
    sent_retransmitted_packets + received_retransmitted_packets AS retransmitted_packets,
    syn_to_synack_us AS latency_us,
    syn_to_synack_count AS latency_count,
    syn_to_synack_buckets AS latency_buckets,
    first_seen,
    last_seen
FROM edges_1m;
