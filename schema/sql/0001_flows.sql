-- What one flow did in one interval at one observation point, with the names its ends had then.
-- All counts add up: over intervals, over edges, over records of one flow and interval.
CREATE TABLE IF NOT EXISTS flows
(
    interval_start                 DateTime('UTC') COMMENT 'start of the interval that all packets of the row belong to' CODEC(DoubleDelta, ZSTD(1)),
    interval_s                     UInt8 COMMENT 'length of the interval in seconds' CODEC(ZSTD(1)),
    first_seen                     DateTime64(6, 'UTC') COMMENT 'first packet (interval_start in a heartbeat)' CODEC(T64, ZSTD(1)),
    last_seen                      DateTime64(6, 'UTC') COMMENT 'last packet (interval_start in a heartbeat)' CODEC(T64, ZSTD(1)),

    node                           LowCardinality(String) COMMENT 'node of the observation point',
    agent                          LowCardinality(String) COMMENT 'agent that observed',
    interface                      LowCardinality(String) COMMENT 'interface of the observation point',
    interface_kind                 Enum8('pod' = 1, 'uplink' = 2, 'other' = 3),
    reporter                       Enum8('client' = 1, 'server' = 2, 'transit' = 3) COMMENT 'side of the connection that the interface leads to',
    local_primary                  Bool COMMENT 'the one observation its agent counts for the connection',
    primary                        Bool COMMENT 'the one observation counted in edges; all others are evidence',
    detail                         Enum8('flow' = 1, 'summary' = 2, 'minute_summary' = 3) COMMENT 'how much was folded while Kafka was away',

    connection_id                  UInt64 COMMENT 'client_isn << 32 | server_isn, or a hash of the tuple' CODEC(ZSTD(1)),
    id_kind                        Enum8('complete' = 1, 'partial' = 2, 'tuple_hash' = 3),
    handshake_seen                 Bool,
    one_sided                      Bool COMMENT 'only one direction passes the observation point',
    direction_inferred             Bool COMMENT 'no handshake seen: the client was guessed from ports',
    age_us                         UInt64 COMMENT 'age of the connection at last_seen' CODEC(T64, ZSTD(1)),

    client_ip                      IPv6 COMMENT 'the end that sent the SYN, as seen here (IPv4 mapped)' CODEC(ZSTD(1)),
    client_port                    UInt16 CODEC(ZSTD(1)),
    client_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    client_namespace               LowCardinality(String),
    client_name                    LowCardinality(String) COMMENT 'pod, Service or node; the name of the CIDR; empty when there is none',
    client_workload                LowCardinality(String) COMMENT 'top owner: Deployment, StatefulSet, DaemonSet, CronJob, Job',
    client_workload_kind           LowCardinality(String),
    client_node                    LowCardinality(String),
    client_uncertain               Bool COMMENT 'the watch had a gap at the time: the name may be a predecessor''s',
    client_real_ip                 IPv6 COMMENT 'the true client behind NAT, when another observation shows it; else client_ip' CODEC(ZSTD(1)),
    client_real_port               UInt16 CODEC(ZSTD(1)),

    server_ip                      IPv6 COMMENT 'the other end, as seen here (IPv4 mapped)' CODEC(ZSTD(1)),
    server_port                    UInt16 CODEC(ZSTD(1)),
    server_kind                    Enum8('pod' = 1, 'service' = 2, 'node' = 3, 'external' = 4, 'unknown' = 5),
    server_namespace               LowCardinality(String),
    server_name                    LowCardinality(String),
    server_workload                LowCardinality(String),
    server_workload_kind           LowCardinality(String),
    server_node                    LowCardinality(String),
    server_uncertain               Bool,
    server_real_ip                 IPv6 COMMENT 'the true server behind NAT, when another observation shows it; else server_ip' CODEC(ZSTD(1)),
    server_real_port               UInt16 CODEC(ZSTD(1)),
    service_namespace              LowCardinality(String) COMMENT 'Service through which the client reached the server',
    service_name                   LowCardinality(String),

    sent_bytes                     UInt64 COMMENT 'client to server: IP packet lengths' CODEC(T64, ZSTD(1)),
    sent_payload_bytes             UInt64 COMMENT 'TCP payload' CODEC(T64, ZSTD(1)),
    sent_packets                   UInt64 CODEC(T64, ZSTD(1)),
    sent_retransmitted_packets     UInt64 CODEC(T64, ZSTD(1)),
    sent_zero_window_packets       UInt64 CODEC(T64, ZSTD(1)),
    received_bytes                 UInt64 COMMENT 'server to client: IP packet lengths' CODEC(T64, ZSTD(1)),
    received_payload_bytes         UInt64 CODEC(T64, ZSTD(1)),
    received_packets               UInt64 CODEC(T64, ZSTD(1)),
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
    syn_to_synack_max_us           UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_us               UInt64 CODEC(T64, ZSTD(1)),
    synack_to_ack_count            UInt32 CODEC(T64, ZSTD(1)),
    synack_to_ack_max_us           UInt64 CODEC(T64, ZSTD(1)),
    first_response_us              UInt64 COMMENT 'client''s first payload to server''s first payload' CODEC(T64, ZSTD(1)),
    first_response_count           UInt32 CODEC(T64, ZSTD(1)),
    first_response_max_us          UInt64 CODEC(T64, ZSTD(1)),
    duration_us                    UInt64 COMMENT 'first to last packet, at close' CODEC(T64, ZSTD(1)),
    duration_count                 UInt32 CODEC(T64, ZSTD(1)),
    duration_max_us                UInt64 CODEC(T64, ZSTD(1)),

    topic_id                       LowCardinality(String) COMMENT 'topic that partition and chunk_start are of: one made anew counts from 0 again',
    partition                      UInt32 COMMENT 'Kafka partition the record came by' CODEC(ZSTD(1)),
    chunk_start                    UInt64 COMMENT 'first offset of the chunk it was inserted with: see deliveries' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(interval_start)
ORDER BY (toStartOfTenMinutes(interval_start), client_namespace, client_workload, server_namespace, server_workload, client_name, server_name, server_port, interval_start)
TTL interval_start + INTERVAL 14 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000
