-- Each agent's report on each interval. That a report is missing is information too: nobody looked.
CREATE TABLE IF NOT EXISTS coverage
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
ENGINE = MergeTree
PARTITION BY toDate(interval_start)
ORDER BY (interval_start, agent)
TTL interval_start + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000
