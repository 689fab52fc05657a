-- What one flow did in one interval at one observation point, with the names its ends had then.
-- All counts add up: over intervals, over edges, over records of one flow and interval.
--
-- What follows from other columns nearly always is stored as what it differs by, and is an alias: an end that is
-- seen behind no NAT, the age of a connection that began in the interval, the largest of one sample. Rows of one
-- connection lie side by side. Both halve what a row takes on the disk.
CREATE TABLE IF NOT EXISTS flows
(
    interval_start                 DateTime('UTC') COMMENT 'start of the interval that all packets of the row belong to' CODEC(ZSTD(3)),
    interval_s                     UInt8 COMMENT 'length of the interval in seconds' CODEC(ZSTD(1)),
    first_offset_us                Int64 COMMENT 'first packet, from interval_start on (0 in a heartbeat)' CODEC(Delta, ZSTD(1)),
    first_seen                     DateTime64(6, 'UTC') ALIAS addMicroseconds(toDateTime64(interval_start, 6, 'UTC'), first_offset_us) COMMENT 'first packet (interval_start in a heartbeat)',
    active_us                      Int64 COMMENT 'first to last packet of the row' CODEC(ZSTD(3)),
    last_seen                      DateTime64(6, 'UTC') ALIAS addMicroseconds(toDateTime64(interval_start, 6, 'UTC'), first_offset_us + active_us) COMMENT 'last packet (interval_start in a heartbeat)',

    node                           LowCardinality(String) COMMENT 'node of the observation point' CODEC(ZSTD(3)),
    agent                          LowCardinality(String) COMMENT 'agent that observed' CODEC(ZSTD(3)),
    interface                      LowCardinality(String) COMMENT 'interface of the observation point' CODEC(ZSTD(3)),
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
    client_namespace               LowCardinality(String) CODEC(ZSTD(3)),
    client_name                    LowCardinality(String) COMMENT 'pod, Service or node; the name of the CIDR; empty when there is none' CODEC(ZSTD(3)),
    client_workload                LowCardinality(String) COMMENT 'top owner: Deployment, StatefulSet, DaemonSet, CronJob, Job' CODEC(ZSTD(3)),
    client_workload_kind           LowCardinality(String) CODEC(ZSTD(3)),
    client_node                    LowCardinality(String) CODEC(ZSTD(3)),
    client_uncertain               Bool COMMENT 'the watch had a gap at the time: the name may be a predecessor''s' CODEC(ZSTD(1)),
    client_real_ip                 IPv6 COMMENT 'the true client behind NAT, when another observation shows it; else client_ip' CODEC(ZSTD(1)),
    client_real_port               UInt16 CODEC(Delta, ZSTD(1)),

    server_seen_ip                 IPv6 COMMENT 'the other end, as seen here (IPv4 mapped), if not as server_real_ip and server_real_port; else ::' CODEC(ZSTD(1)),
    server_ip                      IPv6 ALIAS if(server_seen_ip = toIPv6('::'), server_real_ip, server_seen_ip) COMMENT 'the other end, as seen here (IPv4 mapped)',
    server_seen_port               UInt16 COMMENT '0 if server_seen_ip is ::' CODEC(ZSTD(1)),
    server_port                    UInt16 ALIAS if(server_seen_ip = toIPv6('::'), server_real_port, server_seen_port),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5) CODEC(ZSTD(1)),
    server_namespace               LowCardinality(String) CODEC(ZSTD(3)),
    server_name                    LowCardinality(String) CODEC(ZSTD(3)),
    server_workload                LowCardinality(String) CODEC(ZSTD(3)),
    server_workload_kind           LowCardinality(String) CODEC(ZSTD(3)),
    server_node                    LowCardinality(String) CODEC(ZSTD(3)),
    server_uncertain               Bool CODEC(ZSTD(1)),
    server_real_ip                 IPv6 COMMENT 'the true server behind NAT, when another observation shows it; else server_ip' CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String) COMMENT 'Service through which the client reached the server' CODEC(ZSTD(3)),
    service_name                   LowCardinality(String) CODEC(ZSTD(3)),

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

    topic_id                       LowCardinality(String) COMMENT 'topic that partition and chunk_start are of: one made anew counts from 0 again' CODEC(ZSTD(3)),
    partition                      UInt32 COMMENT 'Kafka partition the record came by' CODEC(ZSTD(1)),
    chunk_start                    UInt64 COMMENT 'first offset of the chunk it was inserted with: see deliveries' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(interval_start)
PRIMARY KEY (toStartOfTenMinutes(interval_start), client_namespace, client_workload, server_namespace, server_workload)
ORDER BY (toStartOfTenMinutes(interval_start), client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, connection_id, interval_start, reporter)
TTL interval_start + INTERVAL 14 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000
